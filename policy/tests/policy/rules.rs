//! What rules match.

use crate::kit::{RULE, but, node, policy, refusal, requester, rules, start, verdict, with};

use proptest::prelude::*;
use sentinel_policy::asked::NodeFacts;
use sentinel_policy::document::Policy;
use sentinel_policy::what::sha256_hex;
use sentinel_protocol::request::{EnvVar, Environment, Program, Sandbox};
use sentinel_protocol::requester::{RequestedBy, Requester};
use sentinel_protocol::secret::SecretKeyRef;
use sentinel_protocol::to_agent::Start;

fn refused_by(text: &str) -> String {
    refusal(&policy(text), &start(), &node()).unwrap()
}

#[test]
fn a_policy_without_rules_refuses_everything() {
    let policy = policy("apiVersion: sentinelnode.dev/v1alpha1\nkind: NodePolicy\nrules: []\n");
    assert_eq!(refusal(&policy, &start(), &node()).unwrap(), "no-rule: no rule allows anything");
}

#[test]
fn the_first_rule_that_matches_decides() {
    let deny = "- {id: no-alice, effect: Deny, who: {users: [alice]}, description: alice has left}\n";
    let allow = RULE.split_once("rules:\n").unwrap().1;
    assert_eq!(refused_by(&rules(&format!("{deny}{allow}"))), "no-alice: alice has left");
    assert_eq!(refusal(&policy(&rules(&format!("{allow}{deny}"))), &start(), &node()), None);
}

#[test]
fn a_refusal_names_the_closest_rule_and_how_it_differs() {
    let mut start = start();
    start.request.working_dir = "/tmp".into();
    let node = NodeFacts { working_dir: Ok("/tmp".into()), ..node() };
    let far = "- {id: far, effect: Allow, who: {namespaces: [x]}, what: [{programs: [/bin/true]}], users: [root], environments: [Host]}\n";
    let near = RULE.split_once("rules:\n").unwrap().1;
    let why = refusal(&policy(&rules(&format!("{far}{near}"))), &start, &node).unwrap();
    assert_eq!(
        why,
        "no-rule: no rule allows it; the closest is disk-report: the working directory is \"/tmp\", and the rule allows \"/\" alone"
    );
}

#[test]
fn what_is_not_known_is_refused_by_both_kinds_of_rules() {
    let mut start = start();
    start.requested_by = None;
    assert!(refusal(&policy(RULE), &start, &node()).unwrap().contains("who asked is not known"));
    let deny = rules(
        "- {id: no-mallory, effect: Deny, who: {users: [mallory]}}\n- {id: all, effect: Allow, who: Anyone, what: AnyCommand, users: Any, environments: [Container]}\n",
    );
    assert!(refusal(&policy(&deny), &start, &node()).unwrap().starts_with("no-mallory"));
    start.requested_by = Some(RequestedBy::new(requester("bob", &[]), None));
    assert_eq!(refusal(&policy(&deny), &start, &node()), None);
    start.requested_by = Some(RequestedBy::new(requester("bob", &[]), Some(requester("mallory", &[]))));
    assert!(
        refusal(&policy(&deny), &start, &node()).unwrap().starts_with("no-mallory"),
        "one of those behind it"
    );
}

#[test]
fn a_link_to_another_program_needs_both_paths() {
    let mut node = node();
    node.program.as_mut().unwrap().requested = "/bin/df".into();
    let one = "what: [{programs: [/usr/bin/df], args: [-h]}]";
    let text = RULE.replace("what:\n  - {programs: [/usr/bin/df], args: [-h]}", one);
    assert!(
        refusal(&policy(&text), &start(), &node)
            .unwrap()
            .contains("which is /usr/bin/df without symbolic links")
    );
    let both = text.replace("[/usr/bin/df]", "[/bin/df, /usr/bin/df]");
    assert_eq!(refusal(&policy(&both), &start(), &node), None);
    let through = text.replace("[/usr/bin/df]", "[/bin/df], resolvesTo: [/usr/bin/df]");
    assert_eq!(refusal(&policy(&through), &start(), &node), None);
    assert!(
        refusal(&policy(&through), &start(), &crate::kit::node()).is_some(),
        "a target is not a name to ask for"
    );
    // A program of many names behaves as the name by which it is called.
    node.program.as_mut().unwrap().requested = "/bin/sh".into();
    assert!(refusal(&policy(&both), &start(), &node).is_some());
}

