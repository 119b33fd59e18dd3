//! Verbs that help with many nodes, with the real binary against a real dev mode: folded output, reruns of what failed, and
//! checks without a change.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "fixtures of tests may panic")]

#[cfg(test)]
mod kit;

use std::process::{Command, Stdio};

use kit::{CliOutput, Dev, task, write};

/// What each node writes; two of them fail.
const SCRIPT: &str =
    "case $SENTINEL_NODE in sim-[34]) echo full >&2; exit 3;; sim-7) echo odd;; *) echo same;; esac";

#[test]
fn equal_outputs_are_shown_as_one_instead_of_each() {
    let dev = Dev::start(&["--nodes", "12"]);
    let folded = dev.run(&["run", "--all", "--fold", "--", "sh", "-c", SCRIPT]).exited(3);
    assert_eq!(folded.out.matches("same\n").count(), 1, "{}", folded.out);
    assert!(folded.out.starts_with("== sim-[3,4] (2 nodes): Failed"), "{}", folded.out);
    assert!(folded.out.contains("== sim-7: Succeeded\nodd\n"), "{}", folded.out);
    // Without a terminal, and where it is forbidden, the output is as it always was.
    for flags in [&["run", "--all"][..], &["run", "--all", "--fold=never"]] {
        let plain = dev.run(&[flags, &["--", "sh", "-c", SCRIPT]].concat()).exited(3);
        assert!(plain.out.matches("| same\n").count() >= 9 && !plain.out.contains("=="), "{}", plain.out);
    }
    dev.run(&["run", "--fold", "-o", "json", "--", "true"]).exited(2).printed("--output json");
}

/// The head of the next group stood on the last line of the one before.
#[test]
fn a_folded_output_without_a_last_newline_gets_one() {
    let dev = Dev::start(&["--nodes", "3"]);
    let script =
        "case $SENTINEL_NODE in sim-2) printf odd;; sim-3) printf 'err\\nor' >&2;; *) printf same;; esac";
    dev.run(&["run", "--all", "--name", "cut", "--", "sh", "-c", script]).exited(0);
    for arguments in [&["logs", "cut", "--fold"][..], &["run", "--all", "--fold", "--", "sh", "-c", script]] {
        let folded = dev.run(arguments).exited(0);
        assert!(folded.out.contains("\n\n== ") && folded.out.ends_with('\n'), "{folded:?}");
        for glued in ["odd==", "same==", "odd\n=="] {
            assert!(!folded.out.contains(glued), "{folded:?}");
        }
        assert!(folded.err.starts_with("err\nor\n"), "{folded:?}");
    }
}

#[test]
fn many_equal_outputs_are_shown_as_one_at_the_end_on_a_terminal() {
    let dev = Dev::start(&["--nodes", "12"]);
    let on_terminal = |flags: &str| {
        let line = format!("{} run --all {flags} -- echo same", env!("CARGO_BIN_EXE_sentinel"));
        let mut command = Command::new("script");
        command.env_remove("SENTINEL_NAMESPACE");
        command.args(["-qec", &line, "/dev/null"]).env("SENTINEL_SERVER", &dev.server).env("NO_COLOR", "1");
        let output = command.stdin(Stdio::null()).output().expect("script of util-linux is installed");
        CliOutput::of(&[&line], &output).exited(0).out
    };
    let shown = on_terminal("");
    assert!(shown.matches("| same").count() >= 12, "{shown}");
    assert!(shown.contains("nodes): Succeeded\r\nsame\r\n"), "{shown}");
    // It was cut to ten lines without a hint at the others.
    assert!(shown.contains("the last 10 lines of each; in full with: sentinel logs run-"), "{shown}");
    assert!(shown.contains(" --run 1 --fold"), "{shown}");
    let forbidden = on_terminal("--fold=never");
    assert!(!forbidden.contains("=="), "{forbidden}");
}

