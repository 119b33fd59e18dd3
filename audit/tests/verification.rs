//! What is changed in an export is found, wherever and however.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use proptest::prelude::*;
use sentinel_audit::anchors::{Anchor, Anchors, Comparison, MAX_HEADS, Recorder, Standing};
use sentinel_audit::line::{LineError, MAX_LINE, sha256};
use sentinel_audit::record::Requested;
use sentinel_audit::request::Request;
use sentinel_audit::verify::{Summary, VerifyError, Why, verify};
use sentinel_audit::{AuditHead, Chain, Record};
use sentinel_protocol::ids::{ChainId, Epoch, SpecHash, TaskRef};
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::request::{EnvVar, Environment, Program, RootFilesystem, RunRequest};
use sentinel_protocol::time::UnixMillis;

fn began() -> Record {
    Record::Began { program: "node-agent".into(), version: "1.2.3".into(), on: "n-1".into(), torn: None }
}

fn requested() -> Requested {
    let request = RunRequest {
        env: vec![EnvVar { name: "PASSWORD".into(), value: "hunter2-the-value".into(), value_from: None }],
        user: Some("root".into()),
        stdin: "secret-on-stdin".into(),
        environment: Environment::Host,
        root_filesystem: RootFilesystem::ReadOnly,
        ..RunRequest::new(Program::Command(vec!["rm".into(), "-rf".into(), "/tmp/a b".into()]))
    };
    Requested {
        attempt: "u/1/n-1/1".parse().unwrap(),
        task: TaskRef::new("ops", "t").unwrap(),
        spec_hash: SpecHash::new("a".repeat(64)).unwrap(),
        epoch: Epoch::from(3),
        requested_by: None,
        allowed_by: Some("disk-report".into()),
        signed_by: None,
        request: Request::from(&request),
        from_journal: false,
    }
}

fn records() -> Vec<Record> {
    vec![
        began(),
        Record::Accepted(Box::new(requested())),
        Record::Started { attempt: "u/1/n-1/1".parse().unwrap(), pid: 7, started_at: UnixMillis(5) },
        Record::Refused {
            attempt: "u/1/n-1/2".parse().unwrap(),
            refusal: Refusal::Policy { rule: "no-root".into(), why: None },
            requested: Some(Box::new(requested())),
        },
        Record::Gap { lost: 2, why: "no space".into() },
        began(),
    ]
}

/// The lines of a chain with these records.
fn lines(id: &str, records: &[Record]) -> Vec<Vec<u8>> {
    let mut chain = Chain::new(ChainId::new(id).unwrap());
    let written = records.iter().enumerate().map(|(n, record)| {
        let next = chain.next(UnixMillis(1_700_000_000_000 + n as i64), record).unwrap();
        chain.advance(&next);
        next.line
    });
    written.collect()
}

fn check(export: &[u8]) -> Result<Vec<Summary>, VerifyError> {
    verify(export, |_, _| {})
}

/// The line, the record and the reason of the first misfit.
fn misfit(export: &[u8]) -> (u64, Option<u64>, Why) {
    match check(export) {
        Err(VerifyError::Misfit(misfit)) => (misfit.line, misfit.seq, misfit.why),
        other => panic!("no misfit: {other:?}"),
    }
}

#[test]
fn a_whole_chain_is_summed_up() {
    let chains = check(&lines("c", &records()).concat()).unwrap();
    let [chain] = chains.as_slice() else { panic!("{chains:?}") };
    assert_eq!((chain.first, chain.records(), chain.lost, chain.set_back), (1, 6, 2, 0));
    assert_eq!(chain.writer.as_deref(), Some("node-agent on n-1"));
    assert_eq!(chain.times.0, "2023-11-14T22:13:20.000Z");
}

