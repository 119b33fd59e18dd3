//! Every message against a golden file. A failure here means that an agent and an operator of two releases no longer
//! understand each other: add a protocol version, or revert the change.
//!
//! `UPDATE_GOLDEN=1 cargo test -p sentinel-protocol --test wire_is_stable` rewrites the files.
#![allow(
    clippy::disallowed_methods,
    clippy::items_after_statements,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "wire_is_stable/samples.rs"]
mod samples;

use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use samples::*;
use sentinel_protocol::codec::{decode_record, decode_text, encode_record, encode_text, is_unknown_kind};
use sentinel_protocol::exit::{Clock, ExitDetails, Fate};
use sentinel_protocol::ids::{Epoch, SessionId};
use sentinel_protocol::log::{DropReason, LogControl, LogRecord, RecordHead, Stream};
use sentinel_protocol::metrics::{DiskMetrics, NetworkMetrics, NodeMetrics};
use sentinel_protocol::outcome::{InterruptReason, LostReason, Outcome, StartFailure};
use sentinel_protocol::refusal::{Refusal, SessionRefusal};
use sentinel_protocol::request::{Environment, Leftovers, Program};
use sentinel_protocol::secret::SealingKey;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Ack, Cancel, Forget, Start, ToAgent, Welcome};
use sentinel_protocol::to_operator::{
    Ended, Heartbeat, Hello, Inventory, Refused, ReportedState, Running, ToOperator,
};
use sentinel_protocol::version::Version;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(name)
}

/// Compares bytes with a golden file.
fn check_bytes(name: &str, bytes: &[u8]) {
    let path = golden(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, bytes).unwrap();
    }
    let expected = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (seen, expected) = (String::from_utf8_lossy(bytes), String::from_utf8_lossy(&expected));
    assert_eq!(seen, expected, "the encoding of {name} has changed");
}

/// Compares a message with its golden file, encoded and decoded.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, message: &T) {
    let text = encode_text(message).unwrap();
    check_bytes(&format!("{name}.json"), text.as_bytes());
    assert_eq!(&decode_text::<T>(&text).unwrap(), message, "{name} does not round-trip");
}

#[test]
fn hello_welcome_and_refuse_are_frozen() {
    // Literals and not golden files, so that `UPDATE_GOLDEN` cannot change them.
    let hello = ToOperator::Hello(Hello {
        versions: vec![Version(1)],
        agent_version: "0.1.0".into(),
        boot_id: "b".into(),
        state_id: "s".into(),
        highest_epoch: Epoch::from(4),
        environments: vec![Environment::Container, Environment::Host],
        os: "linux".into(),
        arch: "x86_64".into(),
        kernel: "6.1.0".into(),
    });
    let bytes = r#"{"kind":"Hello","versions":[1],"agentVersion":"0.1.0","bootId":"b","stateId":"s","highestEpoch":4,"environments":["Container","Host"],"os":"linux","arch":"x86_64","kernel":"6.1.0"}"#;
    assert_eq!(encode_text(&hello).unwrap(), bytes);
    assert_eq!(decode_text::<ToOperator>(bytes).unwrap(), hello);

    let welcome = ToAgent::Welcome(Welcome {
        version: Version(1),
        session: SessionId::new("session-1").unwrap(),
        epoch: Epoch::from(5),
        heartbeat_ms: 5000,
        dead_after_ms: 15_000,
    });
    let bytes = r#"{"kind":"Welcome","version":1,"session":"session-1","epoch":5,"heartbeatMs":5000,"deadAfterMs":15000}"#;
    assert_eq!(encode_text(&welcome).unwrap(), bytes);
    assert_eq!(decode_text::<ToAgent>(bytes).unwrap(), welcome);

    let refuse = ToAgent::Refuse(SessionRefusal::Version { spoken: vec![Version(2), Version(3)] });
    let bytes = r#"{"kind":"Refuse","reason":"Version","spoken":[2,3]}"#;
    assert_eq!(encode_text(&refuse).unwrap(), bytes);
    assert_eq!(decode_text::<ToAgent>(bytes).unwrap(), refuse);
}

