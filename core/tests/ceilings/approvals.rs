//! Runs above a threshold: whose approval counts, and for what.

use super::*;

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
