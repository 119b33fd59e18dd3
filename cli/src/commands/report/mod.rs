//! `report`: a support bundle without secrets.
//!
//! [`collect`] reads, and hands each document to [`redact`] before it becomes a file of the [`bundle`]; nothing gets there
//! otherwise. No Secret is read. What could not be read is listed with the reason, so that a bundle from a broken cluster is
//! one too.

mod bundle;
mod collect;
mod redact;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use self::bundle::Bundle;
use crate::args::ReportArgs;
use crate::connection::{Place, connect};
use crate::exit::{ExitResult, Failure, OK};
use crate::output::counted;
use crate::output::format::{note, print};
use crate::output::sink::print_generated;

pub(super) fn execute<'a>(place: &'a Place, args: &'a ReportArgs) -> LocalBoxFuture<'a, ExitResult> {
    executed(place, args).boxed_local()
}

async fn executed(place: &Place, args: &ReportArgs) -> ExitResult {
    let connection = connect(place, false).await?;
    let mut bundle = Bundle::default();
    collect::all(&connection, args, &mut bundle).await?;
    let (files, missing) = (bundle.len(), bundle.missing());
    let packed =
        bundle.pack().map_err(|error| Failure::new(format!("failed to pack the report: {error}")))?;
    if args.file == Path::new("-") {
        print_generated(&packed)?;
        return Ok(OK);
    }
    write(&args.file, &packed)
        .map_err(|error| Failure::new(format!("failed to write {}: {error}", args.file.display())))?;
    let count = counted(files as u64, "file");
    print(&format!("{} has {count}; MANIFEST.md lists them, and what was replaced\n", args.file.display()))?;
    if missing > 0 {
        note(&format!("{} could not be read; MANIFEST.md has the reasons", counted(missing as u64, "part")));
    }
    note("Read it before you send it: names of objects, nodes and programs are in it.");
    Ok(OK)
}

/// Writes a file that only this user can read.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}
