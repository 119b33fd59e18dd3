//! `audit verify`: exports of audit records, verified without a server. `audit heads`: what History has to verify them against.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use sentinel_api::view::AuditHeadView;
use sentinel_audit::AuditHead;
use sentinel_audit::anchors::{Anchor, Recorder};
use sentinel_audit::directory::named_after;
use sentinel_audit::export::Export;
use sentinel_audit::report::{Opened, Report, Source, Terms, Verdict};
use sentinel_protocol::human::human_bytes;
use sentinel_protocol::ids::{ChainId, Sha256Hex};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::args::{AuditHeadsArgs, AuditVerifyArgs};
use crate::client::{Client, Query};
use crate::exit::{ExitResult, FAILED, Failure, OK, UNPROVEN};
use crate::output::format::{OutputFormat, note, print};
use crate::output::table::{Cell, Table};
use crate::output::text::Text;

/// Verifies exports.
pub(super) fn verify(args: &AuditVerifyArgs) -> ExitResult {
    if args.files.iter().filter(|file| file.as_os_str() == "-").count() > 1 {
        return Err(Failure::usage("standard input can be read only once, and - is given more often"));
    }
    let sources = args.files.iter().map(|file| source(file)).collect::<Result<Vec<_>, Failure>>()?;
    let heads = args.heads.iter().map(|file| heads_in(file)).collect::<Result<Vec<_>, Failure>>()?;
    let heads = (!heads.is_empty()).then(|| heads.concat());
    let terms = Terms {
        of: args.of.clone(),
        allow_unanchored: args.allow_unanchored,
        allow_retention: args.allow_retention,
    };
    let report = Report::of(&sources, heads, terms);
    print(&report.to_string())?;
    Ok(match report.verdict() {
        Verdict::Fits => OK,
        Verdict::Unanchored => UNPROVEN,
        Verdict::Failed => FAILED,
    })
}

/// Most bytes of a file of heads: those of a thousand nodes, of each day of a year and each hour of a month, have half as many.
const MAX_HEADS_FILE: u64 = 512 << 20;

/// A list of heads in a file.
#[derive(Deserialize)]
struct HeadsFile {
    items: Vec<AuditHeadView>,
}

fn heads_in(path: &Path) -> Result<Vec<Anchor>, Failure> {
    let failed = |why: String| {
        Failure::usage(format!("failed to read heads from {}: {why}", path.display()))
            .hint("Write the file with: sentinel audit heads -o json > FILE")
    };
    let read = File::open(path).map_err(|error| error.to_string());
    let read = read.and_then(|file| listed_heads(file, MAX_HEADS_FILE)).map_err(failed)?;
    let anchor = |(index, view): (usize, AuditHeadView)| {
        let wrong = |error: String| failed(format!("item {} is not a head: {error}", index + 1));
        let chain = ChainId::new(view.chain).map_err(|error| wrong(error.to_string()))?;
        let hash = Sha256Hex::new(view.hash).map_err(|error| wrong(error.to_string()))?;
        let head = AuditHead { chain, seq: view.seq, hash };
        let time = view.recorded_at.unwrap_or_else(|| "at an unknown time".to_owned());
        Ok(Anchor { head, of: view.of, recorded_by: Recorder::History, time })
    };
    read.items.into_iter().enumerate().map(anchor).collect()
}

/// The list of heads in a file. What is none is refused at its first byte, and not read to the end.
fn listed_heads(file: impl io::Read, max: u64) -> Result<HeadsFile, String> {
    let mut file = file.take(max);
    serde_json::from_reader(BufReader::new(&mut file)).map_err(|error| match file.limit() {
        0 => format!("it has more than {}, which no list of heads has", human_bytes(max)),
        _ => error.to_string(),
    })
}