#[test]
fn a_changed_program_or_script_is_another_one() {
    let digest = sha256_hex(b"content");
    let text = RULE.replace("args: [-h]", &format!("args: [-h], sha256: [{digest}]"));
    let policy = policy(&text);
    assert!(policy.asks_for_digests("/usr/bin/df") && !policy.asks_for_digests("/usr/bin/du"));
    let mut node = node();
    assert!(refusal(&policy, &start(), &node).unwrap().contains("digest of /usr/bin/df is not known"));
    node.program.as_mut().unwrap().sha256 = Some(digest);
    assert_eq!(refusal(&policy, &start(), &node), None);
    node.program.as_mut().unwrap().sha256 = Some(sha256_hex(b"changed"));
    assert!(refusal(&policy, &start(), &node).unwrap().contains("has another content"));

    let item =
        format!("- {{script: {{interpreters: [/usr/bin/df], text: {{sha256: [{}]}}}}}}", sha256_hex(b"df\n"));
    let scripts = crate::kit::policy(&RULE.replace("- {programs: [/usr/bin/df], args: [-h]}", &item));
    let script = |text: &str, argument: Option<&str>| {
        let mut start = start();
        let interpreter = "/usr/bin/df".to_owned();
        start.request.program =
            Program::Script { interpreter, argument: argument.map(Into::into), text: text.into() };
        refusal(&scripts, &start, &crate::kit::node())
    };
    assert_eq!(script("df\n", None), None);
    assert!(script("df", None).unwrap().contains("the script is another one"));
    assert!(script("df\n", Some("-x")).unwrap().contains("the interpreter has the argument \"-x\""));
    assert!(
        refusal(&scripts, &start(), &crate::kit::node()).unwrap().contains("the request is not a script")
    );
}

#[test]
fn variables_are_allowed_by_name_and_value() {
    let policy = with("env: [{name: LANG}, {name: {glob: APP_*}, value: {oneOf: [on, 'off']}}]");
    let set = |name: &str, value: &str| {
        let mut start = start();
        start.request.env = vec![EnvVar { name: name.into(), value: value.into(), value_from: None }];
        refusal(&policy, &start, &node())
    };
    assert_eq!((set("LANG", "C"), set("APP_X", "off")), (None, None));
    assert!(set("APP_X", "maybe").is_some() && set("LANGUAGE", "C").is_some() && set("lang", "C").is_some());
    let secret = set("PASSWORD", "hunter2").unwrap();
    assert!(secret.contains("PASSWORD") && !secret.contains("hunter2"), "a refusal has no value: {secret}");
}

#[test]
fn a_secret_has_none_of_the_values_that_an_allow_rule_lists_and_any_that_a_deny_rule_lists() {
    let secret = || Some(SecretKeyRef { name: "db".into(), key: "password".into(), optional: false });
    let mut in_env = start();
    in_env.request.env = vec![EnvVar { name: "APP_X".into(), value: String::new(), value_from: secret() }];
    let mut in_stdin = start();
    in_stdin.request.stdin_from = secret();
    let allowed = |part: &str, start: &Start| refusal(&with(part), start, &node()).is_none();
    assert!(allowed("env: [{name: APP_X}]", &in_env));
    assert!(!allowed("env: [{name: APP_X, value: {glob: '**'}}]", &in_env));
    assert!(allowed("stdin: Any", &in_stdin));
    let digest = "0".repeat(64);
    for part in
        ["stdin: Empty".to_owned(), format!("stdin: {{sha256: ['{digest}']}}"), "umask: '022'".to_owned()]
    {
        assert!(!allowed(&part, &in_stdin), "{part}");
    }
    let all = "- {id: all, effect: Allow, who: Anyone, what: AnyCommand, users: Any, environments: [Container], env: [{name: {glob: '*'}}], stdin: Any}\n";
    let denied = |part: &str, start: &Start| {
        let text = rules(&format!("- {{id: no-x, effect: Deny, {part}}}\n{all}"));
        refusal(&policy(&text), start, &node()).is_some_and(|why| why.starts_with("no-x"))
    };
    assert!(denied("env: [{name: APP_X, value: evil}]", &in_env));
    assert!(!denied("env: [{name: OTHER, value: evil}]", &in_env));
    assert!(denied(&format!("stdin: {{sha256: ['{digest}']}}"), &in_stdin));
}

