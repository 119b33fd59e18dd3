//! A chain states nothing about itself that counts: what was written anew, or cut at its beginning, is found by what others have.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{self, Cursor};

use sentinel_audit::anchors::{Anchor, Recorder};
use sentinel_audit::line::{decode, encode};
use sentinel_audit::report::{Opened, Report, Source, Terms, Verdict};
use sentinel_audit::{AuditHead, Chain, Record};
use sentinel_protocol::ids::ChainId;
use sentinel_protocol::time::UnixMillis;

type Lines = Vec<Vec<u8>>;

fn began(program: &str, on: &str) -> Record {
    Record::Began { program: program.into(), version: "1".into(), on: on.into(), torn: None }
}

fn gap(lost: u64) -> Record {
    Record::Gap { lost, why: "no space".into() }
}

fn seen(of: &str, chain: &[Vec<u8>]) -> Record {
    Record::HeadSeen { of: of.into(), head: head(chain) }
}

/// A chain that begins with its record 1.
fn chain(id: &str, records: &[Record]) -> Lines {
    let mut chain = Chain::new(ChainId::new(id).unwrap());
    let written = records.iter().map(|record| {
        let next = chain.next(UnixMillis(1_700_000_000_000), record).unwrap();
        chain.advance(&next);
        next.line
    });
    written.collect()
}

/// One that begins with this record, after one with an invented hash.
fn late_chain(id: &str, first: u64, records: &[Record]) -> Lines {
    let id = ChainId::new(id).unwrap();
    let mut prev = "ab".repeat(32);
    let written = (first..).zip(records).map(|(seq, record)| {
        let (line, hash) = encode(&id, seq, UnixMillis(1_700_000_000_000), &prev, record).unwrap();
        hash.as_str().clone_into(&mut prev);
        line
    });
    written.collect()
}

fn head(chain: &[Vec<u8>]) -> AuditHead {
    decode(chain.last().unwrap().strip_suffix(b"\n").unwrap()).unwrap().head()
}

/// A head in History.
fn kept(of: &str, chain: &[Vec<u8>]) -> Anchor {
    Anchor { head: head(chain), of: of.into(), recorded_by: Recorder::History, time: "2026-11-30".into() }
}

fn verified(exports: &[&[Vec<u8>]], heads: Option<&[Anchor]>, terms: Terms) -> (Verdict, String) {
    let source = |export: &&[Vec<u8>]| named(export.concat(), None);
    let sources: Vec<Source<'_>> = exports.iter().map(source).collect();
    let report = Report::of(&sources, heads.map(<[_]>::to_vec), terms);
    (report.verdict(), report.to_string())
}

fn named(lines: Vec<u8>, begins: Option<u64>) -> Source<'static> {
    let open = move || Ok(Opened { records: Box::new(Cursor::new(lines.clone())), begins });
    Source { name: "an export".into(), open: Box::new(open) }
}

fn of(parties: &[&str]) -> Terms {
    Terms { of: parties.iter().map(|party| (*party).to_owned()).collect(), ..Terms::default() }
}

fn allowing(parties: &[&str]) -> Terms {
    Terms { allow_unanchored: true, allow_retention: true, ..of(parties) }
}

/// Chains of an operator and two nodes, and what History has of them.
struct Fleet {
    operator: Lines,
    node: Lines,
    other: Lines,
    heads: Vec<Anchor>,
}

fn fleet() -> Fleet {
    let first = chain("operator-chain", &[began("operator", "op-1")]);
    let of_node = |on: &str| vec![began("node-agent", on), seen("operator", &first), gap(1), gap(2)];
    let (node, other) = (chain("chain-of-n-1", &of_node("n-1")), chain("chain-of-n-2", &of_node("n-2")));
    let records = [began("operator", "op-1"), seen("n-1", &node[..3]), seen("n-2", &other[..3]), gap(7)];
    let operator = chain("operator-chain", &records);
    let heads = vec![
        kept("operator", &operator[..2]),
        kept("operator", &operator),
        kept("n-1", &node[..1]),
        kept("n-1", &node[..3]),
        kept("n-2", &other[..3]),
    ];
    Fleet { operator, node, other, heads }
}

