//! The operator's audit chain: its queue, its destinations, and the heads that it exchanges with agents.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

mod gateway;

use std::fs;
use std::io::BufReader;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use gateway::*;
use sentinel_audit::directory::files;
use sentinel_audit::export::Export;
use sentinel_audit::record::{Access, Approved, Omission};
use sentinel_audit::verify::{Summary, verify};
use sentinel_audit::{AuditHead, Record};
use sentinel_operator::audit::{Audit, AuditError, AuditOptions, Destination};
use sentinel_operator::clock::Clock;
use sentinel_operator::metrics::Registry as Metrics;
use sentinel_protocol::ids::{AttemptId, ChainId, Epoch, RunNumber, Sha256Hex, SpecHash, TaskRef, TaskUid};
use sentinel_protocol::metrics::NodeMetrics;
use sentinel_protocol::requester::Requester;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::ToAgent;
use sentinel_protocol::to_operator::{Heartbeat, Inventory, ToOperator};

fn start(options: AuditOptions, metrics: &Metrics) -> Result<Audit, AuditError> {
    Audit::start(options, "op-1", &Clock::system(), metrics)
}

fn in_directory(path: &Path) -> AuditOptions {
    AuditOptions { directory: Some(path.to_owned()), kept: 0, stream: None }
}

fn cancel(number: u32) -> Record {
    let attempt: AttemptId = format!("u/{number}/n-1/1").parse().unwrap();
    Record::CancelSent { attempt, epoch: Epoch::from(1), requested_by: None }
}

fn verified(export: impl std::io::Read) -> (Vec<Summary>, Vec<Record>) {
    let mut records = Vec::new();
    let chains =
        verify(BufReader::new(export), |_, line| records.push(line.record.clone().unwrap())).unwrap();
    (chains, records)
}

#[test]
fn a_chain_is_continued_by_the_next_operator_and_copied_to_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.jsonl");
    let directory = folder.path().join("audit");
    let options = AuditOptions { stream: Some(Destination::File(copy.clone())), ..in_directory(&directory) };
    let metrics = Metrics::new();
    for number in [1, 2] {
        let audit = start(options.clone(), &metrics).unwrap();
        audit.record(|| cancel(number));
        audit.close();
        // After the end nothing is recorded.
        audit.record(|| cancel(number));
    }
    let (chains, records) = verified(Export::open(&directory).unwrap());
    assert_eq!(chains.len(), 1);
    let kinds: Vec<&str> = records.iter().map(Record::kind).collect();
    assert_eq!(kinds, ["Began", "CancelSent", "Began", "CancelSent"]);
    let mut export = Vec::new();
    std::io::copy(&mut Export::open(&directory).unwrap(), &mut export).unwrap();
    assert_eq!(fs::read(&copy).unwrap(), export, "the copy has the same lines");
    let text = metrics.render();
    assert!(text.contains("sentinel_audit_records_total 4"), "{text}");
}

#[test]
fn a_stream_alone_has_a_chain_of_its_own_for_each_process() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    for _ in 0..2 {
        let options =
            AuditOptions { stream: Some(Destination::File(file.clone())), ..AuditOptions::default() };
        let audit = start(options, &Metrics::new()).unwrap();
        audit.record(|| cancel(1));
        audit.close();
        assert_eq!(audit.head().unwrap().seq, 2);
    }
    let (chains, _) = verified(fs::File::open(&file).unwrap());
    assert_eq!(chains.iter().map(Summary::records).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(chains[0].writer.as_deref(), Some("operator on op-1"));
}

#[test]
fn the_local_syslog_is_sent_each_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let syslog = UnixDatagram::bind(&path).unwrap();
    let options = AuditOptions { stream: Some(Destination::Syslog(path)), ..AuditOptions::default() };
    let audit = start(options, &Metrics::new()).unwrap();
    audit.record(|| cancel(1));
    audit.close();
    for kind in ["Began", "CancelSent"] {
        let mut buffer = [0; 4096];
        let len = syslog.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..len]);
        assert!(text.starts_with("<85>sentinel-audit: {\"v\":1,") && text.contains(kind), "{text}");
    }
}