#[test]
fn limits_that_a_rule_asks_for_must_be_set() {
    let policy = with("limits: {cpu: '1', memory: 1Gi, pids: 10, nofile: 2048, core: 1Mi}\n  maxRun: 1h");
    let mut start = start();
    assert!(
        refusal(&policy, &start, &node())
            .unwrap()
            .contains("run.limits.cpu (thousandths) must be set, to at most 1000")
    );
    let limits = &mut start.request.limits;
    (limits.cpu_millis, limits.memory, limits.pids) = (Some(1000), Some(1 << 30), Some(10));
    assert!(
        refusal(&policy, &start, &node())
            .unwrap()
            .contains("timeouts.run or timeouts.total must be set, to at most 1h")
    );
    start.deadlines.total_ms = Some(3_600_000);
    assert_eq!(refusal(&policy, &start, &node()), None);
    start.deadlines.run_ms = Some(60_000);
    start.request.limits.nofile = Some(2048);
    start.request.limits.core = Some(1 << 20);
    assert_eq!(refusal(&policy, &start, &node()), None);
    start.request.limits.memory = Some((1 << 30) + 1);
    assert!(refusal(&policy, &start, &node()).is_some());
}

#[test]
fn users_are_compared_as_the_node_knows_them() {
    let mut node = node();
    for (users, allowed) in [
        ("[nobody]", true),
        ("['65534']", true),
        ("[nobody2]", false),
        ("AnyButRoot", true),
        ("Any", true),
        ("[root]", false),
    ] {
        assert_eq!(
            refusal(&but("users", &format!("users: {users}")), &start(), &node).is_none(),
            allowed,
            "{users}"
        );
    }
    let identity = node.identity.as_mut().unwrap();
    identity.groups = vec![0];
    assert!(
        refusal(&but("users", "users: AnyButRoot"), &start(), &node).unwrap().contains("root is not allowed")
    );
    node.identity.as_mut().unwrap().uid = 0;
    assert!(
        refusal(&but("users", "users: ['0']"), &start(), &node).is_none(),
        "by its number, whatever its name"
    );
}

#[test]
fn a_freer_sandbox_must_be_named_and_a_stricter_one_need_not() {
    let host = RULE.replace("[Container]", "[Host]");
    let refused = |text: &str, sandbox| {
        let mut start = start();
        start.request.environment = Environment::Host;
        start.request.sandbox = sandbox;
        refusal(&policy(text), &start, &node()).is_some()
    };
    assert!(!refused(&host, None) && !refused(&host, Some(Sandbox::Restricted)));
    assert!(refused(&host, Some(Sandbox::Privileged)));
    let named = format!("{host}  sandboxes: [Privileged]\n");
    assert!(!refused(&named, Some(Sandbox::Privileged)) && refused(&named, None), "exactly what is listed");
}

#[test]
fn hours_close_a_rule() {
    let at = |hours: &str| refusal(&with(&format!("hours: {hours}")), &start(), &node());
    assert_eq!(at("{days: [Mon], from: '09:00', to: '10:00', timeZone: UTC}"), None);
    let why = at("{days: [Mon], from: '09:00', to: '10:00', timeZone: Europe/Berlin}").unwrap();
    assert!(
        why.contains("it is Mon 10:00 in Europe/Berlin; the rule is for 09:00 to 10:00 on [Mon]"),
        "{why}"
    );
}