#[test]
fn what_is_whole_fits_alone_together_and_with_the_heads_in_history() {
    let Fleet { operator, node, other, heads } = fleet();
    let sets: [&[&[Vec<u8>]]; 6] = [
        &[&operator],
        &[&node],
        &[&operator, &node],
        &[&node, &other],
        &[&operator, &other, &node],
        &[&other],
    ];
    for exports in sets {
        for heads in [None, Some(&*heads)] {
            let (verdict, text) = verified(exports, heads, Terms::default());
            assert_eq!(verdict, Verdict::Fits, "{text}");
        }
    }
    let (_, text) = verified(&[&node], None, Terms::default());
    let honest =
        "OK: every record fits; alone, this shows that nothing in it was changed, and not that it is whole\n";
    assert!(text.ends_with(honest), "{text}");
    let (_, text) = verified(&[&node], Some(&heads), Terms::default());
    assert!(text.ends_with("\nOK: every record fits\n"), "{text}");
}

/// The id, the first record and what it claims to be of are the forger's choice.
#[test]
fn a_chain_that_was_written_anew_under_another_id_is_a_failure() {
    let Fleet { operator, node, heads, .. } = fleet();
    let tail = [seen("operator", &operator[..1]), gap(9)];
    let with = |first: Record| [vec![first], tail.to_vec()].concat();
    let of_operator = [began("operator", "op-1"), seen("n-1", &node[..3]), gap(9)];
    let claims_a_node = [began("node-agent", "n-7"), seen("n-1", &node[..3]), gap(9)];
    let forgeries: [(Lines, &str, &Lines); 7] = [
        (late_chain("forged", 500, &tail), "chain-of-n-1", &operator),
        (chain("forged", &with(began("node-agent", "n-1"))), "chain-of-n-1", &operator),
        (chain("forged", &with(began("node-agent", "n-1."))), "chain-of-n-1", &operator),
        (chain("forged", &with(began("operator", "n-1"))), "chain-of-n-1", &operator),
        (chain("forged", &of_operator), "operator-chain", &node),
        (chain("forged", &claims_a_node), "operator-chain", &node),
        (late_chain("forged", 500, &of_operator[1..]), "operator-chain", &node),
    ];
    for (forged, lost, honest) in &forgeries {
        let party = if *lost == "operator-chain" { "operator" } else { "n-1" };
        let found = format!("chain {lost} of {party}: FAILED: it is in no file");
        for terms in [Terms::default(), allowing(&[]), allowing(&[party]), allowing(&[lost])] {
            for heads in [None, Some(&*heads)] {
                let (verdict, text) = verified(&[forged, honest], heads, terms.clone());
                assert!(verdict == Verdict::Failed && text.contains(&found), "{terms:?}\n{text}");
            }
            let (verdict, text) = verified(&[forged], Some(&heads), terms.clone());
            assert!(verdict == Verdict::Failed && text.contains(&found), "{terms:?}\n{text}");
        }
        // Also when the files are stated to be of another one.
        let (verdict, text) = verified(&[forged], Some(&heads), of(&["forged"]));
        assert!(
            verdict != Verdict::Fits && text.contains("UNANCHORED: nothing proves that it is whole"),
            "{text}"
        );
    }
}

