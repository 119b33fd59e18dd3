//! Ceilings: each limit, what a Task beyond it shows, approvals, and that no order of events freezes a target list beyond its
//! ceiling.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test")]

mod kstatus;
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

#[test]
fn each_limit_refuses_with_its_name_and_figures() {
    let with = |change: &dyn Fn(&mut Ceiling)| {
        let mut one = ceiling();
        change(&mut one);
        without_db(world(one))
    };
    let share = |count, percent| Share { count, percent };
    has(
        &refused(&with(&|one| one.max_targets = share(Some(2), None))),
        &["ceiling team-a", "3 nodes", "maxTargets.count allows 2"],
    );
    begins(&with(&|one| one.max_targets = share(Some(3), None)));
    // 3 of 4 is 75 percent.
    has(
        &refused(&with(&|one| one.max_targets = share(None, Some(74)))),
        &["maxTargets.percent allows 74 % of the 4 nodes"],
    );
    begins(&with(&|one| one.max_targets = share(Some(3), Some(75))));
    has(&refused(&with(&|one| one.nodes = Some(exists("pool")))), &["nodes does not allow a, b, c"]);
    has(
        &refused(&with(&|one| one.environments = Some(vec![Environment::Host]))),
        &["spec.run.environment is Container, and environments allows only Host"],
    );
    has(
        &refused(&with(&|one| one.sandboxes = Some(vec![Sandbox::Baseline]))),
        &["spec.run.sandbox is Restricted, and sandboxes allows only Baseline"],
    );
    has(
        &refused(&with(&|one| one.users = Some(vec!["1000".into(), "root".into()]))),
        &["spec.run.user is nobody, and users allows only 1000, root"],
    );
    has(
        &refused(&with(&|one| one.namespaces = vec!["other".into()])),
        &["no ceiling covers the namespace ops"],
    );
    let both = with(&|one| {
        one.max_targets = share(Some(1), None);
        one.environments = Some(vec![Environment::Host]);
    });
    has(&refused(&both), &["maxTargets.count", "; spec.run.environment"]);
}

#[test]
fn protected_nodes_are_out_of_reach_unless_their_class_is_named() {
    has(&refused(&world(ceiling())), &["protectedNodes does not name the class db, in which are d"]);
    begins(&world(Ceiling { protected_nodes: vec!["db".into()], ..ceiling() }));
    begins(&without_db(world(ceiling())));
}

#[test]
fn a_node_that_does_not_exist_may_be_a_protected_one() {
    let mut by_name = world(ceiling());
    by_name.plan.targets.select = Select::Names(vec![node("a"), node("soon")]);
    has(&refused(&by_name), &["soon cannot be compared", "no such Node"]);
    by_name.ceilings = set(Ceiling { protected_nodes: vec!["db".into()], ..ceiling() });
    begins(&by_name);
    let rule = Some(approval(9));
    by_name.ceilings = set(Ceiling { protected_nodes: vec!["db".into()], approval: rule, ..ceiling() });
    has(&waits(&by_name).message, &["may be protected, soon"]);
}

#[test]
fn without_a_user_a_command_is_root_unless_it_is_restricted() {
    let allowed = |user: Option<&str>, sandbox, users: &[&str]| {
        let users = users.iter().map(|user| (*user).to_owned()).collect();
        let mut world = without_db(world(Ceiling { users: Some(users), ..ceiling() }));
        world.plan.request.user = user.map(str::to_owned);
        world.plan.request.sandbox = Some(sandbox);
        world.decide().freeze.is_some()
    };
    assert!(allowed(None, Sandbox::Baseline, &["root"]));
    assert!(allowed(None, Sandbox::Baseline, &["0"]));
    assert!(allowed(Some("0"), Sandbox::Baseline, &["root"]));
    assert!(!allowed(None, Sandbox::Baseline, &["nobody", "1000"]));
    assert!(allowed(None, Sandbox::Restricted, &["nobody"]));
    assert!(!allowed(None, Sandbox::Restricted, &["root"]));
    assert!(allowed(Some("1000"), Sandbox::Restricted, &["1000"]));
    assert!(!allowed(Some("01000"), Sandbox::Restricted, &["1000"]));
}

