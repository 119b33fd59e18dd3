//! `audit verify`: exports of audit records, verified without a server.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use sentinel_audit::report::{Report, Source};

use crate::args::{AuditArgs, AuditVerb};
use crate::exit::{ExitResult, FAILED, Failure, OK};
use crate::output::format::print;

pub(super) fn execute(args: &AuditArgs) -> ExitResult {
    let AuditVerb::Verify(args) = &args.verb;
    if args.files.iter().filter(|file| file.as_os_str() == "-").count() > 1 {
        return Err(Failure::usage("standard input can be read only once, and - is given more often"));
    }
    let sources = args.files.iter().map(|file| source(file)).collect::<Result<Vec<_>, Failure>>()?;
    let report = Report::of(&sources);
    print(&report.to_string())?;
    Ok(if report.is_ok() { OK } else { FAILED })
}

fn source(path: &Path) -> Result<Source<'_>, Failure> {
    if path.as_os_str() == "-" {
        return Ok(Source { name: "standard input".to_owned(), open: Box::new(copied()?) });
    }
    let open = move || Ok(Box::new(BufReader::new(File::open(path)?)) as Box<dyn BufRead>);
    Ok(Source { name: path.display().to_string(), open: Box::new(open) })
}

/// Standard input in a file that has no name, as it is read twice and may be larger than the memory.
fn copied() -> Result<impl Fn() -> io::Result<Box<dyn BufRead>>, Failure> {
    let failed = |error: io::Error| {
        let folder = std::env::temp_dir();
        Failure::new(format!("failed to copy standard input to {}: {error}", folder.display()))
            .hint("Set TMPDIR to a directory with enough space, or name a file")
    };
    let mut file = nameless().map_err(failed)?;
    io::copy(&mut io::stdin().lock(), &mut file).map_err(failed)?;
    // The files that are opened from it share its position, and one is read after the other.
    let file = Arc::new(Mutex::new(file));
    Ok(move || {
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.rewind()?;
        Ok(Box::new(BufReader::new(file.try_clone()?)) as Box<dyn BufRead>)
    })
}

fn nameless() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("sentinel-audit-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}
