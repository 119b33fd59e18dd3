//! `sentinel audit verify`, the real binary.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod kit;

use std::fs;
use std::io::{BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use kit::Dev;
use sentinel_audit::export::Export;
use sentinel_audit::verify::verify;
use sentinel_audit::{AuditHead, Chain, Record};
use sentinel_protocol::ids::ChainId;
use sentinel_protocol::time::UnixMillis;

fn began(on: &str) -> Record {
    began_by("node-agent", on)
}

fn began_by(program: &str, on: &str) -> Record {
    Record::Began { program: program.into(), version: "1".into(), on: on.into(), torn: None }
}

/// A head as `audit heads -o json` lists it.
fn item(of: &str, head: &AuditHead) -> serde_json::Value {
    serde_json::json!({"of": of, "chain": head.chain, "seq": head.seq, "hash": head.hash, "recordedAt": "2026-11-30T08:15:00Z"})
}

fn export(id: &str, records: &[Record]) -> (Vec<Vec<u8>>, AuditHead) {
    let mut chain = Chain::new(ChainId::new(id).unwrap());
    let mut lines = Vec::new();
    for record in records {
        let next = chain.next(UnixMillis(1_700_000_000_000), record).unwrap();
        chain.advance(&next);
        lines.push(next.line);
    }
    (lines, chain.head().unwrap())
}

/// Exit code and both streams.
fn sentinel(folder: &Path, args: &[&str], stdin: &[u8]) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sentinel"))
        .args(["audit", "verify"])
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that refuses the command line does not read it.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn exports_are_verified_together_and_a_cut_end_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (node, head) = export("node", &[began("n-1"), began("n-1"), began("n-1")]);
    let seen = Record::HeadSeen { of: "n-1".into(), head };
    let (operator, _) = export("operator", &[began_by("operator", "op-1"), seen]);
    fs::write(folder.path().join("node.jsonl"), node.concat()).unwrap();
    fs::write(folder.path().join("operator.jsonl"), operator.concat()).unwrap();

    let (code, out, err) = sentinel(folder.path(), &["node.jsonl", "operator.jsonl"], b"");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("chain node of node-agent on n-1"), "{out}");
    assert!(out.contains("end: it still has record 3 as chain operator recorded it (record 2,"), "{out}");
    assert!(out.ends_with("OK: every record fits\n"), "{out}");

    // Alone, a cut end fits; the page and the output tell that apart from a verified one.
    let cut = node[..2].concat();
    let (code, out, _) = sentinel(folder.path(), &["-"], &cut);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("a cut end would not be found"), "{out}");
    for order in [["operator.jsonl", "-"], ["-", "operator.jsonl"]] {
        let (code, out, _) = sentinel(folder.path(), &order, &cut);
        assert_eq!(code, 1, "{out}");
        assert!(out.contains("FAILED: its end was cut off: it ends before record 3"), "{out}");
    }
    let (code, out, _) = sentinel(folder.path(), &["operator.jsonl"], b"");
    assert_eq!(code, 0);
    assert!(out.contains("heads of 1 other chain are recorded here"), "{out}");

    // A chain that was put in its place fits alone.
    let (fresh, _) = export("fresh", &[began("n-1")]);
    let (code, out, _) = sentinel(folder.path(), &["operator.jsonl", "-"], &fresh.concat());
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("chain node of n-1: FAILED: it is in no file. It had record 3"), "{out}");
}