#[test]
fn a_chain_that_nothing_proves_is_unanchored_unless_that_is_allowed() {
    let Fleet { operator, node, heads, .. } = fleet();
    let young = chain("young", &[began("node-agent", "n-9"), gap(1)]);
    let verdict = |terms| verified(&[&young], Some(&heads), terms).0;
    assert_eq!(verdict(Terms::default()), Verdict::Failed, "it may be in the place of each absent one");
    assert_eq!(verdict(of(&["n-9"])), Verdict::Unanchored);
    assert_eq!(verdict(allowing(&["n-9"])), Verdict::Fits);
    assert_eq!(verified(&[&young], Some(&[]), Terms::default()).0, Verdict::Unanchored, "no head at all");
    let (verdict, text) = verified(&[&young, &node], Some(&[kept("n-1", &node)]), of(&["n-1"]));
    assert!(verdict == Verdict::Unanchored && text.contains("nothing proves that 1 chain"), "{text}");
    // A name that was mistyped states nothing.
    let (verdict, text) = verified(&[&operator], Some(&heads), of(&["operatr"]));
    assert!(verdict == Verdict::Unanchored && text.contains("no head of operatr is recorded here"), "{text}");
}

#[test]
fn only_a_chain_that_is_proven_vouches_for_another_and_a_node_for_no_node() {
    let fake = chain("fake", &[began("node-agent", "n-5"), gap(3)]);
    let terms = of(&["fake", "n-1", "operator"]);
    let vouching = |voucher: &Lines, heads: &[Anchor]| {
        let heads: Vec<_> = heads.iter().chain(&[kept("n-2", &chain("x", &[gap(1)]))]).cloned().collect();
        verified(&[voucher, &fake], Some(&heads), terms.clone())
    };
    let operator = chain("op", &[began("operator", "op-1"), seen("n-5", &fake)]);
    let (verdict, text) = vouching(&operator, &[kept("operator", &operator)]);
    assert!(text.contains("end: it still has record 2 as chain op recorded it"), "{text}");
    // Nothing is known of n-1 here, which it is allowed to be of.
    assert!(verdict == Verdict::Unanchored && !text.contains("nothing proves"), "{text}");
    for (voucher, heads, unproven) in [
        (&operator, vec![], 2),
        (&chain("n", &[began("node-agent", "n-1"), seen("n-5", &fake)]), vec!["n-1"], 1),
        (&chain("n", &[began("operator", "n-1"), seen("n-5", &fake)]), vec!["n-1"], 1),
    ] {
        let heads: Vec<_> = heads.into_iter().map(|of| kept(of, voucher)).collect();
        let (_, text) = vouching(voucher, &heads);
        assert_eq!(text.matches("UNANCHORED: nothing proves").count(), unproven, "{text}");
    }
    // A node in the wrong hands can have the head of what it writes anew recorded, and not make its earlier chain unrecorded.
    let Fleet { node, .. } = fleet();
    let heads = [kept("n-1", &node), kept("n-1", &fake)];
    let (verdict, text) = verified(&[&fake], Some(&heads), Terms::default());
    assert!(verdict == Verdict::Failed && text.contains("chain chain-of-n-1 of n-1: FAILED"), "{text}");
    assert!(text.contains("it is recorded as the chain of n-1, and claims to be of another"), "{text}");
}

#[test]
fn each_replica_of_an_operator_has_a_chain_and_one_can_be_meant_alone() {
    let Fleet { operator, mut heads, .. } = fleet();
    let second = chain("second", &[began("operator", "op-2"), gap(1)]);
    heads.push(kept("operator", &second));
    for terms in [Terms::default(), of(&["operator"]), of(&["second"])] {
        let (verdict, text) = verified(&[&operator], Some(&heads), terms);
        assert!(verdict == Verdict::Failed && text.contains("chain second of operator: FAILED"), "{text}");
    }
    assert_eq!(verified(&[&operator, &second], Some(&heads), Terms::default()).0, Verdict::Fits);
    assert_eq!(verified(&[&operator], Some(&heads), of(&["operator-chain"])).0, Verdict::Fits);
}

