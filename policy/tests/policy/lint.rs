//! What `lint` finds.

use crate::kit::policy;

fn findings(rules: &str) -> Vec<String> {
    let text = format!("apiVersion: sentinelnode.dev/v1alpha1\nkind: NodePolicy\nrules:\n{rules}");
    policy(&text).lint().iter().map(ToString::to_string).collect()
}

fn allow(what: &str, more: &str) -> Vec<String> {
    findings(&format!(
        "- id: r\n  effect: Allow\n  who: Anyone\n  what: {what}\n  users: [root]\n  environments: [Host]\n  {more}\n"
    ))
}

#[test]
fn a_program_that_runs_others_is_any_command_unless_its_arguments_are_written_out() {
    for program in [
        "/bin/sh",
        "/usr/bin/env",
        "/usr/bin/xargs",
        "/usr/bin/find",
        "/usr/bin/python3.12",
        "/bin/busybox",
        "/usr/bin/sudo",
        "/usr/bin/sort",
        "/usr/bin/perl5.36-x86_64-linux-gnu",
        "/usr/bin/bwrap",
        "/usr/bin/chrt",
        "/lib64/ld-linux-x86-64.so.2",
        "/lib/ld-musl-aarch64.so.1",
    ] {
        for args in ["Any", "[{rest: {glob: '*'}}]", "[-c, {glob: 'df *'}]"] {
            let found = allow(&format!("[{{programs: [{program}], args: {args}}}]"), "");
            assert!(
                found.iter().any(|line| line.contains("allows any command")),
                "{program} {args}: {found:?}"
            );
        }
        assert_eq!(
            allow(&format!("[{{programs: [{program}], args: [-c, df]}}]"), ""),
            Vec::<String>::new(),
            "{program}"
        );
    }
    assert_eq!(allow("[{programs: [/usr/bin/df], args: Any}]", ""), Vec::<String>::new());
    assert!(allow("[{programs: [/bin/sh]}]", "stdin: Any")[0].contains("standard input"));
    assert!(allow("AnyCommand", "")[0].contains("allows any command"));
    assert!(allow("[{script: {interpreters: [/bin/sh], text: Any}}]", "")[0].contains("any script"));
}