#[test]
fn a_command_is_recorded_exactly_and_nothing_that_is_secret() {
    let text = String::from_utf8(lines("c", &records()).concat()).unwrap();
    assert!(text.contains(r#"{"argv":["rm","-rf","/tmp/a b"]}"#), "{text}");
    assert!(text.contains(r#""env":["PASSWORD"]"#), "{text}");
    for secret in ["hunter2-the-value", "secret-on-stdin"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(text.contains(sha256(b"secret-on-stdin").as_str()), "{text}");
}

#[test]
fn records_are_read_as_they_were_written() {
    let mut read = Vec::new();
    let export = lines("c", &records()).concat();
    verify(export.as_slice(), |_, line| read.push(line.record.clone().unwrap())).unwrap();
    assert_eq!(read, records());
}

#[test]
fn what_is_missing_moved_or_repeated_is_named() {
    let all = lines("c", &records());
    let of = |order: &[usize]| order.iter().flat_map(|&n| all[n].clone()).collect::<Vec<u8>>();
    assert_eq!(misfit(&of(&[0, 1, 4, 5])), (3, Some(5), Why::Missing { from: 3, to: 4 }));
    assert_eq!(misfit(&of(&[0, 2, 1, 3])), (2, Some(3), Why::Reordered { expected: 2, found_at: 3 }));
    assert_eq!(misfit(&of(&[0, 1, 1, 2])), (3, Some(2), Why::Repeated { seq: 2, expected: 3 }));
    let repeated_tail = [0, 1, 2, 3, 4, 5, 3, 4, 5];
    assert_eq!(misfit(&of(&repeated_tail)), (7, Some(4), Why::Repeated { seq: 4, expected: 7 }));
    // The oldest records may have been removed by retention: the hash that the first line names is what is trusted.
    let chains = check(&of(&[2, 3, 4])).unwrap();
    assert_eq!((chains[0].first, chains[0].records()), (3, 3));
}

#[test]
fn a_record_that_was_replaced_with_its_hash_is_found_by_the_next() {
    let mut all = lines("c", &records());
    let mut others = records();
    others[2] = Record::Started { attempt: "u/1/n-1/1".parse().unwrap(), pid: 8, started_at: UnixMillis(5) };
    all[2] = lines("c", &others)[2].clone();
    let (line, seq, why) = misfit(&all.concat());
    assert_eq!((line, seq), (4, Some(4)));
    assert!(matches!(why, Why::Predecessor { .. }), "{why}");
}

#[test]
fn chains_follow_each_other_and_are_not_mixed() {
    let (one, two) = (lines("one", &records()), lines("two", &records()));
    let chains = check(&[one.concat(), two.concat()].concat()).unwrap();
    assert_eq!(chains.iter().map(Summary::records).collect::<Vec<_>>(), [6, 6]);
    let foreign = |expected: &str, found: &str| Why::Foreign {
        expected: ChainId::new(expected).unwrap(),
        found: ChainId::new(found).unwrap(),
    };
    let inserted = [one[0].clone(), two[1].clone(), one[1].clone()].concat();
    assert_eq!(misfit(&inserted), (2, Some(2), foreign("one", "two")));
    let interleaved = [one[0].clone(), two[0].clone(), one[1].clone()].concat();
    assert_eq!(misfit(&interleaved), (3, Some(2), foreign("two", "one")));
    let again = [one[0].clone(), two[0].clone(), one[0].clone()].concat();
    assert_eq!(misfit(&again), (3, Some(1), foreign("two", "one")));
    let headless = Chain::new(ChainId::new("c").unwrap()).next(UnixMillis(0), &records()[4]).unwrap().line;
    assert_eq!(misfit(&headless).2, Why::Beginning { chain: ChainId::new("c").unwrap() });
}

#[test]
fn what_is_not_an_export_is_refused_with_its_line() {
    let first = lines("c", &records())[0].clone();
    let with = |line: &[u8]| misfit(&[&first, line].concat());
    assert_eq!(misfit(b"").2, Why::Empty);
    assert_eq!(with(b"hello\n"), (2, None, Why::Line(LineError::NoHash)));
    assert_eq!(with(b" \n"), (2, None, Why::Line(LineError::NoHash)));
    assert_eq!(with(&[0; 500]), (2, None, Why::Truncated));
    assert_eq!(with(&[&[0; 500][..], b"\n"].concat()), (2, None, Why::Line(LineError::NoHash)));
    assert_eq!(with(&first[..first.len() - 1]), (2, None, Why::Truncated));
    let huge = vec![b'x'; 3 * MAX_LINE];
    assert_eq!(with(&huge), (2, None, Why::Line(LineError::TooLong)));
    let seal = |content: &str| format!("{content},\"hash\":\"{}\"}}\n", sha256(content.as_bytes()));
    let later = String::from_utf8(first.clone()).unwrap().replacen("\"v\":1", "\"v\":9", 1);
    let later = seal(later.split(",\"hash\"").next().unwrap());
    assert_eq!(misfit(later.as_bytes()).2, Why::Line(LineError::Version(9)));
}

#[test]
fn line_ends_that_a_program_changed_are_named_as_that() {
    let all = lines("c", &records());
    for end in ["\n", "\n\n"] {
        assert!(check(&[&all.concat(), end.as_bytes()].concat()).is_ok());
    }
    assert_eq!(misfit(b"\n").2, Why::Empty);
    assert_eq!(misfit(&[&all[0][..], b"\n\n", &all[1]].concat()), (2, None, Why::EmptyLine));
    let text = String::from_utf8(all.concat()).unwrap();
    assert_eq!(misfit(text.replace('\n', "\r\n").as_bytes()), (1, None, Why::LineEnd));
    assert_eq!(misfit(format!("{}\r\n", text.trim_end()).as_bytes()), (6, None, Why::LineEnd));
    // One that was changed as well is a changed one.
    let changed = text.replacen("n-1", "n-2", 1).replace('\n', "\r\n");
    assert_eq!(misfit(changed.as_bytes()).2, Why::Line(LineError::NoHash));
}

#[test]
fn a_clock_that_was_set_back_breaks_no_chain_and_is_counted() {
    let mut chain = Chain::new(ChainId::new("c").unwrap());
    let mut export = Vec::new();
    for at in [9_000, 5_000, 6_000] {
        let next = chain.next(UnixMillis(at), &began()).unwrap();
        chain.advance(&next);
        export.extend(next.line);
    }
    assert_eq!(check(&export).unwrap()[0].set_back, 1);
}

/// The standing of each chain of an export, by the anchors of another.
fn standing(export: &[u8], anchoring: &[u8]) -> Standing {
    let mut anchors = Anchors::default();
    verify(anchoring, |_, line| anchors.take(line)).unwrap();
    let anchors = anchors.of(&ChainId::new("node").unwrap());
    let chain = check(export).unwrap().remove(0);
    let mut comparison = Comparison::of(&chain, anchors);
    verify(export, |_, line| comparison.take(line, anchors)).unwrap();
    comparison.outcome(&chain, anchors).unwrap().1
}

#[test]
fn a_cut_tail_is_found_by_the_head_that_another_chain_keeps() {
    let node = lines("node", &records());
    let head_of = |lines: &[Vec<u8>]| check(&lines.concat()).unwrap().remove(0).head;
    let seen = |head: AuditHead| Record::HeadSeen { of: "n-1".into(), head };
    let operator = |heads: &[AuditHead]| {
        let heads = heads.iter().cloned().map(seen);
        lines("operator", &[vec![began()], heads.collect()].concat()).concat()
    };
    // A lower head that is recorded later changes nothing.
    let anchoring = operator(&[head_of(&node[..4]), head_of(&node[..2])]);
    assert!(check(&node[..3].concat()).is_ok(), "without an anchor a cut tail is not found");
    assert_eq!(standing(&node[..3].concat(), &anchoring), Standing::Cut);
    assert_eq!(standing(&node[..4].concat(), &anchoring), Standing::Kept);
    assert_eq!(standing(&node.concat(), &anchoring), Standing::Kept);
    // The removal of the oldest records leaves the hash of the last one that was removed.
    assert_eq!(standing(&node[3..].concat(), &anchoring), Standing::Kept);
    assert_eq!(standing(&node[4..].concat(), &anchoring), Standing::Kept);
    assert_eq!(standing(&node[5..].concat(), &anchoring), Standing::Older);
    let mut others = records();
    others[1] = Record::Gap { lost: 1, why: "".into() };
    let rewritten = lines("node", &others);
    assert_eq!(standing(&rewritten.concat(), &anchoring), Standing::Replaced);
    assert_eq!(standing(&rewritten[4..].concat(), &anchoring), Standing::Replaced);
    // The highest head alone hid what one from before the change shows: the writer of the new chain has its head recorded too.
    let anchoring = operator(&[head_of(&node[..4]), head_of(&rewritten)]);
    assert_eq!(standing(&rewritten.concat(), &anchoring), Standing::Replaced);
    assert_eq!(standing(&rewritten[4..].concat(), &anchoring), Standing::Replaced);
    // The same number twice, with two hashes.
    let anchoring = operator(&[head_of(&node), head_of(&rewritten)]);
    assert_eq!(standing(&rewritten.concat(), &anchoring), Standing::Replaced);
}

#[test]
fn recorded_heads_are_bounded_and_the_highest_is_kept() {
    let mut anchors = Anchors::default();
    let id = ChainId::new("node").unwrap();
    let last = MAX_HEADS as u64 + 10;
    for seq in 1..=last {
        let head = AuditHead { chain: id.clone(), seq, hash: sha256(b"x") };
        let time = String::new();
        anchors.add(Anchor { head, of: "n-1".into(), recorded_by: Recorder::History, time });
    }
    let known = anchors.of(&id);
    assert!(known.len() <= MAX_HEADS / 2 + 20, "{}", known.len());
    assert_eq!(known.last().unwrap().head.seq, last);
    assert!(known.windows(2).all(|pair| pair[0].head.seq < pair[1].head.seq));
}

proptest! {
    /// Whatever byte is changed, and however.
    #[test]
    fn a_changed_byte_anywhere_is_found(at in any::<proptest::sample::Index>(), mask in 1_u8..) {
        let mut export = lines("c", &records()).concat();
        let at = at.index(export.len());
        export[at] ^= mask;
        let line = export[..at].split(|byte| *byte == b'\n').count() as u64;
        let (found, ..) = misfit(&export);
        prop_assert!(found <= line + 1, "byte {at} of line {line} was changed, and line {found} is named");
    }

    /// Whatever range of bytes is removed, unless it is whole records at the beginning or the end, or all.
    #[test]
    fn a_removed_range_is_found(a in any::<proptest::sample::Index>(), b in any::<proptest::sample::Index>()) {
        let export = lines("c", &records()).concat();
        let (a, b) = (a.index(export.len()), b.index(export.len()));
        let (from, to) = (a.min(b), a.max(b));
        let is_boundary = |at: usize| at == 0 || export[at - 1] == b'\n';
        prop_assume!(from < to && !(is_boundary(from) && is_boundary(to) && from == 0));
        // An empty line is left at the end, which no export needs: whole records at the end are gone.
        prop_assume!(!(from > 0 && is_boundary(from) && to == export.len() - 1));
        let cut = [&export[..from], &export[to..]].concat();
        prop_assert!(check(&cut).is_err());
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(check(&bytes).is_err());
    }
}

#[test]
fn records_of_earlier_releases_name_no_person() {
    for kind in ["CancelSent", "CancelRequested"] {
        let text = format!(r#"{{"kind":"{kind}","attempt":"u/1/n-1/1","epoch":1}}"#);
        let record: Record = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
    }
}