#[test]
fn records_that_are_removed_from_the_beginning_are_counted_and_a_failure_unless_retention_may_have() {
    let Fleet { operator, node, heads, .. } = fleet();
    for heads in [None, Some(&*heads)] {
        for exports in [&[&node[2..]][..], &[&node[2..], &operator]] {
            let (verdict, text) = verified(exports, heads, Terms::default());
            assert_eq!(verdict, Verdict::Failed, "{text}");
            assert!(text.contains("FAILED: 2 records before its first here are missing"), "{text}");
            assert!(text.ends_with("FAILED: missing are 2 records before the first of 1 chain\n"), "{text}");
            let terms = Terms { allow_retention: true, ..Terms::default() };
            let (verdict, text) = verified(exports, heads, terms);
            assert_eq!(verdict, Verdict::Fits, "{text}");
            assert!(text.contains("OK: every record fits; missing are 2 records before the first of 1 chain, as --allow-retention allows"), "{text}");
        }
    }
    // All that is recorded is of before its first record: its hash is known to others, and nothing proves the rest.
    let terms = Terms { allow_retention: true, ..of(&["n-1"]) };
    let (verdict, text) = verified(&[&node[3..]], Some(&heads), terms.clone());
    assert_eq!(verdict, Verdict::Unanchored, "{text}");
    assert!(text.contains("end: it continues record 3 as History has it"), "{text}");
    let (verdict, text) = verified(&[&late_chain("chain-of-n-1", 500, &[gap(1)])], Some(&heads), terms);
    assert!(verdict == Verdict::Unanchored && text.contains("end: record 3 as History has it"), "{text}");
}

#[test]
fn a_file_that_is_named_after_a_record_begins_with_it() {
    let Fleet { node, .. } = fleet();
    let terms = Terms { allow_retention: true, ..Terms::default() };
    let report = |from: usize, begins| {
        let report = Report::of(&[named(node[from..].concat(), Some(begins))], None, terms.clone());
        (report.verdict(), report.to_string())
    };
    assert_eq!((report(0, 1).0, report(2, 3).0), (Verdict::Fits, Verdict::Fits));
    let (verdict, text) = report(2, 1);
    assert_eq!(verdict, Verdict::Failed);
    assert!(text.contains("line 1 (record 3) does not fit: records 1 to 2 are missing before it"), "{text}");
    for begins in [0, 2] {
        let (verdict, text) = report(0, begins);
        assert_eq!(verdict, Verdict::Failed);
        assert!(text.contains(&format!("the file is named after record {begins}")), "{text}");
    }
}

#[test]
fn a_file_that_cannot_be_opened_or_read_is_named_with_the_cause_and_no_line() {
    struct Broken;
    impl io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("a broken disk"))
        }
    }
    let closed = || Err(io::Error::new(io::ErrorKind::NotFound, "no such file"));
    let broken = || Ok(Opened { records: Box::new(io::BufReader::new(Broken)), begins: None });
    let sources = [
        Source { name: "closed".into(), open: Box::new(closed) },
        Source { name: "broken".into(), open: Box::new(broken) },
    ];
    let text = Report::of(&sources, None, Terms::default()).to_string();
    assert_eq!(
        text,
        "closed: FAILED to open it: no such file\nbroken: FAILED to read it: a broken disk\nFAILED\n"
    );
}

/// Records 1 to 8 of a chain of a node, and the same chain with those from record 5 on written anew.
fn forked() -> (Lines, Lines) {
    let records = |lost: u64| -> Vec<Record> {
        let first = [began("node-agent", "n-1"), gap(1), gap(2), gap(3)];
        first.into_iter().chain((1..=4).map(|n| gap(lost + n))).collect()
    };
    (chain("chain-of-n-1", &records(10)), chain("chain-of-n-1", &records(20)))
}

