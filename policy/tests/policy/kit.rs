//! A policy, a request and what a node knows about it, which fit each other until a test changes one.

use sentinel_policy::asked::{Asked, IdentityFacts, NodeFacts, ProgramFacts};
use sentinel_policy::document::Policy;
use sentinel_policy::verdict::{Decision, Verdict};
use sentinel_protocol::ids::{Epoch, SpecHash, TaskRef};
use sentinel_protocol::request::{Deadlines, Program, RunRequest};
use sentinel_protocol::requester::{RequestedBy, Requester};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::Start;

/// Monday, 2026-11-30, 09:00 in UTC.
pub(crate) const MONDAY_MORNING: UnixMillis = UnixMillis(1_796_029_200_000);

/// A rule that allows `start()` and nothing that differs from it in what counts.
pub(crate) const RULE: &str = "
apiVersion: sentinelnode.dev/v1alpha1
kind: NodePolicy
rules:
- id: disk-report
  effect: Allow
  who: {namespaces: [ops], users: [alice], groups: [sre]}
  what:
  - {programs: [/usr/bin/df], args: [-h]}
  users: [nobody]
  environments: [Container]
";

pub(crate) fn policy(text: &str) -> Policy {
    Policy::read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

/// The policy with something added to its last rule.
pub(crate) fn with(addition: &str) -> Policy {
    policy(&format!("{RULE}  {addition}\n"))
}

/// The policy with a part of its rule replaced.
pub(crate) fn but(part: &str, replacement: &str) -> Policy {
    let lines = RULE.lines().map(|line| {
        if line.trim_start().starts_with(&format!("{part}:")) {
            format!("  {replacement}")
        } else {
            line.to_owned()
        }
    });
    let text: Vec<String> = lines.collect();
    policy(&text.join("\n"))
}

pub(crate) fn requester(user: &str, groups: &[&str]) -> Requester {
    Requester { user: user.into(), uid: None, groups: groups.iter().map(|&group| group.into()).collect() }
}

pub(crate) fn start() -> Start {
    let start = Start::new(
        "u/1/n/1".parse().unwrap(),
        SpecHash::new("0".repeat(64)).unwrap(),
        Epoch::from(3),
        TaskRef::new("ops", "disk").unwrap(),
        RunRequest::new(Program::Command(vec!["df".into(), "-h".into()])),
        Deadlines { start_ms: 1, run_ms: None, idle_ms: None, total_ms: None, grace_ms: 1 },
    );
    let author = requester("alice", &["sre", "system:authenticated"]);
    Start { requested_by: Some(RequestedBy::new(author, None)), ..start }
}

pub(crate) fn node() -> NodeFacts {
    NodeFacts {
        name: Some("node-1".into()),
        working_dir: Ok("/".into()),
        program: Ok(ProgramFacts {
            requested: "/usr/bin/df".into(),
            resolved: "/usr/bin/df".into(),
            sha256: None,
            replaceable: None,
            also_named: vec![],
        }),
        identity: Ok(IdentityFacts {
            uid: 65534,
            user: Some("nobody".into()),
            user_names: vec!["nobody".into()],
            gid: 65534,
            group: Some("nogroup".into()),
            primary_gid: Some(65534),
            groups: vec![],
            group_names: vec![],
        }),
    }
}

pub(crate) fn verdict(policy: &Policy, start: &Start, node: &NodeFacts) -> Verdict {
    policy.verdict(&Asked::of(start, node, MONDAY_MORNING))
}

/// The reason of a refusal; `None` if the request is allowed.
pub(crate) fn refusal(policy: &Policy, start: &Start, node: &NodeFacts) -> Option<String> {
    match verdict(policy, start, node).decision {
        Decision::Allowed { .. } => None,
        Decision::Refused { rule, why } => Some(format!("{rule}: {why}")),
    }
}

/// A policy of rules without its head.
pub(crate) fn rules(text: &str) -> String {
    format!("apiVersion: sentinelnode.dev/v1alpha1\nkind: NodePolicy\nrules:\n{text}")
}