#[test]
fn the_verdict_is_explained_rule_by_rule() {
    let deny = "- {id: no-root, effect: Deny, users: [root]}\n";
    let text = verdict(
        &policy(&rules(&format!("{deny}{}", RULE.split_once("rules:\n").unwrap().1))),
        &start(),
        &node(),
    )
    .to_string();
    assert_eq!(
        text,
        "no-root (Deny): does not match\n    users: the command would run as nobody (65534); the rule is for root\n\
         disk-report (Allow): matches\nallowed by rule disk-report\n"
    );
}

/// Each let through what the rule meant: globs of Deny rules made exceptions, and the directory was compared by its name alone.
#[test]
fn a_deny_rule_cannot_be_talked_around() {
    let denied = |rule: &str, change: &dyn Fn(&mut Start, &mut NodeFacts)| {
        let all = "- {id: all, effect: Allow, who: Anyone, what: AnyCommand, users: Any, groups: Any, environments: [Container], \
                   env: [{name: {glob: '*'}}], workingDirs: [/backup, //backup/x, /backup/a/.., /link, {glob: '**'}]}\n";
        let policy = policy(&rules(&format!("- {{id: no, effect: Deny, {rule}}}\n{all}")));
        let (mut start, mut node) = (start(), node());
        change(&mut start, &mut node);
        refusal(&policy, &start, &node).is_some_and(|why| why.starts_with("no:"))
    };
    let directory = |named: &'static str, resolved: &'static str| {
        move |start: &mut Start, node: &mut NodeFacts| {
            start.request.working_dir = named.into();
            node.working_dir = Ok(resolved.into());
        }
    };
    let backup = "workingDirs: [/backup, {glob: '/backup/**'}]";
    for (named, resolved) in [
        ("/backup/a/..", "/backup"),
        ("//backup/x", "/backup/x"),
        ("/link", "/backup/x"),
        ("/backup/x", "/backup/x"),
    ] {
        assert!(denied(backup, &directory(named, resolved)), "{named}");
    }
    assert!(!denied(backup, &directory("/", "/")));
    let preload = |start: &mut Start, _: &mut NodeFacts| {
        let value = "/tmp/../tmp/x.so".into();
        start.request.env = vec![EnvVar { name: "LD_PRELOAD".into(), value, value_from: None }];
    };
    assert!(denied("env: [{name: LD_PRELOAD, value: {glob: '**'}}]", &preload));
    let options = |start: &mut Start, _: &mut NodeFacts| {
        start.request.program = Program::Command(vec!["df".into(), "-c".into(), "id".into()]);
    };
    assert!(denied("what: [{programs: [/usr/bin/df], args: [{rest: {glob: '**'}}]}]", &options));
    let further = |_: &mut Start, node: &mut NodeFacts| {
        let identity = node.identity.as_mut().unwrap();
        (identity.groups, identity.group_names) = (vec![42], vec!["shadow".into()]);
    };
    assert!(denied("groups: [shadow]", &further) && denied("groups: ['42']", &further));
    assert!(!denied("groups: [disk]", &further));
    // Another name of the same number, which is what the kernel knows.
    let alias = |of: u32| {
        move |_: &mut Start, node: &mut NodeFacts| {
            let identity = node.identity.as_mut().unwrap();
            (identity.uid, identity.user) = (of, Some("svc".into()));
            identity.user_names = vec!["alice".into(), "svc".into()];
            identity.group_names = vec!["staff".into(), "wheel".into()];
        }
    };
    for number in [1000, 0] {
        assert!(denied("users: [alice]", &alias(number)) && denied("groups: [wheel]", &alias(number)));
        assert!(!denied("users: [bob]", &alias(number)) && !denied("groups: [disk]", &alias(number)));
    }
    // Of so many groups some were left out on the way.
    let groups = |author: usize, rerun: usize| {
        let of = |user: &str, number| {
            let groups = (0..number).map(|n| format!("g{n}").as_str().into()).collect();
            Requester { user: user.into(), uid: None, groups }
        };
        let by = RequestedBy::new(of("carol", author), Some(of("dave", rerun)));
        move |start: &mut Start, _: &mut NodeFacts| start.requested_by = Some(by.clone())
    };
    let contractors = "who: {groups: [contractors]}";
    assert!(denied(contractors, &groups(128, 1)) && denied(contractors, &groups(1, 128)));
    assert!(!denied(contractors, &groups(127, 127)));
}