#[test]
fn messages_of_the_operator_are_stable() {
    check("start-command", &start(Program::Command(vec!["df".into(), "-h".into()])));
    check(
        "start-script",
        &start(Program::Script { interpreter: "/bin/sh".into(), argument: None, text: "df\n".into() }),
    );
    check("start-limited", &limited());
    check("start-traced", &traced());
    check("start-merged", &merged());
    check("start-asked-for", &asked_for());
    check("start-approved", &approved());
    check("start-secrets", &with_secrets());
    check(
        "cancel",
        &ToAgent::Cancel(Cancel {
            attempt: id(),
            spec_hash: spec_hash(),
            epoch: Epoch::from(5),
            requested_by: None,
        }),
    );
    check(
        "cancel-asked-for",
        &ToAgent::Cancel(Cancel {
            attempt: id(),
            spec_hash: spec_hash(),
            epoch: Epoch::from(5),
            requested_by: Some(Box::new(requested_by().author)),
        }),
    );
    for stage in [Stage::Accepted, Stage::Running, Stage::Ended] {
        check(&format!("ack-{stage:?}").to_lowercase(), &ToAgent::Ack(Ack { attempt: id(), stage }));
    }
    check("forget", &ToAgent::Forget(Forget { attempt: id(), epoch: Epoch::from(5) }));
    check("audit-head", &ToAgent::AuditHead(audit_head()));
    let leader = Some("10.0.0.7:7070".to_owned());
    for (name, refusal) in [
        ("hello-expected", SessionRefusal::HelloExpected),
        ("malformed", SessionRefusal::Malformed { message: "half".into() }),
        ("replaced", SessionRefusal::Replaced),
        ("unauthenticated", SessionRefusal::Unauthenticated),
        ("not-leader", SessionRefusal::NotLeader { leader }),
        ("no-leader", SessionRefusal::NotLeader { leader: None }),
        ("wrong-state", SessionRefusal::WrongState { message: "other machine".into() }),
        ("stopping", SessionRefusal::Stopping),
    ] {
        check(&format!("refuse-{name}"), &ToAgent::Refuse(refusal));
    }
}

#[test]
fn messages_of_the_agent_are_stable() {
    let running = Running { started_at: UnixMillis(1_700_000_000_000), pid: 4711 };
    check("report-accepted", &ToOperator::Report(Box::new(report(ReportedState::Accepted))));
    check("report-running", &ToOperator::Report(Box::new(report(ReportedState::Running(running.clone())))));
    let attempts = vec![report(ReportedState::Accepted), report(ReportedState::Running(running))];
    check("inventory", &ToOperator::Inventory(Inventory { attempts, more: true, sealing_key: None }));
    let sealing_key = Some(SealingKey(std::array::from_fn(|at| at as u8)));
    check(
        "inventory-sealing-key",
        &ToOperator::Inventory(Inventory { attempts: vec![], more: false, sealing_key }),
    );
    let metrics = NodeMetrics {
        cpu_percent: 12.5,
        cpu_count: 4,
        memory_used: 1,
        memory_total: 2,
        load: [0.25, 0.5, 1.0],
        uptime_seconds: 9,
        disks: vec![DiskMetrics { mount: "/".into(), total: 10, available: 4 }],
        networks: vec![NetworkMetrics { interface: "lo".into(), received: 1, sent: 2 }],
        running: 1,
        unacknowledged: 2,
        running_limit: 0,
        spooled: 3,
    };
    let at = UnixMillis(1_700_000_000_000);
    check("heartbeat", &ToOperator::Heartbeat(Heartbeat { at, metrics: metrics.clone(), audit: None }));
    check("heartbeat-audited", &ToOperator::Heartbeat(Heartbeat { at, metrics, audit: Some(audit_head()) }));
}

