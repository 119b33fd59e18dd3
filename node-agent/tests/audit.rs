//! The audit records of a node, by the real binary: what is asked and done is recorded, once, and through restarts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod fixtures;
mod gateway;

use std::fs;
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use gateway::{Control, Gateway, within};
use sentinel_audit::directory::files;
use sentinel_audit::export::Export;
use sentinel_audit::verify::{Summary, verify};
use sentinel_audit::{AuditHead, Chain, Record};
use sentinel_node_agent::journal::AttemptDir;
use sentinel_protocol::ids::{ChainId, Epoch, Sha256Hex};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::request::{EnvVar, Environment};
use sentinel_protocol::requester::{RequestedBy, Requester};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Cancel, Start, ToAgent};

const TOKEN: &str = "a-token";

fn node() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("token"), TOKEN).unwrap();
    fs::set_permissions(dir.path().join("token"), PermissionsExt::from_mode(0o400)).unwrap();
    dir
}

/// Killed at the end of the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_agent(dir: &Path, gateway: &Gateway) -> Agent {
    start_agent_with(dir, gateway, &[])
}

fn start_agent_with(dir: &Path, gateway: &Gateway, flags: &[&str]) -> Agent {
    let mut command = Command::new(env!("CARGO_BIN_EXE_node-agent"));
    command.env_clear().args(["--operator-url", &format!("ws://{}", gateway.address), "--node-name", "n-1"]);
    command.arg("--token-file").arg(dir.join("token")).arg("--state-dir").arg(dir.join("state")).args(flags);
    Agent(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

fn verified(dir: &Path) -> (Summary, Vec<Record>) {
    let mut records = Vec::new();
    let export = BufReader::new(Export::open(&dir.join("state/audit")).unwrap());
    let mut chains = verify(export, |_, line| records.push(line.record.clone().unwrap())).unwrap();
    assert_eq!(chains.len(), 1);
    (chains.remove(0), records)
}

fn kinds(records: &[Record]) -> Vec<&'static str> {
    records.iter().map(Record::kind).collect()
}

async fn run(control: &mut Control, start: &Start) -> Outcome {
    control.send_message(ToAgent::Start(Box::new(start.clone()))).await;
    control.ended(&start.attempt).await.outcome
}

fn audit(dir: &Path, verb: &str) -> Output {
    audit_with(dir, &[verb])
}

fn audit_with(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_node-agent"));
    command.env_clear().arg("audit").args(args).arg("--state-dir").arg(dir.join("state")).output().unwrap()
}

fn shell(number: u32, script: &str) -> Start {
    let mut start = fixtures::shell(number, script);
    start.credit = u64::MAX;
    start
}

fn person(name: &str) -> Requester {
    Requester { user: name.into(), uid: None, groups: vec!["ops".into()] }
}

/// Has a command run, one refused, one cancelled and another run, and gives heads; all of it twice. Returns the first one, the
/// cancelled one and the head.
async fn ask(control: &mut Control) -> (Start, Start, AuditHead) {
    let mut first = shell(1, "exit 3");
    first.request.env.push(EnvVar {
        name: "PASSWORD".into(),
        value: "hunter2-the-value".into(),
        value_from: None,
    });
    let (creator, approver) = (Some(person("dan")), Some(person("bob")));
    first.requested_by = Some(RequestedBy { author: person("alice"), rerun: None, creator, approver });
    assert_eq!(run(control, &first).await, Outcome::Failed { exit_code: 3 });
    // It is sent again: nothing is run, and nothing more is recorded.
    assert_eq!(run(control, &first).await, Outcome::Failed { exit_code: 3 });

    let mut refused = shell(2, "true");
    refused.request.environment = Environment::Host;
    for _ in 0..2 {
        control.send_message(ToAgent::Start(Box::new(refused.clone()))).await;
        assert!(matches!(control.refused().await.refusal, Refusal::EnvironmentUnavailable { .. }));
    }
    let cancelled = shell(3, "sleep 1000");
    control.send_message(ToAgent::Start(Box::new(cancelled.clone()))).await;
    control.running(&cancelled.attempt).await;
    let (attempt, spec_hash) = (cancelled.attempt.clone(), cancelled.spec_hash.clone());
    let requested_by = Some(Box::new(person("carol")));
    let cancel = Cancel { attempt, spec_hash, epoch: Epoch::from(1), requested_by };
    control.send_message(ToAgent::Cancel(cancel.clone())).await;
    control.send_message(ToAgent::Cancel(cancel)).await;
    assert_eq!(control.ended(&cancelled.attempt).await.outcome, Outcome::Cancelled);
    let hash = Sha256Hex::new("d".repeat(64)).unwrap();
    let head = AuditHead { chain: ChainId::new("of-the-operator").unwrap(), seq: 9, hash };
    control.send_message(ToAgent::AuditHead(head.clone())).await;
    let stale = AuditHead { seq: 10, ..head.clone() };
    control.send_message(ToAgent::AuditHead(stale)).await;
    // Handled in order: after its answer, all of the above is recorded.
    assert!(matches!(run(control, &shell(4, "true")).await, Outcome::Succeeded { .. }));
    (first, cancelled, head)
}

#[tokio::test]
async fn what_is_asked_and_done_is_recorded_once_and_in_order() {
    let dir = node();
    let mut gateway = Gateway::start(TOKEN).await;
    let _agent = start_agent(dir.path(), &gateway);
    let mut control = gateway.control().await;
    let (first, cancelled, head) = ask(&mut control).await;

    let (chain, records) = verified(dir.path());
    assert_eq!(chain.writer.as_deref(), Some("node-agent on n-1"));
    let mut seen = kinds(&records);
    // A command that ends at once is seen when it has.
    seen.retain(|kind| *kind != "Started");
    let expected = [
        "Began",
        "Accepted",
        "Ended",
        "Refused",
        "Accepted",
        "CancelRequested",
        "Ended",
        "HeadSeen",
        "Accepted",
        "Ended",
    ];
    assert_eq!(seen, expected, "{records:?}");
    let started = |start: &Start| {
        records
            .iter()
            .filter(|r| matches!(r, Record::Started { attempt, .. } if *attempt == start.attempt))
            .count()
    };
    assert_eq!(started(&cancelled), 1);
    let asked = records.iter().find_map(|record| match record {
        Record::CancelRequested { attempt, requested_by, .. } => Some((attempt, requested_by)),
        _ => None,
    });
    let carol = Some(person("carol"));
    assert_eq!(asked, Some((&cancelled.attempt, &carol)));
    let attempts = dir.path().join("state/attempts");
    let kept = AttemptDir::at(attempts.join(cancelled.attempt.directory_name()));
    assert_eq!(kept.cancelled_by(), carol, "the Journal has it too");
    let Record::Accepted(accepted) = &records[1] else { panic!() };
    assert_eq!((&accepted.requested_by, accepted.from_journal), (&first.requested_by, false));
    let refusal = records.iter().find_map(|record| match record {
        Record::Refused { refusal, requested, .. } => Some((refusal, requested)),
        _ => None,
    });
    assert!(matches!(refusal, Some((Refusal::EnvironmentUnavailable { .. }, Some(_)))), "{refusal:?}");
    assert!(
        records.iter().any(|record| matches!(record, Record::HeadSeen { head: seen, .. } if *seen == head))
    );

    // The operator is given the head once it is durable.
    within("the head in a Heartbeat", async {
        while control.heartbeat().await.audit != Some(chain.head.clone()) {}
    })
    .await;
    let export = String::from_utf8(audit(dir.path(), "export").stdout).unwrap();
    assert!(export.contains("PASSWORD") && !export.contains("hunter2-the-value"), "{export}");
    assert_eq!(export.lines().count() as u64, chain.records());
    let output = audit(dir.path(), "verify");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains(chain.head.hash.as_str()), "{text}");
}

