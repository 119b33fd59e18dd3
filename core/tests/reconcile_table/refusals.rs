//! Refusals, and nodes that are busy.

use sentinel_core::plan::Amount;
use sentinel_core::reconcile::ledger::Applied;
use sentinel_core::reconcile::run::Verdict;
use sentinel_core::reconcile::{Action, Level, Notice};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Refused, ReportedState};

use super::message;
use super::world::{World, node, plan, started, succeeded};

/// Found by the convergence simulation: after a backup was restored, History recalled an Attempt of another spec under
/// the same number, and the agent's refusal was asked for again without end.
#[test]
fn refusal_ends_an_attempt_that_seemed_accepted() {
    let mut world = World::new(plan(), &["a"]);
    world.settle();
    world.report("a", ReportedState::Accepted);
    let refused = Refused {
        attempt: world.ledger.attempt(&node("a")),
        spec_hash: world.run().spec_hash.clone(),
        refusal: Refusal::SpecHashMismatch,
        offer: 0,
    };
    world.ledger.apply_refusal(&refused, UnixMillis(1));
    world.settle();
    assert_eq!(world.run().verdict, Some(Verdict::Failed));
    assert_eq!(world.outcome("a"), Some(Outcome::Refused { refusal: Refusal::SpecHashMismatch }));
}

fn busy(world: &World, name: &str, offer: u32) -> Refused {
    Refused {
        attempt: world.ledger.attempt(&node(name)),
        spec_hash: world.run().spec_hash.clone(),
        refusal: Refusal::TooManyAttempts { limit: 64, rule: None },
        offer,
    }
}

#[test]
fn busy_node_is_offered_again_with_backoff() {
    let mut world = World::new(plan(), &["a"]);
    assert_eq!(started(&world.settle()), ["a"]);
    for (offer, wait) in [(1, 500), (2, 1_000), (3, 2_000), (4, 4_000), (5, 5_000), (6, 5_000)] {
        assert_eq!(world.ledger.apply_refusal(&busy(&world, "a", offer), UnixMillis(1)), Applied::Changed);
        let decision = world.decide();
        assert_eq!(decision.wake_at, Some(world.now.plus(wait)));
        world.step();
        let line = &world.status.as_ref().unwrap().nodes.as_ref().unwrap()[0];
        assert_eq!(line.state, "WaitingForNode");
        assert!(line.message.contains("busy: 64 of 64 commands"), "{}", line.message);
        world.pass(wait);
        assert_eq!(started(&world.settle()), ["a"], "offer {}", offer + 1);
    }
    world.report("a", succeeded());
    world.settle();
    assert_eq!(world.run().verdict, Some(Verdict::Complete));
}

#[test]
fn busy_node_times_out_with_its_reason() {
    let mut world = World::new(plan(), &["a"]);
    world.settle();
    world.ledger.apply_refusal(&busy(&world, "a", 1), UnixMillis(1));
    world.pass(60_000);
    world.settle();
    let Some(Outcome::StartTimedOut { why: Some(why) }) = world.outcome("a") else {
        panic!("{:?}", world.outcome("a"))
    };
    assert!(why.contains("busy: 64 of 64 commands"), "{why}");
    assert!(message(&world, "a").starts_with("not started within 1m (timeouts.start): "));
}

#[test]
fn busy_node_does_not_delay_others() {
    let mut world = World::new(plan(), &["a", "b"]);
    world.plan.max_concurrent = Amount::Count(1);
    assert_eq!(started(&world.settle()), ["a"]);
    world.ledger.apply_refusal(&busy(&world, "a", 1), UnixMillis(1));
    assert_eq!(started(&world.settle()), ["b"]);
    world.requests.cancel = Some(world.run().number);
    world.settle();
    assert_eq!(world.outcome("a"), Some(Outcome::NotStarted));
}

#[test]
fn late_refusal_of_an_earlier_offer_is_ignored() {
    let mut world = World::new(plan(), &["a"]);
    world.settle();
    world.ledger.apply_refusal(&busy(&world, "a", 1), UnixMillis(1));
    world.pass(500);
    assert_eq!(started(&world.settle()), ["a"]);
    assert_eq!(world.ledger.apply_refusal(&busy(&world, "a", 1), UnixMillis(1)), Applied::Unchanged);
    assert!(world.ledger.execution(&node("a")).unwrap().is_active());
}

#[test]
fn permanent_refusal_is_final_whatever_its_reason() {
    let mut world = World::new(plan(), &["a"]);
    world.settle();
    world.ledger.apply_refusal(&busy(&world, "a", 0), UnixMillis(1));
    assert_eq!(
        world.outcome("a"),
        Some(Outcome::Refused { refusal: Refusal::TooManyAttempts { limit: 64, rule: None } })
    );
}

/// People who read events see the rule and the nodes, and once.
#[test]
fn the_event_of_a_refused_command_has_the_rules_of_the_nodes() {
    let mut world = World::new(plan(), &["a", "b", "c", "d", "e", "f"]);
    world.settle();
    let refuse = |world: &mut World, name: &str, rule: &str| {
        let refusal = Refusal::Policy { rule: rule.into(), why: Some("argument 1 is \"-a\"".into()) };
        let attempt = world.ledger.attempt(&node(name));
        let refused = Refused { attempt, spec_hash: world.run().spec_hash.clone(), refusal, offer: 0 };
        world.ledger.apply_refusal(&refused, UnixMillis(1));
    };
    for name in ["a", "b", "c", "d"] {
        refuse(&mut world, name, "no-shell");
    }
    refuse(&mut world, "e", "no-rule");
    assert_eq!(refusals(&world.settle()), Vec::<String>::new(), "the Run is not over");
    world.report("f", succeeded());
    let why = |rule: &str| format!("the node's policy forbids it (rule {rule}): argument 1 is \"-a\"");
    let expected = format!(
        "run 1: 5 of 6 nodes refused the command; a, b, c and 1 more: {}; e: {}",
        why("no-shell"),
        why("no-rule")
    );
    assert_eq!(refusals(&world.settle()), [expected]);
    assert_eq!(refusals(&world.settle()), Vec::<String>::new(), "a second time");
}

fn refusals(actions: &[Action]) -> Vec<String> {
    let note = |action: &Action| match action {
        Action::Publish(Notice { reason: "CommandRefused", note, level: Level::Warning }) => {
            Some(note.clone())
        }
        _ => None,
    };
    actions.iter().filter_map(note).collect()
}