#[test]
fn outcomes_are_stable() {
    let message = "program \"/bin/nosuch\" does not exist".to_owned();
    let refusal = Refusal::Policy { rule: "no-root".into(), why: None };
    for outcome in [
        Outcome::Succeeded { exit_code: 0 },
        Outcome::Failed { exit_code: 3 },
        Outcome::Signaled { signal: 9 },
        Outcome::StartFailed { reason: StartFailure::ProgramNotFound, message: message.into() },
        Outcome::StartTimedOut { why: None },
        Outcome::TimedOut,
        Outcome::IdleTimedOut,
        Outcome::OomKilled { peak: None },
        Outcome::Cancelled,
        Outcome::CancelFailed { pids: vec![1, 2] },
        Outcome::Refused { refusal },
        Outcome::Skipped { message: "another platform".into() },
        Outcome::Interrupted { reason: InterruptReason::SupervisorDied },
        Outcome::Lost { reason: LostReason::NodeRebooted },
        Outcome::NotStarted,
    ] {
        let name = format!("ended-{}", outcome.name().to_lowercase());
        check(&name, &ToOperator::Report(Box::new(report(ReportedState::Ended(Box::new(ended(outcome)))))));
    }
    let outcome = Outcome::StartTimedOut { why: Some("the node is busy".into()) };
    let state = ReportedState::Ended(Box::new(ended(outcome)));
    check("ended-starttimedout-why", &ToOperator::Report(Box::new(report(state))));
    let outcome = Outcome::OomKilled { peak: Some(256 << 20) };
    let state = ReportedState::Ended(Box::new(ended(outcome)));
    check("ended-oomkilled-peak", &ToOperator::Report(Box::new(report(state))));
    let masked = ExitDetails { masked: 2, ..ExitDetails::default() };
    let state =
        ReportedState::Ended(Box::new(Ended { exit: masked, ..ended(Outcome::Failed { exit_code: 3 }) }));
    check("ended-failed-masked", &ToOperator::Report(Box::new(report(state))));
    let state = ReportedState::Ended(Box::new(Ended { exit: exit(), ..ended(Outcome::TimedOut) }));
    check("ended-timedout-exit", &ToOperator::Report(Box::new(report(state))));
    let exit = ExitDetails { code: Some(0), signed_by: Some("alice".into()), ..ExitDetails::default() };
    let state = ReportedState::Ended(Box::new(Ended { exit, ..ended(Outcome::Succeeded { exit_code: 0 }) }));
    check("ended-signed", &ToOperator::Report(Box::new(report(state))));
    for (name, clock) in
        [("start", Clock::Start), ("run", Clock::Run), ("idle", Clock::Idle), ("total", Clock::Total)]
    {
        assert_eq!(encode_text(&clock).unwrap(), format!("{name:?}"));
    }
    assert_eq!(encode_text(&Fate::Kept).unwrap(), "\"Kept\"");
}

#[test]
fn refusals_are_stable() {
    for (name, refusal) in [
        ("stale-epoch", Refusal::StaleEpoch { seen: Epoch::from(9) }),
        ("spec-hash-mismatch", Refusal::SpecHashMismatch),
        ("already-cancelled", Refusal::AlreadyCancelled),
        ("policy", Refusal::Policy { rule: "no-root".into(), why: None }),
        ("policy-why", Refusal::Policy { rule: "no-rule".into(), why: Some("no rule allows it".into()) }),
        ("environment", Refusal::EnvironmentUnavailable { environment: "Host".into(), why: None }),
        ("disk-low", Refusal::DiskLow { free: 1, needed: 2, directory: None }),
        ("too-many", Refusal::TooManyAttempts { limit: 64, rule: None }),
        ("too-many-rule", Refusal::TooManyAttempts { limit: 2, rule: Some("backups".into()) }),
        ("journal-unsafe", Refusal::JournalUnsafe { message: "EIO".into() }),
        ("invalid", Refusal::InvalidRequest { message: "run.umask".into() }),
        ("stopping", Refusal::Stopping),
    ] {
        let refused = Refused { attempt: id(), spec_hash: spec_hash(), refusal, offer: 0 };
        check(&format!("refused-{name}"), &ToOperator::Refused(refused));
    }
    // Optional fields that later releases added. They are omitted when empty, so the messages above are those of older
    // releases.
    for (name, refusal, offer) in [
        ("busy-offer", Refusal::TooManyAttempts { limit: 64, rule: None }, 3),
        (
            "environment-why",
            Refusal::EnvironmentUnavailable { environment: "Host".into(), why: Some("hostPID".into()) },
            0,
        ),
        (
            "disk-low-directory",
            Refusal::DiskLow { free: 1, needed: 2, directory: Some("/var/lib/sentinel".into()) },
            0,
        ),
    ] {
        let refused = Refused { attempt: id(), spec_hash: spec_hash(), refusal, offer };
        check(&format!("refused-{name}"), &ToOperator::Refused(refused));
    }
}

#[test]
fn messages_of_the_log_socket_are_stable() {
    check("log-hello", &LogControl::Hello { session: SessionId::new("session-1").unwrap() });
    check("log-open", &LogControl::Open { attempt: id(), oldest: 10 });
    check("log-credit", &LogControl::Credit { attempt: id(), granted: 100, archived: 50 });
    check("log-refuse", &LogControl::Refuse { refusal: SessionRefusal::Replaced });
    let head = RecordHead {
        stream: Stream::Stderr,
        position: 100,
        offset: 40,
        len: 6,
        at_micros: 1_700_000_000_000_000,
        dropped: None,
    };
    let full = LogRecord { head, data: Bytes::from_static(b"hello\n") };
    let frame = encode_record(&id(), &full).unwrap();
    check_bytes("log-record.bin", &frame);
    assert_eq!(decode_record(&frame).unwrap(), (id(), full));
    for dropped in
        [DropReason::SpoolFull, DropReason::LimitReached, DropReason::DiskFull, DropReason::Unreadable]
    {
        let hole = LogRecord { head: RecordHead { dropped: Some(dropped), ..head }, data: Bytes::new() };
        let frame = encode_record(&id(), &hole).unwrap();
        check_bytes(&format!("log-hole-{dropped:?}.bin").to_lowercase(), &frame);
        assert_eq!(decode_record(&frame).unwrap(), (id(), hole));
    }
}

