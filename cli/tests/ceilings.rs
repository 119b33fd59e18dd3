//! `sentinel ceilings`, `sentinel approve`, and `sentinel dev --ceilings`.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and its standard error is its own"
)]

#[cfg(test)]
mod kit;

use std::fs;
use std::path::{Path, PathBuf};

use kit::{CliOutput, Dev, sentinel};

const HEAD: &str = "apiVersion: sentinelnode.dev/v1alpha1\nkind: Ceilings\n";

fn file(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("ceilings.yaml");
    fs::write(&path, format!("{HEAD}{text}\n")).unwrap();
    path
}

fn lint(words: &[&str]) -> CliOutput {
    let words = [&["ceilings", "lint"][..], words].concat();
    CliOutput::of(&words, &sentinel().args(&words).output().unwrap())
}

#[test]
fn lint_has_every_problem_of_a_file_and_what_was_probably_not_meant() {
    let directory = tempfile::tempdir().unwrap();
    let name = |path: &PathBuf| path.display().to_string();
    let good =
        name(&file(directory.path(), "ceilings: [{name: a, namespaces: [b], environments: [Container]}]"));
    lint(&["--strict", &good]).exited(0).printed("nothing found");
    let free = name(&file(directory.path(), "ceilings: [{name: a, namespaces: ['*']}]"));
    lint(&[&free]).exited(0).printed("ceiling a: it limits nothing");
    lint(&["--strict", &free]).exited(1);
    let bad = name(&file(
        directory.path(),
        "ceilings: [{name: a, namespaces: ['*'], maxTargets: {percent: 200}, users: []}]",
    ));
    let output = lint(&[&bad]).exited(2);
    for part in ["ceilings[0].maxTargets.percent is \"200\"", "ceilings[0].users must not be empty"] {
        assert!(output.err.contains(part), "{part:?} is not in {}", output.err);
    }
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/ceilings/ceilings.yaml");
    lint(&["--strict", example]).exited(0);
}

#[test]
fn dev_mode_does_not_start_with_ceilings_that_cannot_be_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "ceilings: {").display().to_string();
    let words = ["dev", "--listen", "127.0.0.1:0", "--ceilings", &path];
    let output = CliOutput::of(&words, &sentinel().args(words).output().unwrap()).exited(2);
    assert!(output.err.contains("--ceilings: the ceilings cannot be read"), "{}", output.err);
}

#[test]
fn what_is_beyond_a_ceiling_is_refused_and_no_user_approves_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let two = "maxTargets: {count: 3}, approval: {above: {count: 1}, validFor: 1h}";
    let path = file(directory.path(), &format!("ceilings: [{{name: all, namespaces: ['*'], {two}}}]"));
    let dev = Dev::start(&["--nodes", "3", "--ceilings", &path.display().to_string()]);
    let beyond = dev.run(&["run", "--all", "--name", "far", "--", "true"]);
    let shown = format!("{}{}", beyond.out, beyond.err);
    assert_ne!(beyond.code, 0, "{shown}");
    assert!(shown.contains("it would run on 4 nodes, and maxTargets.count allows 3"), "{shown}");
    // One node needs no approval.
    let nodes = dev.run(&["get", "nodes", "-o", "name"]).exited(0).out;
    let names: Vec<&str> = nodes.lines().map(|line| line.trim_start_matches("node/")).collect();
    dev.run(&["run", "--node", names[0], "--", "true"]).exited(0);

    let task = kit::task("two", "{command: [\"true\"]}");
    let manifest = directory.path().join("task.yaml");
    let targets = format!("targets: {{nodeNames: [{}, {}]}}", names[0], names[1]);
    fs::write(&manifest, task.replace("targets: {all: true}", &targets)).unwrap();
    dev.run(&["apply", &manifest.display().to_string()]).exited(0);
    let waiting = dev.wait_until(&["get", "task", "two"], |shown| shown.out.contains("AwaitingApproval"));
    assert!(waiting.out.contains("sentinel approve -n default two"), "{}", waiting.out);
    // Standard input is not a terminal here.
    let unasked = dev.run(&["approve", "two"]).exited(2);
    assert!(unasked.err.contains("--yes"), "{}", unasked.err);
    let own = dev.run(&["approve", "two", "--yes"]).exited(1);
    assert!(own.err.contains("another person has to approve it"), "{}", own.err);
    for part in ["command:", "Nodes:", "2 nodes", "Requested by:"] {
        assert!(own.out.contains(part), "{part:?} is not in {}", own.out);
    }
    dev.run(&["approve", "far", "--yes"]).exited(1);
    // Without the limit it runs.
    file(directory.path(), "ceilings: [{name: all, namespaces: ['*']}]");
    dev.run(&["wait", "two", "--for", "complete", "--timeout", "50s"]).exited(0);
}
