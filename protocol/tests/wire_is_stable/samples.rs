//! Messages of each kind.

use sentinel_protocol::audit::AuditHead;
use sentinel_protocol::exit::{Clock, ClockEnd, ExitDetails, Fate, LeftBehind, LeftProcess};
use sentinel_protocol::ids::{AttemptId, ChainId, Epoch, Sha256Hex, SpecHash, TaskRef};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::request::{
    Deadlines, EnvVar, Environment, Leftovers, OutputRules, Program, ResourceLimits, RootFilesystem,
    RunRequest, Sandbox,
};
use sentinel_protocol::requester::{RequestedBy, Requester};
use sentinel_protocol::secret::{Sealed, SecretKeyRef};
use sentinel_protocol::signed::Signed;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Start, ToAgent};
use sentinel_protocol::to_operator::{Ended, OutputSummary, Report, ReportedState, StreamSummary, Usage};
use sentinel_protocol::trace::TraceContext;

pub(crate) fn id() -> AttemptId {
    "0b6c1d1e-7a54-4b0e-9c1c-0a6f2f6a9e11/7/node-1.example/1".parse().unwrap()
}

pub(crate) fn spec_hash() -> SpecHash {
    SpecHash::new("0123456789abcdef".repeat(4)).unwrap()
}

pub(crate) fn request(program: Program) -> RunRequest {
    RunRequest {
        program,
        env: vec![EnvVar { name: "A".into(), value: "b".into(), value_from: None }],
        working_dir: "/".into(),
        user: Some("nobody".into()),
        group: Some("nogroup".into()),
        umask: 0o022,
        stdin: "in".into(),
        stdin_from: None,
        environment: Environment::Host,
        success_exit_codes: vec![0, 3],
        output: OutputRules {
            limit: 1 << 30,
            spool: 64 << 20,
            max_block_ms: 30_000,
            merge: false,
            mask: true,
        },
        limits: ResourceLimits::default(),
        leftovers: Leftovers::End,
        sandbox: None,
        root_filesystem: RootFilesystem::Writable,
    }
}

pub(crate) fn start(program: Program) -> ToAgent {
    ToAgent::Start(Box::new(Start {
        attempt: id(),
        spec_hash: spec_hash(),
        epoch: Epoch::from(5),
        task: TaskRef::new("ops", "disk-report").unwrap(),
        request: request(program),
        deadlines: Deadlines {
            start_ms: 300_000,
            run_ms: Some(600_000),
            idle_ms: None,
            total_ms: None,
            grace_ms: 10_000,
        },
        credit: 1 << 20,
        offer: 0,
        trace: None,
        requested_by: None,
        signed: None,
        secrets: None,
    }))
}

/// A `Start` of an Attempt that is part of a trace.
pub(crate) fn traced() -> ToAgent {
    let ToAgent::Start(mut start) = start(Program::Command(vec!["df".into()])) else { panic!("no Start") };
    start.trace = Some(TraceContext {
        parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap(),
        state: Some("vendor=value".to_owned().try_into().unwrap()),
    });
    ToAgent::Start(start)
}

/// A `Start` with every field that version 4 added, of a Run that was asked for again.
pub(crate) fn asked_for() -> ToAgent {
    let ToAgent::Start(mut start) = start(Program::Command(vec!["df".into()])) else { panic!("no Start") };
    start.request.sandbox = Some(Sandbox::Baseline);
    start.request.root_filesystem = RootFilesystem::ReadOnly;
    start.requested_by = Some(requested_by());
    start.signed = Some(Signed { statement: "{}".into(), signature: "-----BEGIN SSH SIGNATURE-----".into() });
    ToAgent::Start(start)
}

/// A `Start` of a Run whose creator and approver are known too.
pub(crate) fn approved() -> ToAgent {
    let ToAgent::Start(mut start) = asked_for() else { panic!("no Start") };
    let one = |user: &str| Some(Requester { user: user.into(), uid: None, groups: vec![] });
    let by = start.requested_by.as_mut().unwrap();
    (by.creator, by.approver) = (one("carol"), one("bob"));
    ToAgent::Start(start)
}