/// The first one hid the one that acted, and an ignored one between two had each of them recorded.
#[tokio::test]
async fn cancels_that_end_nothing_neither_hide_the_one_that_does_nor_fill_the_chain() {
    let dir = node();
    let mut gateway = Gateway::start(TOKEN).await;
    let _agent = start_agent_with(dir.path(), &gateway, &["--audit-keep", "1Mi"]);
    let mut control = gateway.control().await;
    let mut start = shell(1, "sleep 1000");
    start.epoch = Epoch::from(2);
    control.send_message(ToAgent::Start(Box::new(start.clone()))).await;
    control.running(&start.attempt).await;
    let cancel = |by: &str, epoch: u32, spec_hash: &str| {
        let (attempt, requested_by) = (start.attempt.clone(), Some(Box::new(person(by))));
        ToAgent::Cancel(Cancel {
            attempt,
            spec_hash: spec_hash.parse().unwrap(),
            epoch: Epoch::from(epoch),
            requested_by,
        })
    };
    for _ in 0..2_000 {
        control.send_message(cancel("alice", 2, &"f".repeat(64))).await;
        assert_eq!(control.refused().await.refusal, Refusal::SpecHashMismatch);
        control.send_message(cancel("alice", 1, start.spec_hash.as_str())).await;
    }
    control.send_message(cancel("bob", 2, start.spec_hash.as_str())).await;
    assert_eq!(control.ended(&start.attempt).await.outcome, Outcome::Cancelled);
    let (chain, records) = verified(dir.path());
    let asked = records.iter().rev().find_map(|record| match record {
        Record::CancelRequested { requested_by, .. } => Some(requested_by.clone()),
        _ => None,
    });
    assert_eq!(asked, Some(Some(person("bob"))));
    assert!(chain.missing() == 0 && records.len() < 500, "{} records", records.len());
}