#[test]
fn the_first_ceiling_whose_namespaces_match_decides() {
    let of = |namespace: &str, name: &str, count| Ceiling {
        name: name.into(),
        namespaces: vec![namespace.into()],
        max_targets: Share { count: Some(count), percent: None },
        ..ceiling()
    };
    let decided = |ceilings: Vec<Ceiling>| {
        let mut world = without_db(world(ceiling()));
        world.ceilings = Ceilings::Set(Rules { protected_nodes: vec![], ceilings });
        let run = world.decide().status.recorded.run;
        run.map(|run| run.ceiling.unwrap().name)
    };
    for (pattern, covers) in [
        ("ops", true),
        ("op", false),
        ("o*", true),
        ("*s", true),
        ("o*p*s", true),
        ("*", true),
        ("o*x", false),
    ] {
        let name = decided(vec![of(pattern, "first", 9), of("*", "second", 9)]).unwrap();
        assert_eq!(name == "first", covers, "{pattern}");
    }
    assert_eq!(
        decided(vec![of("ops", "first", 1), of("*", "second", 9)]),
        None,
        "a later one widens nothing"
    );
}

#[test]
fn a_task_that_asks_for_more_at_once_gets_what_the_ceiling_allows() {
    let mut world = without_db(world(Ceiling { max_concurrency: Some(Amount::Count(1)), ..ceiling() }));
    assert_eq!(begins(&world).status.recorded.run.unwrap().ceiling.unwrap().max_concurrent, Some(1));
    let starts =
        |actions: &[Action]| actions.iter().filter(|action| matches!(action, Action::Start { .. })).count();
    assert_eq!(starts(&world.settle()), 1);
    // Ceilings that change touch nothing that runs, not even to let it run faster.
    world.ceilings = Ceilings::Off;
    assert_eq!(starts(&world.settle()), 0);
    world.report("a", succeeded());
    assert_eq!(starts(&world.settle()), 1);
    // Nor do ceilings that allow less.
    world.ceilings = set(Ceiling { max_targets: Share { count: Some(0), percent: None }, ..ceiling() });
    world.report("b", succeeded());
    assert_eq!(starts(&world.settle()), 1);
}

#[test]
fn nothing_begins_while_the_ceilings_cannot_be_read() {
    let mut world = without_db(world(ceiling()));
    world.ceilings = Ceilings::Unreadable("it is not YAML".into());
    let decision = world.decide();
    assert_eq!(decision.freeze, None);
    let (ready, message) = condition(&decision, "Ready").unwrap();
    assert_eq!(ready, "Unknown/CeilingsUnreadable");
    has(&message, &["it is not YAML"]);
    world.ceilings = set(ceiling());
    begins(&world);
}

#[test]
fn a_refused_rerun_keeps_the_last_result_and_begins_when_it_is_allowed() {
    let mut world = without_db(world(ceiling()));
    world.settle();
    for name in ["a", "b", "c"] {
        world.report(name, succeeded());
    }
    world.settle();
    world.ceilings = set(Ceiling { max_targets: Share { count: Some(1), percent: None }, ..ceiling() });
    world.requests.rerun = Some("again".into());
    world.plan.ttl_after_finished_ms = Some(0);
    refused(&world);
    let decision = world.decide();
    assert_eq!(decision.status.recorded.run.unwrap().number, RunNumber(1));
    assert!(!decision.actions.contains(&Action::DeleteTask), "another Run is due");
    world.ceilings = set(ceiling());
    assert_eq!(begins(&world).status.recorded.run.unwrap().number, RunNumber(2));
}

#[test]
fn a_run_above_the_threshold_waits_for_another_person() {
    let mut world = without_db(world(Ceiling { approval: Some(approval(2)), ..ceiling() }));
    let awaiting = waits(&world);
    assert_eq!((awaiting.targets, awaiting.run), (3, RunNumber(1)));
    assert_eq!(awaiting.targets_digest, targets_digest(&[node("a"), node("b"), node("c")]));
    has(
        &awaiting.message,
        &[
            "run 1 would run on 3 nodes (a, b, c)",
            "more than 2 (approval.above.count)",
            "alice",
            "sentinel approve -n ops t",
        ],
    );
    approve(&mut world, "bob");
    let run = begins(&world).status.recorded.run.unwrap();
    assert_eq!(run.approved_by, Some(person("bob")));
    let below = without_db(self::world(Ceiling { approval: Some(approval(3)), ..ceiling() }));
    assert_eq!(begins(&below).status.recorded.run.unwrap().approved_by, None);
}

#[test]
fn protected_nodes_need_an_approval_where_the_ceiling_asks_for_one() {
    let rule = Some(approval(100));
    let world = world(Ceiling { protected_nodes: vec!["db".into()], approval: rule, ..ceiling() });
    has(&waits(&world).message, &["protected nodes of the class db: d (approval.protectedNodes)"]);
}