#[test]
fn the_first_record_that_does_not_fit_is_named_and_the_other_files_are_verified() {
    let folder = tempfile::tempdir().unwrap();
    let (lines, _) = export("node", &[began("n-1"), began("n-1"), began("n-1")]);
    fs::write(folder.path().join("good"), lines.concat()).unwrap();
    let changed = String::from_utf8(lines.concat()).unwrap().replacen("n-1", "n-2", 1);
    fs::write(folder.path().join("changed"), changed).unwrap();
    fs::write(folder.path().join("missing"), [&lines[0][..], &lines[2]].concat()).unwrap();
    fs::write(folder.path().join("empty"), "").unwrap();
    let args = ["changed", "missing", "empty", "nowhere", "good"];
    let (code, out, _) = sentinel(folder.path(), &args, b"");
    assert_eq!(code, 1);
    for expected in [
        "changed: FAILED: line 1 does not fit: it was changed: its content has the hash ",
        "missing: FAILED: line 2 (record 3) does not fit: record 2 is missing before it",
        "empty: FAILED: there is no record in it, and an export has at least one",
        "nowhere: FAILED to open it: No such file or directory",
        "good: 1 chain\n",
    ] {
        assert!(out.contains(expected), "{expected:?} is not in:\n{out}");
    }
    assert!(out.ends_with("FAILED\n"), "{out}");
}

#[test]
fn two_files_of_one_chain_with_different_records_are_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, lines: &[Vec<u8>]| fs::write(folder.path().join(name), lines.concat()).unwrap();
    let (lines, _) = export("node", &["n-1", "n-1", "n-1", "n-1"].map(began));
    let (forged, _) = export("node", &["n-1", "n-1", "n-2", "n-1"].map(began));
    write("a.jsonl", &lines);
    write("older.jsonl", &lines[..3]);
    write("forged.jsonl", &forged);
    for args in
        [["a.jsonl", "forged.jsonl"], ["forged.jsonl", "older.jsonl"], ["a.jsonl", "-"], ["-", "older.jsonl"]]
    {
        let (code, out, _) = sentinel(folder.path(), &args, &forged.concat());
        assert_eq!(code, 1, "{out}");
        assert!(out.contains("chain node: FAILED: from record 3 on, "), "{out}");
        assert!(args.iter().all(|name| out.contains(&name.replace('-', "standard input"))), "{out}");
    }
    for args in [["a.jsonl", "a.jsonl"], ["a.jsonl", "older.jsonl"], ["older.jsonl", "-"]] {
        let (code, out, _) = sentinel(folder.path(), &args, &lines.concat());
        assert_eq!(code, 0, "{out}");
        assert!(
            out.contains("    its records are those of ") && out.ends_with("and not that it is whole\n"),
            "{out}"
        );
    }
    assert_eq!(sentinel(folder.path(), &["-"], &[lines, forged].concat().concat()).0, 1);
}

#[test]
fn an_endless_file_of_heads_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (lines, _) = export("node", &[began("n-1")]);
    fs::write(folder.path().join("a.jsonl"), lines.concat()).unwrap();
    let (code, _, err) = sentinel(folder.path(), &["a.jsonl", "--heads", "/dev/zero"], b"");
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("failed to read heads from /dev/zero: expected value at line 1 column 1"), "{err}");
}

#[test]
fn what_is_not_an_export_is_named_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("state/audit");
    fs::create_dir_all(&audit).unwrap();
    let (code, out, _) = sentinel(folder.path(), &["state"], b"");
    assert!(
        code == 1 && out.contains("state: FAILED to open it: failed to find records in state: no file of it"),
        "{out}"
    );
    assert!(!out.contains("name that"), "{out}");
    let (lines, _) = export("node", &[began("n-1")]);
    fs::write(audit.join(format!("{:020}.jsonl", 1)), lines.concat()).unwrap();
    let (code, out, _) = sentinel(folder.path(), &["state"], b"");
    assert!(code == 1 && out.contains("00000000000000000001.jsonl; state/audit has: name that"), "{out}");
    let (code, out, _) = sentinel(folder.path(), &["-"], b"");
    assert!(code == 1 && out.contains("standard input: FAILED: there is no record in it"), "{out}");
    let (code, _, err) = sentinel(folder.path(), &["state/audit", "--of", ""], b"");
    assert!(code == 2 && err.contains("--of"), "{err}");
}