#[test]
fn an_operator_that_cannot_record_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = start(in_directory(&file.join("audit")), &Metrics::new()).unwrap_err();
    assert!(matches!(error, AuditError::Directory(_)), "{error}");
    assert!(
        error.to_string().contains("failed to create") && error.to_string().contains("file/audit"),
        "{error}"
    );
    let nowhere = Destination::File("/nowhere/audit.jsonl".into());
    let options = AuditOptions { stream: Some(nowhere), ..AuditOptions::default() };
    let error = start(options, &Metrics::new()).unwrap_err();
    assert!(
        error.to_string().contains("/nowhere/audit.jsonl") && error.to_string().contains("--audit-log"),
        "{error}"
    );
    let _first = start(in_directory(&folder.path().join("audit")), &Metrics::new()).unwrap();
    let error = start(in_directory(&folder.path().join("audit")), &Metrics::new()).unwrap_err();
    assert_eq!((error.category(), error.is_retryable()), ("locked", true));
}

#[test]
fn what_comes_faster_than_it_can_be_written_is_counted_and_recorded_as_lost() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::new();
    let options = AuditOptions { kept: 1 << 30, ..in_directory(folder.path()) };
    let audit = start(options, &metrics).unwrap();
    let mut queued = 0_u64;
    let lost = || {
        let text = metrics.render();
        let line = text.lines().find(|line| line.starts_with("sentinel_audit_records_lost_total ")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    while lost() == 0 {
        for _ in 0..20_000 {
            audit.record(|| cancel(1));
        }
        queued += 20_000;
    }
    // Recorded as lost with the next one that is written.
    audit.close();
    let (chains, records) = verified(Export::open(folder.path()).unwrap());
    let in_gaps: u64 =
        records.iter().map(|record| if let Record::Gap { lost, .. } = record { *lost } else { 0 }).sum();
    assert!(in_gaps > 0 && in_gaps <= lost(), "{in_gaps} of {} of {queued}", lost());
    assert_eq!(chains[0].lost, in_gaps);
}

#[test]
fn what_a_party_causes_beyond_its_allowance_is_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::new();
    let audit = start(AuditOptions { kept: 32 << 20, ..in_directory(folder.path()) }, &metrics).unwrap();
    for number in 0..2_000 {
        audit.denied(403, "user \"bob\" cannot get tasks/log", || access("bob", &format!("/{number}")));
    }
    audit.denied(403, "user \"eve\" cannot get tasks/log", || access("eve", "/a"));
    audit.output_read(|| access("bob", "/a"));
    audit.record(|| cancel(1));
    audit.close();
    let (chains, records) = verified(Export::open(folder.path()).unwrap());
    let of = |kind: &str| records.iter().filter(|record| record.kind() == kind).count() as u64;
    let omitted = |record: &Record| match record {
        Record::Omitted { omitted, by } => {
            assert_eq!(by[..], [Omission { cause: "user bob".into(), omitted: *omitted }]);
            *omitted
        }
        _ => 0,
    };
    let omitted = records.iter().map(omitted).sum::<u64>();
    assert!(omitted > 1_000, "{omitted}");
    assert_eq!((of("AccessDenied") + omitted, of("OutputRead"), of("CancelSent")), (2_001, 1, 1));
    assert_eq!((chains[0].omitted, chains[0].lost, chains[0].set_back), (omitted, 0, 0));
    let line = format!("\nsentinel_audit_records_omitted_total {omitted}\n");
    assert!(metrics.render().contains(&line), "{}", metrics.render());
    let bytes: u64 = files(folder.path()).unwrap().iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(bytes < (256 + 8) << 10, "{bytes} bytes");
}