/// Retention would have removed the records of what it had run before.
#[tokio::test]
async fn an_operator_that_asks_in_vain_all_the_time_fills_a_share_of_what_is_kept() {
    let dir = node();
    let mut gateway = Gateway::start(TOKEN).await;
    let _agent = start_agent_with(dir.path(), &gateway, &["--audit-keep", "1Mi"]);
    let mut control = gateway.control().await;
    assert_eq!(run(&mut control, &shell(1, "exit 3")).await, Outcome::Failed { exit_code: 3 });
    for number in 2..802 {
        let mut refused = shell(number, &"x".repeat(1000));
        refused.request.environment = Environment::Host;
        control.send_message(ToAgent::Start(Box::new(refused))).await;
        assert!(matches!(control.refused().await.refusal, Refusal::EnvironmentUnavailable { .. }));
    }
    for number in 802..1_602 {
        let Start { attempt, spec_hash, .. } = shell(number, "true");
        let cancel = Cancel { attempt, spec_hash, epoch: Epoch::from(1), requested_by: None };
        control.send_message(ToAgent::Cancel(cancel.clone())).await;
        assert_eq!(control.ended(&cancel.attempt).await.outcome, Outcome::Cancelled);
    }
    assert!(matches!(run(&mut control, &shell(1_602, "true")).await, Outcome::Succeeded { .. }));
    let (chain, records) = within("the record of what was left out", async {
        loop {
            let (chain, records) = verified(dir.path());
            if records.iter().any(|record| record.kind() == "Omitted") {
                return (chain, records);
            }
            control.heartbeat().await;
        }
    })
    .await;
    assert_eq!((chain.missing(), chain.lost), (0, 0));
    let of = |wanted: &str| records.iter().filter(|record| record.kind() == wanted).count();
    assert_eq!((of("Accepted"), of("Started") <= 2), (2, true), "what is run is always recorded");
    let bare =
        records.iter().filter(|record| matches!(record, Record::Refused { requested: None, .. })).count();
    assert!(of("Refused") > bare && bare > 0, "the request is left out first: {bare} of {}", of("Refused"));
    let bytes: u64 = files(&dir.path().join("state/audit"))
        .unwrap()
        .iter()
        .map(|file| fs::metadata(file).unwrap().len())
        .sum();
    assert!(bytes < (128 + 8) << 10, "an eighth, and what is run: {bytes} bytes");
    println!(
        "800 refused starts and 800 cancels of nothing: {bytes} bytes of audit records, {} records",
        records.len()
    );
}