#[test]
fn chains_that_prove_each_other_in_one_stream_or_pipe_are_not_called_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (node, head) = export("node", &[began("n-1"), began("n-1")]);
    let seen = Record::HeadSeen { of: "n-1".into(), head };
    let (operator, _) = export("operator", &[began_by("operator", "op-1"), seen]);
    let stream = [operator, node].concat().concat();
    for pipe in ["-", "/dev/stdin"] {
        let (code, out, err) = sentinel(folder.path(), &[pipe], &stream);
        assert_eq!(code, 0, "{out}{err}");
        assert!(out.ends_with("\nOK: every record fits\n"), "{out}");
    }
}

/// The records of a directory, as they are now.
fn records(directory: &Path) -> Vec<Record> {
    let mut records = Vec::new();
    let export = BufReader::new(Export::open(directory).unwrap());
    verify(export, |_, line| records.push(line.record.clone().unwrap())).unwrap();
    records
}

fn heads(records: &[Record]) -> usize {
    records.iter().filter(|record| matches!(record, Record::HeadSeen { .. })).count()
}

/// The heads that History has, once it has those of operator and node: within seconds.
fn heads_in_history(dev: &Dev, deadline: std::time::Instant) -> String {
    let kept = || {
        let value = dev.run(&["audit", "heads", "-o", "json"]).exited(0).json();
        let items = value["items"].as_array().unwrap();
        let is_of_operator = |item: &&serde_json::Value| item["of"] == "operator";
        let is_of_node =
            |item: &serde_json::Value| item["of"] != "operator" && item["seq"].as_u64() > Some(1);
        (items.iter().any(|item| is_of_operator(&item)) && items.iter().any(is_of_node))
            .then(|| value.to_string())
    };
    loop {
        assert!(std::time::Instant::now() < deadline, "no heads in History");
        if let Some(kept) = kept() {
            return kept;
        }
    }
}

#[test]
fn operator_and_nodes_record_a_run_and_each_others_heads() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let mut dev = Dev::start(&["--state", state.to_str().unwrap()]);
    dev.run(&["run", "--name", "hello", "--all", "--", "echo", "an-argument"]).exited(0);
    for _ in 0..2 {
        dev.run(&["logs", "hello"]).exited(0).printed("an-argument");
    }
    assert_eq!(dev.request_without_token("GET /api/v1/tasks", b"").status, 401);
    let node = find_node(&state);
    // Heads are exchanged with the Heartbeats.
    let deadline = std::time::Instant::now() + kit::TIMEOUT;
    while heads(&records(&state.join("audit"))) == 0 || heads(&records(&node.join("audit"))) == 0 {
        assert!(std::time::Instant::now() < deadline, "no heads: {:?}", records(&node.join("audit")));
        std::thread::yield_now();
    }
    fs::write(folder.path().join("heads.json"), heads_in_history(&dev, deadline)).unwrap();
    dev.interrupt();
    dev.wait();

    let of_operator = records(&state.join("audit"));
    let kinds: Vec<&str> = of_operator.iter().map(Record::kind).collect();
    let ordered: Vec<&str> = kinds
        .iter()
        .copied()
        .filter(|kind| !["HeadSeen", "OutputRead", "AccessDenied"].contains(kind))
        .collect();
    assert_eq!(ordered, ["Began", "RunBegan", "Dispatched", "AttemptEnded", "RunEnded"], "{of_operator:#?}");
    let Record::RunBegan(began) = of_operator.iter().find(|r| r.kind() == "RunBegan").unwrap() else {
        panic!()
    };
    let argv = Some(sentinel_audit::request::Command::Argv(vec!["echo".into(), "an-argument".into()]));
    assert_eq!((began.request.as_ref().map(|request| request.program.clone()), began.targets), (argv, 1));
    let denied = |record: &&Record| matches!(record, Record::AccessDenied { status: 401, .. });
    assert_eq!(of_operator.iter().filter(denied).count(), 1, "{kinds:?}");
    let mut read: Vec<String> = of_operator
        .iter()
        .filter_map(|record| match record {
            Record::OutputRead(access) => Some(access.path.to_string()),
            _ => None,
        })
        .collect();
    assert!(
        !read.is_empty() && read.iter().all(|path| path.contains("/runs/") || path.contains("/executions/")),
        "{read:?}"
    );
    let all = read.len();
    read.sort();
    read.dedup();
    assert_eq!(read.len(), all, "a reading that is repeated within a minute is recorded once");

    let of_node: Vec<&str> = records(&node.join("audit")).iter().map(Record::kind).collect();
    let ordered: Vec<&str> =
        of_node.into_iter().filter(|kind| ["Accepted", "Ended"].contains(kind)).collect();
    assert_eq!(ordered, ["Accepted", "Ended"]);

    fit_together(folder.path(), &state.join("audit"), &node.join("audit"));
}