proptest! {
    /// A rule that mentions less never allows more, and never denies less.
    #[test]
    fn a_part_that_is_left_out_errs_towards_refusal(
        allow in any::<bool>(),
        left_out in 0_usize..7,
        environment in prop_oneof![Just(Environment::Host), Just(Environment::Container)],
        sandbox in proptest::option::of(prop_oneof![Just(Sandbox::Restricted), Just(Sandbox::Baseline), Just(Sandbox::Privileged)]),
        group in any::<bool>(), variable in any::<bool>(), directory in any::<bool>(), stdin in any::<bool>(), argument in any::<bool>(),
    ) {
        let parts = [
            "groups: Any", "sandboxes: [Restricted, Baseline, Privileged]", "env: [{name: {glob: '*'}, value: {glob: '**'}}]",
            "workingDirs: [{glob: '**'}]", "stdin: Any", "leftovers: [End, Keep]", "umask: '000'",
        ];
        let head = if allow {
            "- id: a\n  effect: Allow\n  who: Anyone\n  what: AnyCommand\n  users: Any\n  environments: [Host, Container]\n"
        } else {
            "- id: a\n  effect: Deny\n"
        };
        let usable = |index: &usize| allow || parts[*index] != "umask: '000'";
        let text = |skip: Option<usize>| {
            let kept = (0..parts.len()).filter(|index| Some(*index) != skip).filter(usable);
            let kept: Vec<&str> = kept.map(|index| parts[index]).collect();
            rules(&format!("{head}  {}\n", kept.join("\n  ")))
        };
        let mut start = start();
        start.request.environment = environment;
        start.request.sandbox = sandbox;
        start.request.group = group.then(|| "disk".into());
        if group { start.request.umask = 0; }
        if variable { start.request.env = vec![EnvVar { name: "A".into(), value: "b".into(), value_from: None }]; }
        if directory { start.request.working_dir = "/tmp".into(); }
        if stdin { start.request.stdin = "x".into(); }
        if argument { start.request.program = Program::Command(vec!["df".into(), "x".into()]); }
        let mut node = node();
        if directory { node.working_dir = Ok("/tmp".into()); }
        if group { node.identity.as_mut().unwrap().gid = 6; }
        let matches = |policy: &Policy| verdict(policy, &start, &node).trace[0].differences.is_empty();
        let (whole, less) = (matches(&policy(&text(None))), matches(&policy(&text(Some(left_out)))));
        if allow { prop_assert!(whole || !less); } else { prop_assert!(!whole || less); }
    }
}

/// The difference was that of the first item, which is about another program.
#[test]
fn what_differs_is_of_the_item_that_is_about_the_program() {
    let policy = policy(&rules(
        "- {id: r, effect: Allow, who: Anyone, users: [nobody], environments: [Container], \
         what: [{programs: [/usr/bin/df], args: [-k]}, {programs: [/usr/bin/echo], args: [x]}]}\n",
    ));
    let mut node = node();
    let mut start = start();
    start.request.program = Program::Command(vec!["/usr/bin/echo".into(), "y".into()]);
    let facts = node.program.as_mut().unwrap();
    (facts.requested, facts.resolved) = ("/usr/bin/echo".into(), "/usr/bin/echo".into());
    let why = refusal(&policy, &start, &node).unwrap();
    assert!(why.contains("argument 1 is \"y\""), "{why}");
    // Of a path that is written otherwise, that is what to change.
    node.program.as_mut().unwrap().requested = "/usr/bin/../bin/echo".into();
    let why = refusal(&policy, &start, &node).unwrap();
    assert!(why.contains("write it without `..`"), "{why}");
}
