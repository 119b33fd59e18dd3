//! A chain in its directory, through restarts, torn ends, full disks and retention.
#![cfg(feature = "directory")]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, of files"
)]

use std::fs;
use std::io::{BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use sentinel_audit::Record;
use sentinel_audit::directory::{Directory, DirectoryError, MIN_KEPT, SyncedHead, Writer, files};
use sentinel_audit::export::Export;
use sentinel_audit::verify::{Summary, verify};
use sentinel_protocol::ids::ChainId;
use sentinel_protocol::time::UnixMillis;

fn open(path: &Path) -> Directory {
    try_open(path).unwrap()
}

fn try_open(path: &Path) -> Result<Directory, DirectoryError> {
    let writer = Writer { program: "node-agent", version: "1", on: "n-1".into() };
    // The id counts only if there is no chain yet.
    let id = ChainId::new(format!("c-{}", files(path).map_or(0, |files| files.len()))).unwrap();
    Directory::open(path, 0, id, &writer, SyncedHead::default(), UnixMillis(1), &mut |_| {})
}

fn started(pid: i32) -> Record {
    Record::Started { attempt: "u/1/n-1/1".parse().unwrap(), pid, started_at: UnixMillis(5) }
}

fn verified(path: &Path) -> (Summary, Vec<Record>) {
    let mut records = Vec::new();
    let export = BufReader::new(Export::open(path).unwrap());
    let mut chains = verify(export, |_, line| records.push(line.record.clone().unwrap())).unwrap();
    assert_eq!(chains.len(), 1);
    (chains.remove(0), records)
}

#[test]
fn a_chain_is_continued_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit");
    let mut directory = open(&path);
    directory.append(UnixMillis(2), &started(1));
    let head = directory.head().unwrap();
    assert_eq!(directory.synced().get(), None, "it is not durable yet");
    directory.take_unsynced().unwrap().sync().unwrap();
    assert_eq!(directory.synced().get(), Some(head));
    drop(directory);
    let mut directory = open(&path);
    directory.append(UnixMillis(3), &started(2));
    let (chain, records) = verified(&path);
    assert_eq!((chain.head, records.len()), (directory.head().unwrap(), 4));
    assert!(matches!(records[2], Record::Began { torn: None, .. }));
}

#[test]
fn what_is_torn_at_the_end_is_removed_and_mentioned() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let file = files(folder.path()).unwrap().remove(0);
    for torn in [&b"{\"v\":1,\"cha"[..], b"\0\0\0\0", b"half\n", b"{}\n\n\n{\"v\""] {
        let whole = fs::read(&file).unwrap();
        fs::write(&file, [&whole, torn].concat()).unwrap();
        drop(open(folder.path()));
        let (_, records) = verified(folder.path());
        let Some(Record::Began { torn: Some(seen), .. }) = records.last() else { panic!("{records:?}") };
        assert_eq!(seen.bytes, torn.len() as u64);
    }
}

/// What was changed in the middle is evidence, and no torn end.
#[test]
fn a_changed_record_in_the_middle_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = open(folder.path());
    (1..5).for_each(|pid| directory.append(UnixMillis(2), &started(pid)));
    drop(directory);
    let file = files(folder.path()).unwrap().remove(0);
    let changed = fs::read_to_string(&file).unwrap().replace("\"pid\":2", "\"pid\":3");
    fs::write(&file, &changed).unwrap();
    drop(open(folder.path()));
    assert!(fs::read_to_string(&file).unwrap().starts_with(&changed));
    let error = verify(BufReader::new(Export::open(folder.path()).unwrap()), |_, _| {}).unwrap_err();
    assert!(error.to_string().starts_with("line 3 does not fit: it was changed"), "{error}");
}

#[test]
fn a_file_without_any_record_is_set_aside_and_the_chain_continues() {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = open(folder.path());
    directory.append(UnixMillis(2), &started(1));
    drop(directory);
    let later = folder.path().join(format!("{:020}.jsonl", 3));
    fs::write(&later, vec![0; 5000]).unwrap();
    drop(open(folder.path()));
    assert_eq!(fs::read(later.with_extension("damaged")).unwrap().len(), 5000);
    assert_eq!(verified(folder.path()).0.records(), 3);
    // An empty one is what a process leaves that ended just after it began a file.
    fs::write(folder.path().join(format!("{:020}.jsonl", 9)), "").unwrap();
    drop(open(folder.path()));
    assert_eq!(verified(folder.path()).0.records(), 4);
}

#[test]
fn the_oldest_records_are_removed_and_the_rest_still_fits() {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = open(folder.path());
    (0..12_000).for_each(|pid| directory.append(UnixMillis(2), &started(pid)));
    assert_eq!(directory.lost(), 0);
    let bytes: u64 = files(folder.path()).unwrap().iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(bytes <= MIN_KEPT && bytes > MIN_KEPT / 2, "{bytes}");
    let (chain, _) = verified(folder.path());
    assert!(chain.first > 1, "{chain:?}");
    assert_eq!(chain.head, directory.head().unwrap());
    drop(directory);
    drop(open(folder.path()));
    assert_eq!(verified(folder.path()).0.head.seq, 12_002);
}

#[test]
fn two_processes_do_not_append_to_one_chain() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open(folder.path());
    let error = try_open(folder.path()).unwrap_err();
    assert!(matches!(error, DirectoryError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
}

#[test]
fn an_export_ends_with_a_whole_line_while_another_is_being_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = open(folder.path());
    directory.append(UnixMillis(2), &started(1));
    let file = files(folder.path()).unwrap().remove(0);
    fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"{\"v\":1,\"ch").unwrap();
    assert_eq!(verified(folder.path()).0.records(), 2);
}

/// As `docs/audit.md` describes it, without any program of this project.
#[test]
fn a_line_can_be_verified_with_sed_and_sha256sum() {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = open(folder.path());
    directory.append(UnixMillis(2), &started(1));
    let mut text = String::new();
    Export::open(folder.path()).unwrap().read_to_string(&mut text).unwrap();
    let file = folder.path().join("export.jsonl");
    fs::write(&file, &text).unwrap();
    let script = r#"sed -n 2p "$1" | sed 's/,"hash":"[0-9a-f]*"}$//' | tr -d '\n' | sha256sum"#;
    let shell =
        Command::new("sh").args(["-c", script, "-"]).arg(&file).stderr(Stdio::inherit()).output().unwrap();
    let hash = directory.head().unwrap().hash;
    assert_eq!(String::from_utf8(shell.stdout).unwrap(), format!("{hash}  -\n"));
}