/// A `Start` with references to Secrets and their sealed values.
pub(crate) fn with_secrets() -> ToAgent {
    let ToAgent::Start(mut start) = start(Program::Command(vec!["df".into()])) else { panic!("no Start") };
    let reference = |key: &str, optional| SecretKeyRef { name: "db".into(), key: key.into(), optional };
    let value_from = Some(reference("password", false));
    start.request.env.push(EnvVar { name: "PASSWORD".into(), value: String::new(), value_from });
    start.request.stdin = String::new();
    start.request.stdin_from = Some(reference("key.pem", true));
    start.request.output.mask = false;
    start.secrets = Some(Sealed("c2VhbGVk".into()));
    ToAgent::Start(start)
}

pub(crate) fn requested_by() -> RequestedBy {
    let author = Requester {
        user: "alice".into(),
        uid: Some("7f1c".into()),
        groups: vec!["ops".into(), "system:authenticated".into()],
    };
    let rerun = Requester { user: "system:serviceaccount:ci:deploy".into(), uid: None, groups: vec![] };
    RequestedBy::new(author, Some(rerun))
}

/// A `Start` with every field that version 2 added.
pub(crate) fn limited() -> ToAgent {
    let ToAgent::Start(mut start) = start(Program::Command(vec!["df".into()])) else { panic!("no Start") };
    start.request.limits = ResourceLimits {
        cpu_millis: Some(500),
        memory: Some(256 << 20),
        pids: Some(64),
        ..ResourceLimits::default()
    };
    start.deadlines.idle_ms = Some(120_000);
    start.deadlines.total_ms = Some(3_600_000);
    ToAgent::Start(start)
}

/// A `Start` with every field that version 3 added.
pub(crate) fn merged() -> ToAgent {
    let program = Program::Script {
        interpreter: "/bin/bash".into(),
        argument: Some("-eu".into()),
        text: "#!/bin/bash -eu\ndf\n".into(),
    };
    let ToAgent::Start(mut start) = start(program) else { panic!("no Start") };
    start.request.output.merge = true;
    start.request.leftovers = Leftovers::Keep;
    start.request.limits =
        ResourceLimits { nofile: Some(4096), core: Some(1 << 20), ..ResourceLimits::default() };
    ToAgent::Start(start)
}

/// Exit details with every field set.
pub(crate) fn exit() -> ExitDetails {
    ExitDetails {
        code: Some(3),
        signal: Some(9),
        killed: true,
        clock: Some(ClockEnd { name: Clock::Run, after_ms: 10_000 }),
        left: Some(LeftBehind {
            count: 2,
            fate: Fate::Ended,
            processes: vec![LeftProcess { pid: 4712, name: "nginx".into() }],
        }),
        output_held_ms: Some(5_000),
        signed_by: None,
        masked: 0,
    }
}

pub(crate) fn ended(outcome: Outcome) -> Ended {
    let stream = |bytes| StreamSummary { bytes, dropped: 1, sha256: "ab".repeat(32) };
    Ended {
        outcome,
        started_at: Some(UnixMillis(1_700_000_000_000)),
        ended_at: UnixMillis(1_700_000_001_500),
        usage: Usage { user_ms: 10, system_ms: 20, max_rss: 4096 },
        output: OutputSummary {
            stdout: stream(10),
            stderr: stream(5),
            end: 15,
            blocked_ms: 7,
            held_open: true,
        },
        exit: ExitDetails::default(),
    }
}

pub(crate) fn report(state: ReportedState) -> Report {
    Report { attempt: id(), spec_hash: spec_hash(), state }
}

pub(crate) fn audit_head() -> AuditHead {
    let hash = Sha256Hex::new("c".repeat(64)).unwrap();
    AuditHead { chain: ChainId::new("chain-1").unwrap(), seq: 7, hash }
}