/// Together they prove that none was cut off.
fn fit_together(folder: &Path, operator: &Path, node: &Path) {
    for (name, directory) in [("operator.jsonl", operator), ("node.jsonl", node)] {
        let mut export = fs::File::create(folder.join(name)).unwrap();
        std::io::copy(&mut Export::open(directory).unwrap(), &mut export).unwrap();
    }
    let (code, out, _) = sentinel(folder, &["operator.jsonl", "node.jsonl"], b"");
    assert_eq!((code, out.matches("end: it still has record").count()), (0, 2), "{out}");
    let (code, out, _) = sentinel(folder, &["--heads", "heads.json", "node.jsonl"], b"");
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("end: it still has record") && out.contains("as History has it ("), "{out}");
    // History alone shows that the end of a chain is gone.
    let first =
        fs::read_to_string(folder.join("node.jsonl")).unwrap().lines().next().unwrap().to_owned() + "\n";
    let (code, out, _) = sentinel(folder, &["-", "--heads", "heads.json"], first.as_bytes());
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("FAILED: its end was cut off: it ends before record")
            && out.contains("as History has it ("),
        "{out}"
    );
}

#[test]
fn a_chain_that_was_written_anew_is_found_by_a_head_in_history_from_before() {
    let folder = tempfile::tempdir().unwrap();
    let (_, before) = export("node", &[began("n-1"), began("n-1")]);
    let (rewritten, after) = export("node", &[began("n-1"), began("n-2"), began("n-1")]);
    fs::write(folder.path().join("node.jsonl"), rewritten.concat()).unwrap();
    let write = |name: &str, heads: &[&AuditHead]| {
        let items: Vec<_> = heads.iter().map(|head| item("n-1", head)).collect();
        fs::write(folder.path().join(name), serde_json::json!({"items": items}).to_string()).unwrap();
    };
    write("after.json", &[&after]);
    write("both.json", &[&before, &after]);
    let (code, out, _) = sentinel(folder.path(), &["node.jsonl", "--heads", "after.json"], b"");
    assert_eq!(code, 0, "{out}");
    let (code, out, _) = sentinel(folder.path(), &["node.jsonl", "--heads", "both.json"], b"");
    assert_eq!(code, 1, "{out}");
    let expected =
        "FAILED: it was replaced: it has another record 2 as History has it (2026-11-30T08:15:00Z)";
    assert!(out.contains(expected), "{out}");
    // Of a chain that is not here, it is known whose it is and how far it went.
    let (other, _) = export("other", &[began("n-2")]);
    let args = ["-", "--heads", "both.json", "--of", "n-2", "--allow-unanchored"];
    let (code, out, _) = sentinel(folder.path(), &args[..5], &other.concat());
    assert!(code == 3 && out.contains("\nUNANCHORED: every record fits"), "{out}");
    let (code, out, _) = sentinel(folder.path(), &args, &other.concat());
    assert_eq!(code, 0, "{out}");
    assert!(
        out.contains("  chain node of n-1: record 3 as History has it (2026-11-30T08:15:00Z)\n"),
        "{out}"
    );

    fs::write(folder.path().join("bad.json"), r#"{"items":[{"of":"n","chain":"a/b","seq":1,"hash":"x"}]}"#)
        .unwrap();
    for (file, expected) in [
        ("bad.json", "item 1 is not a head"),
        ("node.jsonl", "failed to read heads"),
        ("none", "No such file"),
    ] {
        let (code, _, err) = sentinel(folder.path(), &["node.jsonl", "--heads", file], b"");
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(expected) && err.contains("sentinel audit heads -o json"), "{err}");
    }
}

