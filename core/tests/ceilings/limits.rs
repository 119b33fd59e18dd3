//! Each limit: what is beyond it, and what such a Task shows.

use super::*;

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
        &["spec.run.sandbox is Restricted, the default, and sandboxes allows only Baseline"],
    );
    has(
        &refused(&with(&|one| one.users = Some(vec!["1000".into(), "root".into()]))),
        &["spec.run.user is nobody, the default, and users allows only 1000, root"],
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