#[tokio::test]
async fn a_restarted_agent_continues_the_chain_and_adds_what_it_lacks() {
    let dir = node();
    let mut gateway = Gateway::start(TOKEN).await;
    let agent = start_agent(dir.path(), &gateway);
    let mut control = gateway.control().await;
    let (one, two) = (shell(1, "exit 1"), shell(2, "sleep 1000"));
    run(&mut control, &one).await;
    control.send_message(ToAgent::Start(Box::new(two.clone()))).await;
    control.running(&two.attempt).await;
    drop(agent);
    let before = verified(dir.path()).1;
    assert_eq!(before.last().map(Record::kind), Some("Started"));

    // With all records, a restart adds only that there was one.
    let agent = start_agent(dir.path(), &gateway);
    gateway.control().await;
    drop(agent);
    let (chain, records) = verified(dir.path());
    assert_eq!((&records[..before.len()], &kinds(&records)[before.len()..]), (&before[..], &["Began"][..]));

    // Without them, as after a power cut: the Journal has what is missing.
    let file = files(&dir.path().join("state/audit")).unwrap().remove(0);
    let first = fs::read_to_string(&file).unwrap().lines().next().unwrap().to_owned();
    fs::write(&file, first + "\n{\"v\":1,\"chain\":\"").unwrap();
    let _agent = start_agent(dir.path(), &gateway);
    let mut control = gateway.control().await;
    let (other, records) = verified(dir.path());
    assert_eq!(other.head.chain, chain.head.chain);
    assert!(matches!(records[1], Record::Began { torn: Some(_), .. }), "{records:?}");
    let found = |attempt| {
        let of = |record: &&Record| match record {
            Record::Accepted(of) => of.attempt == attempt && of.from_journal,
            Record::Started { attempt: of, .. } | Record::Ended { attempt: of, .. } => *of == attempt,
            _ => false,
        };
        records.iter().filter(of).map(Record::kind).collect::<Vec<_>>()
    };
    assert_eq!(found(two.attempt.clone()), ["Accepted", "Started"]);
    let of_one = found(one.attempt.clone());
    assert_eq!((of_one.first(), of_one.last()), (Some(&"Accepted"), Some(&"Ended")));
    let cancel = Cancel {
        attempt: two.attempt.clone(),
        spec_hash: two.spec_hash.clone(),
        epoch: Epoch::from(1),
        requested_by: None,
    };
    control.send_message(ToAgent::Cancel(cancel)).await;
    control.ended(&two.attempt).await;
}

#[tokio::test]
async fn commands_run_though_nothing_can_be_recorded() {
    let dir = node();
    fs::create_dir(dir.path().join("state")).unwrap();
    fs::set_permissions(dir.path().join("state"), PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(dir.path().join("state/audit"), "a file").unwrap();
    let mut gateway = Gateway::start(TOKEN).await;
    let _agent = start_agent(dir.path(), &gateway);
    let mut control = gateway.control().await;
    assert!(matches!(run(&mut control, &shell(1, "true")).await, Outcome::Succeeded { .. }));
    assert_eq!(control.heartbeat().await.audit, None);
    let output = audit(dir.path(), "export");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && stderr.contains("failed to read") && stderr.contains("audit"),
        "{stderr}"
    );
}

#[test]
fn a_changed_record_is_named_by_the_agent_too() {
    let dir = node();
    fs::create_dir_all(dir.path().join("state/audit")).unwrap();
    fs::write(dir.path().join(format!("state/audit/{:020}.jsonl", 1)), "not a record\n").unwrap();
    let output = audit(dir.path(), "verify");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success() && text.contains("line 1 does not fit"), "{text}");
}

#[test]
fn records_that_are_removed_from_the_first_file_are_found_and_whole_files_unless_retention_may_have() {
    let dir = node();
    let path = dir.path().join("state/audit");
    fs::create_dir_all(&path).unwrap();
    let mut chain = Chain::new(ChainId::new("c").unwrap());
    let mut lines = Vec::new();
    for _ in 0..4 {
        let began =
            Record::Began { program: "node-agent".into(), version: "1".into(), on: "n-1".into(), torn: None };
        let next = chain.next(UnixMillis(1), &began).unwrap();
        chain.advance(&next);
        lines.push(next.line);
    }
    let file = |first: usize| path.join(format!("{first:020}.jsonl"));
    fs::write(file(1), lines[..2].concat()).unwrap();
    fs::write(file(3), lines[2..].concat()).unwrap();
    let verify = |args: &[&str]| {
        let output = audit_with(dir.path(), &[&["verify"], args].concat());
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (fits, out) = verify(&[]);
    assert!(fits && out.contains("4 records, 1 to 4;"), "{out}");
    fs::write(file(1), &lines[1]).unwrap();
    for args in [&[][..], &["--allow-retention"]] {
        let (fits, out) = verify(args);
        let expected = "line 1 (record 2) does not fit: record 1 is missing before it";
        assert!(!fits && out.contains(expected), "{out}");
    }
    fs::remove_file(file(1)).unwrap();
    let (fits, out) = verify(&[]);
    assert!(!fits && out.contains("FAILED: missing are 2 records before the first of 1 chain"), "{out}");
    let (fits, out) = verify(&["--allow-retention"]);
    assert!(fits && out.contains("missing are 2 records before the first of 1 chain, as"), "{out}");
}

#[test]
fn a_state_directory_without_records_is_an_error_with_its_cause() {
    let dir = node();
    let output = audit(dir.path(), "verify");
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let path = dir.path().join("state/audit");
    let expected = format!("node-agent: failed to read {}: No such file or directory", path.display());
    assert!(stderr.starts_with(&expected), "{stderr}");
}
