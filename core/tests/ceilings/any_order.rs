//! No order of events lets a Run begin beyond its ceiling, or by an approval of those behind it.

use super::*;

/// What can happen to a Task, its ceiling, its approval and its cluster.
#[derive(Debug, Clone)]
enum Event {
    Ceiling { count: Option<u32>, percent: Option<u8>, above: Option<u32>, names_db: bool },
    Unreadable,
    Node { name: usize, db: bool },
    NoNode(usize),
    Edit { command: usize, by: usize },
    Select(Option<usize>),
    Rerun { token: usize, by: usize },
    Approve { by: usize, run: i8, spec: bool, targets: bool, valid_for: u64 },
    Pass(u64),
    Succeed,
    Reconcile,
}

fn event() -> impl Strategy<Value = Event> {
    let share = (prop::option::of(0..6_u32), prop::option::of(0..=100_u8));
    prop_oneof![
        1 => (share, prop::option::of(0..4_u32), any::<bool>()).prop_map(|((count, percent), above, names_db)| {
            Event::Ceiling { count, percent, above, names_db }
        }),
        1 => Just(Event::Unreadable),
        1 => (0..6_usize, prop::bool::weighted(0.2)).prop_map(|(name, db)| Event::Node { name, db }),
        1 => (0..6_usize).prop_map(Event::NoNode),
        1 => (0..3_usize, 0..3_usize).prop_map(|(command, by)| Event::Edit { command, by }),
        1 => prop::option::of(0..6_usize).prop_map(Event::Select),
        1 => (0..3_usize, 0..3_usize).prop_map(|(token, by)| Event::Rerun { token, by }),
        1 => (0..3_usize, -1..2_i8, any::<bool>(), any::<bool>(), 0..2 * HOUR).prop_map(
            |(by, run, spec, targets, valid_for)| Event::Approve { by, run, spec, targets, valid_for }
        ),
        5 => (0..3_usize).prop_map(|by| Event::Approve { by, run: 0, spec: true, targets: true, valid_for: HOUR }),
        1 => (0..HOUR).prop_map(Event::Pass),
        2 => Just(Event::Succeed),
        6 => Just(Event::Reconcile),
    ]
}

const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];

fn named(index: usize) -> String {
    ["a", "b", "c", "d", "e", "f"][index].to_owned()
}

/// What happens; the number of target lists that were frozen.
fn happen(world: &mut World, event: &Event) -> Result<usize, TestCaseError> {
    match event.clone() {
        Event::Ceiling { count, percent, above, names_db } => {
            world.ceilings = set(Ceiling {
                max_targets: Share { count, percent },
                protected_nodes: if names_db { vec!["db".into()] } else { vec![] },
                approval: above.map(approval),
                ..ceiling()
            });
        }
        Event::Unreadable => world.ceilings = Ceilings::Unreadable("it is not YAML".into()),
        Event::Node { name, db } => {
            let labels = if db { [("db".to_owned(), String::new())].into() } else { [].into() };
            world.nodes.insert(node(&named(name)), NodeFacts { labels });
            world.connect(&named(name));
        }
        Event::NoNode(name) => drop(world.nodes.remove(&node(&named(name)))),
        Event::Edit { command, by } => {
            world.plan = world::changed(&world.plan, ["x", "y", "z"][command]);
            world.consent.author = Some(person(PEOPLE[by]));
        }
        Event::Select(name) => {
            world.plan.targets.select =
                name.map_or(Select::All, |name| Select::Names(vec![node(&named(name)), node("a")]));
            world.plan.targets.control_plane = ControlPlane::Include;
            world.plan.spec_hash = spec_hash(&world.plan.targets, &world.plan.request);
        }
        Event::Rerun { token, by } => {
            world.requests.rerun = Some(format!("token-{token}"));
            world.consent.rerun = Some(person(PEOPLE[by]));
        }
        Event::Approve { by, run, spec, targets, valid_for } => {
            let Some(awaiting) = world.decide().status.awaiting else { return Ok(0) };
            let at = world.now().wall;
            let number = awaiting.run.0.saturating_add_signed(run.into());
            world.consent.approval = Some(Approval {
                approver: person(PEOPLE[by]),
                run: RunNumber(number),
                spec_hash: if spec { awaiting.spec_hash } else { world::changed(&world.plan, "w").spec_hash },
                targets_digest: if targets { awaiting.targets_digest } else { targets_digest(&[node("a")]) },
                at,
                expires_at: at.plus(valid_for),
            });
        }
        Event::Pass(millis) => world.pass(millis),
        Event::Succeed => {
            for target in world.frozen.clone() {
                if world.recorded.run.as_ref().is_some_and(|run| run.finished_at.is_none()) {
                    world.report(target.as_str(), succeeded());
                }
            }
        }
        Event::Reconcile => return reconcile(world),
    }
    Ok(0)
}