#[test]
fn every_golden_file_has_a_test() {
    let count = fs::read_dir(golden("")).unwrap().count();
    assert_eq!(count, 73, "a golden file was added or removed: update this number along with its test");
}

#[test]
fn start_requires_a_version_that_knows_its_fields() {
    let needs = |message: &ToAgent| match message {
        ToAgent::Start(start) => start.needs(),
        _ => panic!("no Start"),
    };
    let plain = start(Program::Command(vec!["df".into()]));
    assert_eq!((needs(&plain), needs(&limited())), (Version(1), Version(2)));
    let change = |change: fn(&mut Start)| {
        let ToAgent::Start(mut start) = plain.clone() else { panic!("no Start") };
        change(&mut start);
        start.needs()
    };
    assert_eq!(change(|start| start.deadlines.idle_ms = Some(1)), Version(2));
    assert_eq!(change(|start| start.request.limits.pids = Some(1)), Version(2));
    assert_eq!(needs(&merged()), Version(3));
    let unknown = |message: &ToAgent, version| match message {
        ToAgent::Start(start) => start.unknown_to(Version(version)),
        _ => panic!("no Start"),
    };
    assert_eq!(needs(&asked_for()), Version(4));
    assert_eq!(unknown(&asked_for(), 3), ["run.sandbox", "run.readOnlyRootFilesystem"]);
    assert_eq!(needs(&with_secrets()), Version(4));
    assert_eq!(unknown(&with_secrets(), 3), ["run.env.valueFrom", "run.stdinFrom"]);
    // Who asked informs, and changes nothing for an agent that ignores it.
    assert_eq!(change(|start| start.requested_by = Some(requested_by())), Version(1));
    assert_eq!(unknown(&limited(), 1).last(), Some(&"timeouts.idle"));
    assert_eq!(unknown(&merged(), 2).len(), 5);
    assert!(unknown(&merged(), 3).is_empty() && unknown(&plain, 1).is_empty());
    assert_eq!(change(|start| start.request.output.merge = true), Version(3));
    assert_eq!(change(|start| start.request.leftovers = Leftovers::Keep), Version(3));
    assert_eq!(change(|start| start.request.limits.nofile = Some(64)), Version(3));
    assert_eq!(change(|start| start.request.limits.core = Some(0)), Version(3));
    let script = |start: &mut Start, argument: Option<&str>| {
        let (interpreter, text) = ("/bin/sh".to_owned(), "df".to_owned());
        start.request.program = Program::Script { interpreter, argument: argument.map(str::to_owned), text };
    };
    let ToAgent::Start(mut plain_script) = plain.clone() else { panic!("no Start") };
    script(&mut plain_script, None);
    assert_eq!(plain_script.needs(), Version(1));
    script(&mut plain_script, Some("-e"));
    assert_eq!(plain_script.needs(), Version(3));
    // The operator enforces this one itself, with a Cancel.
    assert_eq!(change(|start| start.deadlines.total_ms = Some(1)), Version(1));
}

/// Releases before and after the field `peak` read each other's `OomKilled`.
#[test]
fn an_outcome_with_a_new_field_stays_compatible() {
    let read: Outcome = decode_text(r#"{"outcome":"OomKilled"}"#).unwrap();
    assert_eq!(read, Outcome::OomKilled { peak: None });
    assert_eq!(encode_text(&read).unwrap(), r#"{"outcome":"OomKilled"}"#);
    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(tag = "outcome")]
    enum Before {
        OomKilled,
    }
    assert_eq!(decode_text::<Before>(r#"{"outcome":"OomKilled","peak":9}"#).unwrap(), Before::OomKilled);
}

#[test]
fn ignores_unknown_fields_and_recognises_unknown_kinds() {
    let text = r#"{"kind":"Ack","attempt":"u/1/n/1","stage":"Ended","fromTheFuture":true}"#;
    assert!(matches!(decode_text::<ToAgent>(text), Ok(ToAgent::Ack(_))));
    let text = r#"{"kind":"Drain","when":1}"#;
    assert!(decode_text::<ToAgent>(text).is_err());
    assert!(is_unknown_kind(text, &["Ack"]));
    assert!(!is_unknown_kind(r#"{"kind":"Ack"}"#, &["Ack"]) && !is_unknown_kind("[]", &["Ack"]));
}