#[test]
fn who_approves_the_same_run_again_and_again_uses_up_an_allowance_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let audit =
        start(AuditOptions { kept: 32 << 20, ..in_directory(folder.path()) }, &Metrics::new()).unwrap();
    let by = |user: &str| Requester { user: user.into(), uid: None, groups: Vec::new() };
    let approved = |user: &str| {
        let record = Approved {
            task: TaskRef::new("team-a", "t").unwrap(),
            uid: TaskUid::new("u").unwrap(),
            run: RunNumber(1),
            by: by(user),
            spec_hash: SpecHash::new("a".repeat(64)).unwrap(),
            targets_sha256: "b".repeat(64).as_str().into(),
            expires_at: UnixMillis(1),
        };
        audit.approved(&by(user), || Record::Approved(Box::new(record)));
    };
    for _ in 0..2_000 {
        approved("bob");
    }
    approved("eve");
    audit.denied(403, "user \"bob\" cannot get tasks/log", || access("bob", "/a"));
    audit.close();
    let (chains, records) = verified(Export::open(folder.path()).unwrap());
    let of = |user: &str| {
        let by_user =
            |record: &&Record| matches!(record, Record::Approved(one) if one.by.user.as_str() == user);
        records.iter().filter(by_user).count() as u64
    };
    assert!(chains[0].omitted > 1_000, "{}", chains[0].omitted);
    assert_eq!((of("bob") + chains[0].omitted, of("eve")), (2_000, 1));
    let denied = records.iter().filter(|record| record.kind() == "AccessDenied").count();
    assert_eq!(denied, 1, "as a person who is refused, bob has used nothing");
}

fn access(user: &str, path: &str) -> Access {
    Access {
        user: Some(user.into()),
        uid: None,
        groups: vec!["ops".into()],
        from: None,
        method: "GET".into(),
        path: path.into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_and_denials_are_recorded_once_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let audit = start(in_directory(folder.path()), &Metrics::new()).unwrap();
    for _ in 0..3 {
        audit.output_read(|| access("alice", "/a"));
        audit.denied(403, "user \"bob\" cannot get tasks/log", || access("bob", "/a"));
    }
    audit.close();
    let (_, records) = verified(Export::open(folder.path()).unwrap());
    let expected = Record::AccessDenied {
        status: 403,
        message: "user \"bob\" cannot get tasks/log".into(),
        access: Box::new(access("bob", "/a")),
    };
    assert_eq!(records[1..], [Record::OutputRead(Box::new(access("alice", "/a"))), expected]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_and_operator_keep_each_others_heads() {
    let folder = tempfile::tempdir().unwrap();
    let audit = start(in_directory(folder.path()), &Metrics::new()).unwrap();
    let world = world(Setup { audit: audit.clone(), ..Setup::default() }).await;
    let mut agent = world.dial("n-1").await;
    agent.send_json(&ToOperator::Hello(hello())).await;
    agent.expect_welcome().await;
    agent
        .send_json(&ToOperator::Inventory(Inventory { attempts: vec![], more: false, sealing_key: None }))
        .await;
    eventually("the operator's head is durable", || audit.head().is_some()).await;
    let hash = Sha256Hex::new("d".repeat(64)).unwrap();
    let head = AuditHead { chain: ChainId::new("of-the-node").unwrap(), seq: 5, hash };
    let beat = |audit| {
        ToOperator::Heartbeat(Heartbeat { at: UnixMillis(1), metrics: NodeMetrics::default(), audit })
    };
    // An agent of an earlier release states none.
    agent.send_json(&beat(None)).await;
    agent.send_json(&beat(Some(head.clone()))).await;
    agent.send_json(&beat(Some(head.clone()))).await;
    let ours = audit.head().unwrap();
    match agent.receive().await {
        ToAgent::AuditHead(seen) => assert_eq!((seen.chain, seen.seq >= ours.seq), (ours.chain, true)),
        other => panic!("{other:?}"),
    }
    eventually("the node's head is durable", || audit.head().is_some_and(|head| head.seq == 2)).await;
    // Each minute, two chains made a record of the other's head, which was all that had happened.
    assert_eq!(audit.head_after(Some(1)), None);
    assert_eq!(audit.head_after(None).unwrap().seq, 2);
    audit.record(|| cancel(1));
    eventually("there is something new", || audit.head_after(Some(1)).is_some_and(|head| head.seq == 3))
        .await;
    assert_eq!(audit.head_after(Some(3)), None);
    audit.close();
    let (_, records) = verified(Export::open(folder.path()).unwrap());
    assert_eq!(records[1..], [Record::HeadSeen { of: "n-1".into(), head }, cancel(1)]);
}