#[test]
fn an_approval_counts_for_the_run_the_spec_and_the_nodes_that_it_was_given_for() {
    let fresh = || without_db(world(Ceiling { approval: Some(approval(1)), ..ceiling() }));
    let approved = || {
        let mut world = fresh();
        approve(&mut world, "bob");
        begins(&world);
        world
    };
    let mut edited = approved();
    edited.plan = world::changed(&edited.plan, "more");
    has(&waits(&edited).message, &["the spec has changed since bob approved it"]);
    let mut grown = approved();
    grown.nodes.insert(node("e"), NodeFacts::default());
    has(&waits(&grown).message, &["the nodes have changed since bob approved it"]);
    let mut late = approved();
    late.pass(HOUR);
    has(&waits(&late).message, &["the approval by bob has expired"]);
    let mut early = approved();
    // The clocks of two replicas differ, but not by more than five minutes.
    early.consent.approval.as_mut().unwrap().at = early.now().wall.plus(300_000);
    begins(&early);
    early.consent.approval.as_mut().unwrap().at = early.now().wall.plus(300_001);
    waits(&early);
    let mut endless = approved();
    endless.consent.approval.as_mut().unwrap().expires_at = endless.now().wall.plus(HOUR + 1);
    waits(&endless);
    // It is used up by its Run.
    let mut again = approved();
    again.settle();
    for name in ["a", "b", "c"] {
        again.report(name, succeeded());
    }
    again.settle();
    again.requests.rerun = Some("again".into());
    again.consent.rerun = Some(person("carol"));
    assert_eq!(waits(&again).run, RunNumber(2));
}

#[test]
fn who_is_behind_a_run_cannot_approve_it() {
    let fresh = || without_db(world(Ceiling { approval: Some(approval(1)), ..ceiling() }));
    let refused = |change: &dyn Fn(&mut World), part: &str| {
        let mut world = fresh();
        approve(&mut world, "bob");
        change(&mut world);
        has(&waits(&world).message, &[part]);
    };
    let by_bob = "bob is behind it and cannot approve it";
    refused(&|world| world.consent.author = Some(person("bob")), by_bob);
    refused(&|world| world.consent.creator = Some(person("bob")), by_bob);
    let renamed = Requester { user: "robert".into(), ..person("bob") };
    refused(&|world| world.consent.author = Some(renamed.clone()), by_bob);
    refused(&|world| world.consent.author = None, "it is unknown who asked for it");

    // Who asked to run it again, and only then.
    let mut again = without_db(world(ceiling()));
    again.settle();
    for name in ["a", "b", "c"] {
        again.report(name, succeeded());
    }
    again.settle();
    again.ceilings = set(Ceiling { approval: Some(approval(1)), ..ceiling() });
    again.requests.rerun = Some("again".into());
    has(&waits(&again).message, &["it is unknown who asked for it"]);
    again.consent.rerun = Some(person("bob"));
    approve(&mut again, "bob");
    has(&waits(&again).message, &[by_bob]);
    approve(&mut again, "carol");
    begins(&again);
}

/// Otherwise only the author would be behind the Run that follows the one that was stopped.
#[test]
fn a_rerun_that_is_taken_back_leaves_unknown_who_asked() {
    let end = |world: &mut World| {
        for name in ["a", "b", "c"] {
            world.report(name, succeeded());
        }
        world.settle();
    };
    for taken_back in [Some("w"), None] {
        let mut world = without_db(world(ceiling()));
        world.settle();
        end(&mut world);
        world.requests.rerun = Some("w".into());
        world.consent.rerun = Some(person("bob"));
        world.settle();
        world.ceilings = set(Ceiling { approval: Some(approval(1)), ..ceiling() });
        world.requests.rerun = Some("y".into());
        world.settle();
        world.requests.rerun = taken_back.map(str::to_owned);
        end(&mut world);
        approve(&mut world, "bob");
        has(&waits(&world).message, &["it is unknown who asked for it"]);
        world.plan = world::changed(&world.plan, "x");
        approve(&mut world, "bob");
        begins(&world);
    }
}

/// A Task that was made again runs what it ran before only because of the annotation.
#[test]
fn who_has_a_recreated_task_run_again_is_behind_it() {
    let mut world = without_db(world(Ceiling { approval: Some(approval(1)), ..ceiling() }));
    world.plan.on_recreate = OnRecreate::OncePerSpec;
    let run = EarlierRun {
        task: TaskUid::new("uid-0").unwrap(),
        number: RunNumber(1),
        spec_hash: world.plan.spec_hash.clone(),
        rerun_token: world.plan.rerun_token.clone(),
        finished_at: None,
        verdict: None,
    };
    world.earlier = Earlier::Ran { run, rerun: None };
    world.requests.rerun = Some("again".into());
    world.consent.rerun = Some(person("bob"));
    approve(&mut world, "bob");
    has(&waits(&world).message, &["bob is behind it and cannot approve it"]);
    approve(&mut world, "carol");
    begins(&world);
}

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
