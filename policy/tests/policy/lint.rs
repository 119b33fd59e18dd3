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
    assert!(people[0].contains("from the operator alone"));
    assert!(allow("[{programs: [/usr/bin/df]}]", "sandboxes: [Privileged]")[0].contains("without a sandbox"));
    let found = findings("- {id: stop, effect: Deny}\n- {id: later, effect: Deny, users: [root]}\n");
    assert_eq!(found, ["later: is never reached: rule stop matches every request"]);
}