#[test]
fn a_chain_in_the_place_of_another_and_one_without_its_beginning_are_failures() {
    let folder = tempfile::tempdir().unwrap();
    let (node, head) = export("node", &[began("n-1"), began("n-1"), began("n-1")]);
    let (forged, _) = export("forged", &[began("n-1."), began("n-1.")]);
    fs::write(folder.path().join("forged.jsonl"), forged.concat()).unwrap();
    fs::write(folder.path().join("late.jsonl"), node[1..].concat()).unwrap();
    let heads = serde_json::json!({"items": [item("n-1", &head)]}).to_string();
    fs::write(folder.path().join("heads.json"), heads).unwrap();

    let heads = ["--heads", "heads.json"];
    let verify = |args: &[&str]| sentinel(folder.path(), &[&heads[..], args].concat(), b"");
    for args in [&["forged.jsonl"][..], &["forged.jsonl", "--of", "n-1", "--allow-unanchored"]] {
        let (code, out, _) = verify(args);
        assert_eq!(code, 1, "{out}");
        assert!(out.contains("chain node of n-1: FAILED: it is in no file. It had record 3"), "{out}");
    }
    let (code, out, _) = verify(&["late.jsonl"]);
    assert!(code == 1 && out.ends_with("FAILED: missing is 1 record before the first of 1 chain\n"), "{out}");
    let (code, out, _) = verify(&["late.jsonl", "--allow-retention"]);
    assert!(code == 0 && out.contains("OK: every record fits; missing is 1 record"), "{out}");
}

#[test]
fn a_directory_is_verified_as_the_export_of_its_files_which_begin_where_their_names_state() {
    let folder = tempfile::tempdir().unwrap();
    let (lines, _) = export("operator", &[began("a"), began("a"), began("a"), began("a")]);
    let audit = folder.path().join("audit");
    fs::create_dir(&audit).unwrap();
    let write = |first: usize, lines: &[Vec<u8>]| {
        fs::write(audit.join(format!("{first:020}.jsonl")), lines.concat()).unwrap();
    };
    write(1, &lines[..2]);
    write(3, &lines[2..]);
    let (code, out, _) = sentinel(folder.path(), &["audit"], b"");
    assert!(code == 0 && out.contains("    4 records, 1 to 4;"), "{out}");
    write(1, &lines[1..2]);
    let file = format!("audit/{:020}.jsonl", 1);
    for args in [["audit", "--allow-retention"], [&file, "--allow-retention"]] {
        let (code, out, _) = sentinel(folder.path(), &args, b"");
        assert_eq!(code, 1, "{out}");
        assert!(out.contains("line 1 (record 2) does not fit: record 1 is missing before it"), "{out}");
    }
    fs::remove_file(folder.path().join(file)).unwrap();
    assert_eq!(sentinel(folder.path(), &["audit"], b"").0, 1);
    assert_eq!(sentinel(folder.path(), &["audit", "--allow-retention"], b"").0, 0);
}

/// The state directory of the only node.
fn find_node(state: &Path) -> std::path::PathBuf {
    let mut folders = vec![state.to_owned()];
    while let Some(folder) = folders.pop() {
        if folder.join("attempts").is_dir() {
            return folder;
        }
        let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        folders.extend(entries.filter(|path| path.is_dir()));
    }
    panic!("no node has a state directory below {}", state.display());
}

#[test]
fn an_invalid_command_line_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, err) = sentinel(folder.path(), &[], b"");
    assert_eq!(code, 2);
    assert!(err.contains("FILE"), "{err}");
    let (code, _, err) = sentinel(folder.path(), &["-", "-"], b"");
    assert_eq!(code, 2);
    assert!(err.contains("standard input can be read only once"), "{err}");
}