/// The verdict on these exports, called `a`, `b` and so on.
fn together(exports: &[&[Vec<u8>]], terms: Terms) -> (Verdict, String) {
    let sources = ["a", "b", "c", "d"].iter().zip(exports);
    let sources = sources.map(|(name, lines)| Source { name: (*name).into(), ..named(lines.concat(), None) });
    let report = Report::of(&sources.collect::<Vec<_>>(), None, terms);
    (report.verdict(), report.to_string())
}

#[test]
fn two_exports_with_different_records_of_one_chain_are_a_failure_that_names_the_first() {
    let (honest, forged) = forked();
    let sets: [&[&[Vec<u8>]]; 6] = [
        &[&honest, &forged],
        &[&forged, &honest],
        &[&honest, &forged[..6]],
        &[&honest[..6], &forged],
        &[&forged[2..], &honest[3..]],
        &[&honest, &forged[..5]],
    ];
    for exports in sets {
        let terms = Terms { allow_retention: true, ..Terms::default() };
        let (verdict, text) = together(exports, terms);
        assert_eq!(verdict, Verdict::Failed, "{text}");
        let named =
            text.lines().find(|line| line.starts_with("chain chain-of-n-1: FAILED: from record 5 on, "));
        assert!(named.is_some_and(|line| line.contains("a and b") || line.contains("b and a")), "{text}");
    }
    // One that follows the other is compared by the hash that its first record names.
    let (verdict, text) = together(&[&honest[..6], &forged[6..]], Terms::default());
    assert!(
        verdict == Verdict::Failed && text.contains("FAILED: from record 6 on, b and a have different"),
        "{text}"
    );
    // Also where neither has the records that lead to the newest export.
    let terms = Terms { allow_retention: true, ..Terms::default() };
    for apart in [[&honest[..6], &forged[..5]], [&honest[..5], &forged[..6]]] {
        let (verdict, text) = together(&[&honest[7..], apart[0], apart[1]], terms.clone());
        assert!(verdict == Verdict::Failed && text.contains("FAILED: from record 5 on, "), "{text}");
    }
    let (verdict, text) = together(&[&honest[7..], &honest[..6], &honest[..4]], terms);
    assert_eq!(verdict, Verdict::Fits, "{text}");
    // One stream has a chain once.
    let (verdict, text) = together(&[&[honest.clone(), forged.clone()].concat()], Terms::default());
    assert!(verdict == Verdict::Failed && text.contains("record 1 was already read"), "{text}");
    let operator = chain("operator-chain", &[began("operator", "op-1")]);
    let (verdict, text) = together(&[&[honest, operator, forged].concat()], Terms::default());
    assert!(verdict == Verdict::Failed && text.contains("a: FAILED: line 10 (record 1)"), "{text}");
}

#[test]
fn an_older_export_of_a_chain_counts_as_a_part_of_the_newer() {
    let (lines, _) = forked();
    let alone = "alone, this shows that nothing in it was changed, and not that it is whole\n";
    let (verdict, text) = together(&[&lines[..5], &lines], Terms::default());
    assert!(verdict == Verdict::Fits && text.ends_with(alone), "{text}");
    assert!(text.contains("    its records are those of b, which has the chain up to record 8\n"), "{text}");
    assert_eq!(text.matches("a cut end would not be found").count(), 1, "{text}");
    let (verdict, text) = together(&[&lines, &lines], Terms::default());
    assert!(verdict == Verdict::Fits && text.ends_with(alone), "{text}");
    assert!(text.contains("    its records are those of a, which has the same end\n"), "{text}");
    // Heads of records that only the newer one has are not held against the older.
    let operator = chain("operator-chain", &[began("operator", "op-1"), seen("n-1", &lines[..7])]);
    let (verdict, text) = together(&[&lines[..5], &lines, &operator], Terms::default());
    assert_eq!(verdict, Verdict::Fits, "{text}");
    let (verdict, text) = together(&[&lines[..5], &lines[..6], &operator], Terms::default());
    assert!(
        verdict == Verdict::Failed && text.contains("its end was cut off: it ends before record 7"),
        "{text}"
    );
}

