//! Each field of a request is decided by a part of a rule, or is listed as harmless with a reason. A field that is added later fails
//! here, and does not compile in `Asked::of`, until its part is decided.

use std::collections::BTreeSet;

use crate::kit::{RULE, node, policy, refusal, requester, start};
use sentinel_policy::asked::{DECIDED, HARMLESS, NodeFacts};
use sentinel_protocol::request::{
    EnvVar, Environment, Leftovers, Program, ResourceLimits, RootFilesystem, Sandbox,
};
use sentinel_protocol::requester::RequestedBy;
use sentinel_protocol::secret::SecretKeyRef;
use sentinel_protocol::signed::Signed;
use sentinel_protocol::to_agent::Start;
use serde_json::Value;

/// A `Start` with each field.
fn full() -> Start {
    let mut full = start();
    full.request.env = vec![EnvVar { name: "A".into(), value: "b".into(), value_from: None }];
    full.request.user = Some("nobody".into());
    full.request.group = Some("nogroup".into());
    full.request.stdin = "in".into();
    full.request.stdin_from = Some(secret());
    full.secrets = Some(sentinel_protocol::secret::Sealed("AAAA".into()));
    full.request.output.merge = true;
    full.request.output.mask = false;
    full.request.limits = ResourceLimits {
        cpu_millis: Some(1),
        memory: Some(1),
        pids: Some(1),
        nofile: Some(1),
        core: Some(1),
    };
    full.request.leftovers = Leftovers::Keep;
    full.request.sandbox = Some(Sandbox::Restricted);
    full.request.root_filesystem = RootFilesystem::ReadOnly;
    full.deadlines.run_ms = Some(1);
    full.deadlines.idle_ms = Some(1);
    full.deadlines.total_ms = Some(1);
    full.offer = 1;
    full.trace = Some(sentinel_protocol::trace::TraceContext {
        parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap(),
        state: None,
    });
    full.signed = Some(Signed { statement: "{}".into(), signature: String::new() });
    let by = full.requested_by.as_mut().unwrap();
    by.rerun = Some(requester("bob", &[]));
    by.creator = Some(requester("carol", &[]));
    by.approver = Some(requester("dan", &[]));
    full
}

fn secret() -> SecretKeyRef {
    SecretKeyRef { name: "db".into(), key: "password".into(), optional: false }
}

/// The paths of all fields, without those inside of a decided or harmless one.
fn undecided(value: &Value, path: &str, known: &BTreeSet<&str>, seen: &mut BTreeSet<String>) -> Vec<String> {
    if known.contains(path) {
        seen.insert(path.to_owned());
        return Vec::new();
    }
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                undecided(value, &path, known, seen)
            })
            .collect(),
        _ => vec![path.to_owned()],
    }
}

#[test]
fn each_field_of_a_request_is_decided_or_harmless() {
    let known: BTreeSet<&str> = DECIDED.iter().chain(HARMLESS).map(|(path, _)| *path).collect();
    assert_eq!(known.len(), DECIDED.len() + HARMLESS.len(), "no field is in both lists");
    let mut seen = BTreeSet::new();
    let undecided = undecided(&serde_json::to_value(full()).unwrap(), "", &known, &mut seen);
    assert!(undecided.is_empty(), "neither a rule nor the list of harmless fields names {undecided:?}");
    let stale: Vec<_> = known.iter().filter(|path| !seen.contains(**path)).collect();
    assert!(stale.is_empty(), "these fields are not in a Start: {stale:?}");
    // The reflection finds a field that is new.
    let mut newer = serde_json::to_value(full()).unwrap();
    newer["request"]["hostname"] = "x".into();
    assert_eq!(super_undecided(&newer, &known), ["request.hostname"]);
}

fn super_undecided(value: &Value, known: &BTreeSet<&str>) -> Vec<String> {
    undecided(value, "", known, &mut BTreeSet::new())
}

#[test]
fn a_creator_or_approver_gives_no_right_and_takes_none() {
    let with = |who: &str| {
        let mut start = start();
        let by = start.requested_by.as_mut().unwrap();
        by.creator = Some(requester(who, &["sre"]));
        by.approver = Some(requester(who, &["sre"]));
        start
    };
    let allows = policy(RULE);
    assert_eq!(refusal(&allows, &with("mallory"), &node()), None, "they do not have to fit");
    let mut other = with("alice");
    other.requested_by.as_mut().unwrap().author = requester("mallory", &["sre"]);
    assert!(refusal(&allows, &other, &node()).is_some(), "they do not fit in the place of the author");
}

/// What makes each decided field differ from what the minimal rule allows, with what the node makes of it.
type Change = fn(&mut Start, &mut NodeFacts);