#[test]
fn a_program_that_writes_files_as_root_is_any_command() {
    assert!(allow("[{programs: [/usr/bin/tee], args: Any}]", "")[0].contains("replace files"));
    let found = findings(
        "- {id: r, effect: Allow, who: Anyone, what: [{programs: [/usr/bin/tee], args: Any}], users: AnyButRoot, environments: [Host]}\n",
    );
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn patterns_that_match_everything_or_look_like_a_glob_are_found() {
    assert!(allow("[{programs: [/usr/bin/df], args: [{glob: '**'}]}]", "")[0].contains("matches everything"));
    assert!(allow("[{programs: [/usr/bin/df], args: ['*.log']}]", "")[0].contains("`*` is a star"));
    assert!(allow("[{programs: [/tmp/df]}]", "")[0].contains("others than root"));
    let dirs = allow("[{programs: [/usr/bin/df]}]", "workingDirs: [{glob: '/**'}]");
    assert!(dirs[0].contains("`workingDirs` has a glob that matches everything"), "{dirs:?}");
    let who = findings(
        "- {id: r, effect: Allow, who: {namespaces: [{glob: '*'}]}, what: [{programs: [/usr/bin/df]}], users: [a], environments: [Host]}\n",
    );
    assert!(who[0].contains("`who` has a glob that matches everything"), "{who:?}");
}

#[test]
fn variables_that_make_programs_run_others_are_found() {
    for name in [
        "LD_PRELOAD",
        "PATH",
        "BASH_ENV",
        "PYTHONPATH",
        "{glob: '*'}",
        "{glob: 'LD*'}",
        "{glob: 'GIT_SSH*'}",
        "{oneOf: [A, PATH]}",
    ] {
        let found = allow("[{programs: [/usr/bin/df]}]", &format!("env: [{{name: {name}}}]"));
        assert!(found[0].contains("run any command"), "{name}: {found:?}");
    }
    for variable in
        ["{name: LANG}", "{name: {glob: 'APP_*'}}", "{name: PATH, value: /usr/bin}", "{name: PATHWAY}"]
    {
        assert_eq!(
            allow("[{programs: [/usr/bin/df]}]", &format!("env: [{variable}]")),
            Vec::<String>::new(),
            "{variable}"
        );
    }
}

#[test]
fn rules_about_people_privileged_sandboxes_and_rules_that_are_never_reached_are_found() {
    let people = findings(
        "- {id: r, effect: Allow, who: {groups: [sre]}, what: [{programs: [/usr/bin/df]}], users: [nobody], environments: [Container]}\n",
    );
    assert!(people[0].contains("without the admission webhook") && people[0].contains("allows nothing"));
    assert!(people[1].contains("from the operator alone"));
    let people = findings("- {id: r, effect: Deny, who: {users: [bob]}}\n");
    assert!(people[0].contains("without the admission webhook") && people[0].contains("refuses everyone"));
    assert!(allow("[{programs: [/usr/bin/df]}]", "sandboxes: [Privileged]")[0].contains("without a sandbox"));
    let found = findings("- {id: stop, effect: Deny}\n- {id: later, effect: Deny, users: [root]}\n");
    assert_eq!(found, ["later: is never reached: rule stop matches every request that it matches"]);
}

/// Whether the second rule is found to be never reached; each has what is usual and this.
fn is_shadowed(first: (&str, &str), second: (&str, &str)) -> bool {
    let rule = |id: &str, (effect, parts): (&str, &str)| {
        let usual =
            if effect == "Allow" { "who: Anyone, users: [nobody], environments: [Container]" } else { "" };
        let parts: Vec<&str> = [usual, parts].into_iter().filter(|part| !part.is_empty()).collect();
        format!("- {{id: {id}, effect: {effect}, {}}}\n", parts.join(", "))
    };
    let found = findings(&(rule("first", first) + &rule("second", second)));
    let is_about =
        |line: &String| *line == "second: is never reached: rule first matches every request that it matches";
    assert!(found.iter().all(|line| is_about(line) || !line.contains("never reached")), "{found:?}");
    found.iter().any(is_about)
}

#[test]
fn a_rule_whose_requests_an_earlier_one_matches_is_found_and_no_other() {
    const DF: &str = "what: [{programs: [/usr/bin/df]}]";
    const BOTH: &str = "what: [{programs: [/usr/bin/df]}, {programs: [/usr/bin/id]}]";
    let with = |what: &str, more: &str| format!("{what}, {more}");
    for more in ["", "maxRun: 5m", "hours: {from: '08:00', to: '18:00', timeZone: UTC}", "concurrent: 1"] {
        let second = if more.is_empty() { DF.to_owned() } else { with(DF, more) };
        assert!(is_shadowed(("Allow", BOTH), ("Allow", &second)), "{second}");
        assert!(
            more.is_empty() || more == "concurrent: 1" || !is_shadowed(("Allow", &second), ("Allow", DF)),
            "{second}"
        );
    }
    assert!(is_shadowed(("Allow", "what: AnyCommand"), ("Allow", DF)));
    assert!(!is_shadowed(("Allow", DF), ("Allow", BOTH)));
    // What an Allow rule does not mention, it does not allow.
    for more in [
        "stdin: Any",
        "env: [{name: A}]",
        "workingDirs: [/x]",
        "umask: '077'",
        "groups: Any",
        "leftovers: [Keep]",
    ] {
        assert!(!is_shadowed(("Allow", DF), ("Allow", &with(DF, more))), "{more}");
    }
    assert!(is_shadowed(
        ("Allow", &with(DF, "env: [{name: A}, {name: B}]")),
        ("Allow", &with(DF, "env: [{name: B}]"))
    ));
    assert!(is_shadowed(("Allow", &with(DF, "stdin: Any")), ("Allow", &with(DF, "stdin: Empty"))));
    assert!(!is_shadowed(("Allow", &with(DF, "workingDirs: [/x]")), ("Allow", DF)));
    // A Deny rule matches more than an Allow rule with the same parts, and never less.
    assert!(is_shadowed(("Deny", DF), ("Allow", DF)));
    assert!(!is_shadowed(("Allow", DF), ("Deny", DF)));
    assert!(is_shadowed(("Deny", "environments: [Host, Container]"), ("Deny", "environments: [Host]")));
    assert!(!is_shadowed(("Deny", "environments: [Host]"), ("Deny", "users: [root]")));
    assert!(is_shadowed(("Deny", "env: [{name: A}]"), ("Deny", "env: [{name: A}], users: [root]")));
    // Without variables the Deny rule does not match.
    assert!(!is_shadowed(("Deny", "env: [{name: A}]"), ("Allow", &with(DF, "env: [{name: A}]"))));
}