#[test]
fn exports_that_continue_each_other_count_as_one_chain() {
    let (lines, _) = forked();
    for exports in [
        &[&lines[..3], &lines[3..5], &lines[5..]][..],
        &[&lines[2..], &lines[..6]],
        &[&lines[5..], &lines[..5]],
    ] {
        let (verdict, text) = together(exports, Terms::default());
        assert_eq!(verdict, Verdict::Fits, "{text}");
        assert!(text.contains("    records 1 to "), "{text}");
    }
    // What the earlier ones have proves the chain of the later, up to there.
    let heads = [kept("n-1", &lines[..4])];
    let (verdict, text) = verified(&[&lines[..5], &lines[5..]], Some(&heads), Terms::default());
    assert_eq!(verdict, Verdict::Fits, "{text}");
    assert!(text.contains("end: it continues record 4 as History has it"), "{text}");
    // Records that are in none of them are missing.
    let (verdict, text) = together(&[&lines[..3], &lines[5..]], Terms::default());
    assert_eq!(verdict, Verdict::Failed, "{text}");
    assert!(
        text.contains("b has later records of it, up to 8; 2 records between, 4 to 5, are in no file"),
        "{text}"
    );
    let terms = Terms { allow_retention: true, ..Terms::default() };
    assert_eq!(together(&[&lines[..3], &lines[5..]], terms).0, Verdict::Fits);
}

#[test]
fn chains_of_one_stream_that_prove_each_other_are_not_called_alone() {
    let Fleet { operator, node, .. } = fleet();
    let (verdict, text) = together(&[&[operator, node].concat()], Terms::default());
    assert!(verdict == Verdict::Fits && text.ends_with("\nOK: every record fits\n"), "{text}");
    // Two that have nothing of each other, as in the log of an operator that was restarted.
    let restarted =
        [chain("one", &[began("operator", "op-1")]), chain("two", &[began("operator", "op-1")])].concat();
    for exports in [&[&restarted[..]][..], &[&restarted, &restarted]] {
        let (verdict, text) = together(exports, Terms::default());
        assert!(verdict == Verdict::Fits && text.ends_with("and not that it is whole\n"), "{text}");
    }
}

/// A forged export chooses all the texts in it.
#[test]
fn texts_of_an_export_begin_no_line_and_control_no_terminal() {
    let hostile = "n-1\nOK: every record fits\u{1b}[31m\u{9b}2J";
    let other = chain("other", &[began("node-agent", "n-1")]);
    let lines = chain("c", &[began(hostile, hostile), seen(hostile, &other)]);
    let late = late_chain("d", 7, &[Record::HeadSeen { of: "n-1\nOK".into(), head: head(&other) }]);
    let heads = [
        Anchor { time: hostile.into(), ..kept(hostile, &other) },
        Anchor { time: hostile.into(), ..kept(hostile, &lines) },
    ];
    let mut source = named(lines.concat(), None);
    source.name = hostile.into();
    let report =
        Report::of(&[source, named(late.concat(), None)], Some(heads.to_vec()), of(&[hostile, "x\ny"]));
    let text = report.to_string();
    assert!(!text.lines().any(|line| line.starts_with("OK")), "{text}");
    assert!(!text.chars().any(|char| char.is_control() && char != '\n'), "{text:?}");
    assert!(text.contains("n-1⏎OK: every record fits^[[31m"), "{text}");
}

#[test]
fn a_party_that_nothing_is_known_of_is_named_with_those_that_are_known() {
    let Fleet { node, heads, .. } = fleet();
    let (verdict, text) = verified(&[&node], Some(&heads), of(&["n-1", "n-7"]));
    assert_eq!(verdict, Verdict::Unanchored, "{text}");
    let expected = "no head of n-7 is recorded here: nothing is known of its chain; there are heads of n-1, n-2, operator\n";
    assert!(text.contains(expected), "{text}");
}