const CHANGES: &[(&str, &str, Change)] = &[
    ("task.namespace", "who", |start, _| start.task.namespace = "other".parse().unwrap()),
    ("requestedBy.author", "who", |start, _| start.requested_by = None),
    ("requestedBy.author", "who", |start, _| {
        start.requested_by = Some(RequestedBy::new(requester("mallory", &["sre"]), None));
    }),
    ("requestedBy.author", "who", |start, _| {
        start.requested_by = Some(RequestedBy::new(requester("alice", &["dev"]), None));
    }),
    ("requestedBy.rerun", "who", |start, _| {
        let rerun = Some(requester("mallory", &["sre"]));
        start.requested_by = Some(RequestedBy::new(requester("alice", &["sre"]), rerun));
    }),
    ("request.program", "what", |start, _| {
        start.request.program = Program::Command(vec!["df".into(), "-a".into()]);
    }),
    ("request.program", "what", |start, _| start.request.program = Program::Command(vec!["df".into()])),
    ("request.program", "what", |_, node| {
        node.program.as_mut().unwrap().resolved = "/usr/bin/busybox".into();
    }),
    ("request.program", "what", |_, node| node.program.as_mut().unwrap().requested = "/opt/df".into()),
    ("request.program", "what", |_, node| node.program = Err("there is none".into())),
    ("request.program", "what", |_, node| {
        node.program.as_mut().unwrap().replaceable = Some("/usr/bin can be written by user 1000".into());
    }),
    ("request.program", "what", |start, _| {
        let (interpreter, text) = ("/usr/bin/df".to_owned(), "-h".to_owned());
        start.request.program = Program::Script { interpreter, argument: None, text };
    }),
    ("request.user", "users", |_, node| node.identity.as_mut().unwrap().uid = 0),
    ("request.user", "users", |_, node| node.identity = Err("there is no such user".into())),
    ("request.group", "groups", |start, node| {
        start.request.group = Some("disk".into());
        node.identity.as_mut().unwrap().gid = 6;
    }),
    ("request.environment", "environments", |start, _| start.request.environment = Environment::Host),
    ("request.sandbox", "sandboxes", |start, _| start.request.sandbox = Some(Sandbox::Baseline)),
    ("request.sandbox", "sandboxes", |start, _| start.request.sandbox = Some(Sandbox::Privileged)),
    ("request.env", "env", |start, _| {
        start.request.env = vec![EnvVar { name: "LD_PRELOAD".into(), value: "/x".into(), value_from: None }];
    }),
    ("request.workingDir", "workingDirs", |start, _| start.request.working_dir = "/tmp".into()),
    ("request.workingDir", "workingDirs", |_, node| node.working_dir = Ok("/tmp".into())),
    ("request.workingDir", "workingDirs", |_, node| node.working_dir = Err("there is none".into())),
    ("request.umask", "umask", |start, _| start.request.umask = 0),
    ("request.env", "env", |start, _| {
        let value_from = Some(secret());
        start.request.env = vec![EnvVar { name: "A".into(), value: String::new(), value_from }];
    }),
    ("request.stdin", "stdin", |start, _| start.request.stdin = "x".into()),
    ("request.stdinFrom", "stdin", |start, _| start.request.stdin_from = Some(secret())),
    ("request.leftovers", "leftovers", |start, _| start.request.leftovers = Leftovers::Keep),
    ("request.limits", "limits", |start, _| start.request.limits.core = Some(1)),
    ("request.limits", "limits", |start, _| start.request.limits.nofile = Some(1 << 20)),
];

#[test]
fn a_minimal_rule_allows_no_other_value_of_a_decided_field() {
    let policy = policy(RULE);
    assert_eq!(refusal(&policy, &start(), &node()), None);
    for (field, part, change) in CHANGES {
        let (mut start, mut node) = (start(), node());
        change(&mut start, &mut node);
        let verdict = crate::kit::verdict(&policy, &start, &node);
        let parts: Vec<&str> =
            verdict.trace[0].differences.iter().map(|difference| difference.part).collect();
        assert!(parts.contains(part), "{field}: {parts:?} should have {part}\n{verdict}");
        assert!(refusal(&policy, &start, &node).is_some(), "{field}");
    }
    let changed: BTreeSet<&str> = CHANGES.iter().map(|(field, ..)| *field).collect();
    // A longer time is refused only where a rule limits it, a signature asked for only where a rule does: see
    // `limits_that_a_rule_asks_for_must_be_set` and `another_signature_does_not_count`.
    let rest: Vec<_> = DECIDED.iter().filter(|(field, _)| !changed.contains(field)).collect();
    assert_eq!(
        rest,
        [&("signed", "signature"), &("deadlines.runMs", "maxRun"), &("deadlines.totalMs", "maxRun")]
    );
    for (field, part, _) in CHANGES {
        assert!(DECIDED.contains(&(field, part)), "{field} is decided by {part}");
    }
}
