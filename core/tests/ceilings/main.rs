//! Ceilings: each limit, what a Task beyond it shows, approvals, and that no order of events freezes a target list beyond its
//! ceiling.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test")]

mod any_order;
mod approvals;
#[path = "../kstatus/mod.rs"]
mod kstatus;
mod limits;
#[path = "../world/mod.rs"]
mod world;

use kstatus::{Kstatus, Shown};
use proptest::prelude::*;
use sentinel_core::plan::{
    Amount, ControlPlane, LabelOperator, LabelSelector, OnRecreate, Requirement, Select, spec_hash,
};
use sentinel_core::reconcile::ceiling::approval::Approval;
use sentinel_core::reconcile::ceiling::{
    ApprovalRule, Awaiting, Ceiling, Ceilings, ProtectedNodes, Rules, Share, targets_digest,
};
use sentinel_core::reconcile::run::EarlierRun;
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_core::reconcile::{Action, Decision, Earlier};
use sentinel_core::time::Monotonic;
use sentinel_protocol::ids::{RunNumber, TaskUid};
use sentinel_protocol::request::{Environment, Sandbox};
use sentinel_protocol::requester::Requester;
use world::{World, node, plan, succeeded};

const HOUR: u64 = 3_600_000;

fn person(name: &str) -> Requester {
    Requester { user: name.into(), uid: Some(format!("uid-of-{name}").into()), groups: vec![] }
}

fn exists(key: &str) -> LabelSelector {
    let requirement = Requirement { key: key.to_owned(), operator: LabelOperator::Exists };
    LabelSelector { match_expressions: vec![requirement], ..LabelSelector::default() }
}

fn ceiling() -> Ceiling {
    Ceiling { name: "team-a".into(), namespaces: vec!["ops".into()], ..Ceiling::default() }
}

fn set(ceiling: Ceiling) -> Ceilings {
    let protected_nodes = vec![ProtectedNodes { name: "db".into(), selector: exists("db") }];
    Ceilings::Set(Rules { protected_nodes, ceilings: vec![ceiling] })
}

fn approval(count: u32) -> ApprovalRule {
    let above = Share { count: Some(count), percent: None };
    ApprovalRule { above, protected_nodes: true, valid_for_ms: HOUR }
}

/// Four nodes, and the last is protected; alice's Task.
fn world(ceiling: Ceiling) -> World {
    let mut world = World::new(plan(), &["a", "b", "c", "d"]);
    world.nodes.get_mut(&node("d")).unwrap().labels.insert("db".into(), String::new());
    world.ceilings = set(ceiling);
    world.consent.author = Some(person("alice"));
    world.consent.creator = Some(person("alice"));
    world
}

fn without_db(mut world: World) -> World {
    world.plan.targets.exclude = vec![node("d")];
    world
}

fn condition(decision: &Decision, kind: &str) -> Option<(String, String)> {
    let found = decision.status.conditions.iter().find(|condition| condition.kind == kind)?;
    Some((format!("{}/{}", found.status.as_str(), found.reason), found.message.clone()))
}

fn refused(world: &World) -> String {
    let decision = world.decide();
    assert_eq!(decision.freeze, None, "{:?}", decision.status);
    let (accepted, message) = condition(&decision, "Accepted").unwrap();
    assert_eq!(accepted, "False/CeilingExceeded");
    assert_eq!(shown(&decision).kstatus(), Kstatus::Failed);
    shown(&decision).claim().unwrap();
    message
}

fn begins(world: &World) -> Decision {
    let decision = world.decide();
    assert!(decision.freeze.is_some(), "{:?}", decision.status.conditions);
    decision
}

fn shown(decision: &Decision) -> Shown<'_> {
    let pairs = decision.status.conditions.iter().map(|one| (one.kind, one.status.as_str()));
    Shown { conditions: pairs.collect(), generation: 1, observed_generation: 1, deleting: false }
}

fn waits(world: &World) -> Awaiting {
    let decision = world.decide();
    assert_eq!(decision.freeze, None);
    let (suspended, _) = condition(&decision, "Suspended").unwrap();
    assert_eq!(suspended, "True/AwaitingApproval");
    assert_eq!(shown(&decision).kstatus(), Kstatus::InProgress);
    shown(&decision).claim().unwrap();
    *decision.status.awaiting.unwrap()
}

/// What `who` gives when they are shown what the Task waits for.
fn approve(world: &mut World, who: &str) {
    let awaiting = waits(world);
    let at = world.now().wall;
    world.consent.approval = Some(Approval {
        approver: person(who),
        run: awaiting.run,
        spec_hash: awaiting.spec_hash,
        targets_digest: awaiting.targets_digest,
        at,
        expires_at: at.plus(awaiting.valid_for_ms),
    });
}

fn has(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}