/// Some passes over the Task; the number of target lists that were frozen.
fn reconcile(world: &mut World) -> Result<usize, TestCaseError> {
    let mut frozen = 0;
    for _ in 0..4 {
        let decision = world.decide();
        frozen += usize::from(decision.freeze.is_some());
        is_allowed(world, &decision)?;
        world.step();
        world.now = Monotonic(world.now.0 + 1);
    }
    Ok(frozen)
}

/// A naive second reading of the rules, of a target list that is about to be frozen.
fn is_allowed(world: &World, decision: &Decision) -> Result<(), TestCaseError> {
    let Some(targets) = &decision.freeze else { return Ok(()) };
    let Ceilings::Set(rules) = &world.ceilings else {
        return Err(TestCaseError::fail("a Run began although the ceilings cannot be read"));
    };
    let one = &rules.ceilings[0];
    let share = targets.len() as f64 / world.nodes.len().max(1) as f64 * 100.0;
    prop_assert!(one.max_targets.count.is_none_or(|most| targets.len() <= most as usize));
    prop_assert!(one.max_targets.percent.is_none_or(|most| share <= f64::from(most) + 1e-9));
    let is_db = |name: &&_| world.nodes.get(*name).is_none_or(|node| node.labels.contains_key("db"));
    let protected = targets.iter().filter(is_db).count();
    prop_assert!(protected == 0 || !one.protected_nodes.is_empty());
    let Some(rule) = &one.approval else { return Ok(()) };
    if protected == 0 && targets.len() <= rule.above.count.unwrap() as usize {
        return Ok(());
    }
    let run = decision.status.recorded.run.as_ref().unwrap();
    let approval = world.consent.approval.as_ref().unwrap();
    prop_assert_eq!(Some(&approval.approver), run.approved_by.as_ref());
    prop_assert_ne!(Some(&approval.approver), world.consent.author.as_ref());
    prop_assert_ne!(&approval.approver, &person("alice"), "alice created the Task");
    let by_annotation = run.trigger.as_str() == "RerunToken";
    prop_assert!(!by_annotation || Some(&approval.approver) != world.consent.rerun.as_ref());
    prop_assert_eq!((&approval.spec_hash, approval.run), (&world.plan.spec_hash, run.number));
    prop_assert_eq!(&approval.targets_digest, &targets_digest(targets));
    prop_assert!(world.now().wall < approval.expires_at && approval.at.plus(HOUR) >= approval.expires_at);
    Ok(())
}

#[test]
fn no_run_begins_beyond_its_ceiling_and_no_author_approves_their_own() {
    let frozen = std::cell::Cell::new([0_usize; 2]);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(3_000));
    let outcome = runner.run(&prop::collection::vec(event(), 1..40), |events| {
        let mut world = world(Ceiling { approval: Some(approval(1)), ..ceiling() });
        for event in &events {
            let runs = happen(&mut world, event)?;
            let is_approved = world.recorded.run.as_ref().is_some_and(|run| run.approved_by.is_some());
            let [all, approved] = frozen.get();
            frozen.set([all + runs, approved + runs * usize::from(is_approved)]);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    // What never begins could not begin wrongly.
    let [all, approved] = frozen.get();
    assert!(all > 300 && approved > 50, "only {all} Runs began, {approved} of them approved");
}