/// Lists heads.
pub(super) async fn heads(client: &Client, args: &AuditHeadsArgs) -> ExitResult {
    let mut query = Query::default();
    query.maybe("of", args.of.as_deref());
    let listed = client.list("/api/v1/audit/heads", query, usize::MAX, None).await?;
    let text = |item: &Value, field: &str| match &item[field] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match args.output {
        OutputFormat::Json | OutputFormat::Yaml => {
            args.output.print_document(&json!({"items": listed.items}))?;
        }
        OutputFormat::Name => {
            let name =
                |item: &Value| format!("{}/{}/{}", text(item, "of"), text(item, "chain"), text(item, "seq"));
            let names = each_once(&listed.items).map(name);
            print(names.fold(Text::new(), |all, name| all.single_line(&name).plain("\n")))?;
        }
        OutputFormat::Table | OutputFormat::Wide if listed.items.is_empty() => {
            note("No heads found. They are recorded within a minute of a change.");
        }
        OutputFormat::Table | OutputFormat::Wide => {
            let mut table = Table::new(&["OF", "CHAIN", "RECORD", "RECORDED", "HASH"]);
            for item in each_once(&listed.items) {
                let row =
                    ["of", "chain", "seq", "recordedAt", "hash"].map(|field| Cell::from(text(item, field)));
                table.row(row.to_vec());
            }
            print(table.text())?;
        }
    }
    Ok(OK)
}

/// Heads, each where it is listed first: the same may be the first of an hour, the last of one, and the last of all.
fn each_once(items: &[Value]) -> impl Iterator<Item = &Value> {
    let mut seen = HashSet::new();
    items
        .iter()
        .filter(move |item| seen.insert(["of", "chain", "seq", "hash"].map(|field| item[field].to_string())))
}

fn source(path: &Path) -> Result<Source<'_>, Failure> {
    if path.as_os_str() == "-" {
        let open = copied("standard input", &mut io::stdin().lock())?;
        return Ok(Source { name: "standard input".to_owned(), open: Box::new(open) });
    }
    let name = path.display().to_string();
    // It can be read once, such as that of `<(ssh node-1 node-agent audit export)`.
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        let mut pipe =
            File::open(path).map_err(|error| Failure::new(format!("failed to open {name}: {error}")))?;
        return Ok(Source { open: Box::new(copied(&name, &mut pipe)?), name });
    }
    let open = move || {
        if path.is_dir() {
            return Export::open_some(path).map(Opened::from).map_err(io::Error::other);
        }
        let records: Box<dyn BufRead> = Box::new(BufReader::new(File::open(path)?));
        Ok(Opened { records, begins: named_after(path) })
    };
    Ok(Source { name, open: Box::new(open) })
}

/// What can be read once, in a file that has no name, as it is read twice and may be larger than the memory.
fn copied(what: &str, from: &mut dyn io::Read) -> Result<impl Fn() -> io::Result<Opened> + use<>, Failure> {
    let failed = |error: io::Error| {
        let folder = std::env::temp_dir();
        Failure::new(format!("failed to copy {what} to {}: {error}", folder.display()))
            .hint("Set TMPDIR to a directory with enough space, or name a file")
    };
    let mut file = nameless().map_err(&failed)?;
    io::copy(from, &mut file).map_err(failed)?;
    // The files that are opened from it share its position, and one is read after the other.
    let file = Arc::new(Mutex::new(file));
    Ok(move || {
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.rewind()?;
        let records: Box<dyn BufRead> = Box::new(BufReader::new(file.try_clone()?));
        Ok(Opened { records, begins: None })
    })
}

fn nameless() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("sentinel-audit-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_heads_is_read_up_to_a_bound_and_refused_at_its_first_wrong_byte() {
        let wrong = listed_heads(io::repeat(0), u64::MAX).err().unwrap();
        assert!(wrong.contains("expected value at line 1 column 1"), "{wrong}");
        // White space may be in any JSON.
        let endless = listed_heads(io::repeat(b' '), 1 << 20).err().unwrap();
        assert_eq!(endless, "it has more than 1 MiB, which no list of heads has");
    }
}