#[test]
fn messages_of_failed_nodes_are_folded() {
    let dev = Dev::start(&["--nodes", "12"]);
    let ran = dev.run(&["run", "--all", "--name", "bad", "--", "sh", "-c", "exit 3"]).exited(3);
    assert!(ran.err.contains("sim-[1-12]"), "{}", ran.err);
    let waited = dev.run(&["wait", "bad"]).exited(1);
    assert!(waited.err.contains("sim-[1-12]"), "{}", waited.err);
    let shown = dev.run(&["get", "task", "bad"]).exited(0);
    assert_eq!(shown.out.matches("sim-").count(), 1, "{}", shown.out);
    assert!(shown.out.contains("sim-[1-12]"), "{}", shown.out);
}

#[test]
fn failed_nodes_are_run_again_by_a_task_of_their_own() {
    let dev = Dev::start(&["--nodes", "4"]);
    let marks = tempfile::tempdir().unwrap();
    let script = format!(
        "test -e {0}/$SENTINEL_NODE || case $SENTINEL_NODE in sim-[34]) touch {0}/$SENTINEL_NODE; exit 3;; esac",
        marks.path().display()
    );
    dev.run(&["run", "--all", "--name", "web", "--sandbox", "privileged", "--", "sh", "-c", &script])
        .exited(3);
    let rerun = dev.run(&["rerun", "web", "--failed", "--follow"]).exited(0);
    assert!(
        rerun.err.contains("default/web-rerun-1 run 1: Complete, 2 of 2 nodes succeeded"),
        "{}",
        rerun.err
    );
    let made = dev.run(&["get", "task", "web-rerun-1", "-o", "json"]).exited(0).json();
    assert_eq!(made["spec"]["targets"]["nodeNames"], serde_json::json!(["sim-3", "sim-4"]));
    // Its second use on the same Run needed --name.
    dev.run(&["rerun", "web", "--failed"]).exited(0).printed("task/web-rerun-1-2 created for 2 nodes");
    dev.run(&["rerun", "web", "--failed"]).exited(0).printed("task/web-rerun-1-3 created for 2 nodes");
    dev.run(&["rerun", "web", "--failed", "--name", "again"]).exited(0).printed("created for 2 nodes");
    let taken = dev.run(&["rerun", "web", "--failed", "--name", "again"]).exited(1);
    taken.printed("Task default/again exists already").printed("--name NAME");
    dev.run(&["wait", "again"]).exited(0);
    dev.run(&["rerun", "again", "--failed"]).exited(0).printed("nothing to rerun");
}

/// Names of more than 63 characters were cut, so that two could become the same.
#[test]
fn failed_tasks_with_long_names_are_run_again_under_names_of_their_own() {
    let dev = Dev::start(&[]);
    let rerun = |name: &str| {
        dev.run(&["run", "--name", name, "--", "false"]).exited(1);
        let made = dev.run(&["rerun", name, "--failed"]).exited(0).printed("created for 1 node that did not");
        let made = made.out.strip_prefix("task/").unwrap().split(' ').next().unwrap().to_owned();
        dev.run(&["wait", &made]).exited(1);
        made
    };
    let long = format!("{}.{}", "a".repeat(150), "b".repeat(50));
    assert_eq!(rerun(&long), format!("{long}-rerun-1"));
    let longest = ["b", "c"].map(|end| format!("{}.{}", "a".repeat(201), end.repeat(51)));
    let made = longest.clone().map(|name| rerun(&name));
    assert!(made[0] != made[1] && made.iter().all(|name| name.len() <= 253), "{made:?}");
    dev.run(&["rerun", &longest[0], "--failed"]).exited(0).printed("-rerun-1-2 created");
}

#[test]
fn a_dry_run_of_apply_tells_what_would_happen() {
    let dev = Dev::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("t.yaml");
    write(&file, &task("tried", "{command: [\"true\"]}"));
    let path = file.to_str().unwrap();
    let tried = dev.run(&["apply", "--dry-run=server", path]).exited(0);
    assert_eq!(tried.out, "task/tried created (server dry run)\n");
    dev.run(&["get", "task", "tried"]).exited(1);
    let shown = dev.run(&["apply", "--dry-run", "-o", "json", path]).exited(0).json();
    assert_eq!(shown["spec"]["timeouts"]["grace"], "10s");
    dev.run(&["apply", path]).exited(0).printed("task/tried created");
    dev.run(&["apply", "--dry-run", path]).exited(0).printed("task/tried unchanged (server dry run)");
}
