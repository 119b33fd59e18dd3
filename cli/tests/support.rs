//! `check` and `report` with dev mode, and the program as a plugin of kubectl.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "fixtures of tests may panic")]

#[cfg(test)]
mod kit;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use kit::{CliOutput, Dev, sentinel};
use serde_json::Value;

/// What no file of a report may hold.
const CANARY: &str = "canary7f3a91";

fn checks(ran: &CliOutput) -> BTreeMap<String, Vec<String>> {
    let all: Value = serde_json::from_str(&ran.out).unwrap();
    let mut results: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in all["checks"].as_array().unwrap() {
        let text = |name: &str| one[name].as_str().unwrap().to_owned();
        results.entry(text("check")).or_default().push(text("result"));
    }
    results
}

#[test]
fn check_runs_a_task_to_its_end_and_deletes_it() {
    let dev = Dev::start(&[]);
    let ran = dev.run(&["check", "--task", "-o", "json"]).exited(0);
    let results = checks(&ran);
    for check in ["api", "connections", "history", "task", "output"] {
        assert!(results[check].iter().all(|result| result == "ok"), "{check}: {}", ran.out);
    }
    assert!(ran.out.contains("its output is kept: hello"), "{}", ran.out);
    dev.wait_until(&["get", "tasks", "-o", "name"], |ran| ran.out.is_empty());
    let failed = dev.run(&["check", "--task", "--", "sh", "-c", "exit 3"]).exited(1);
    assert!(failed.out.contains("FAIL  task") && failed.out.contains("exited with code 3"), "{}", failed.out);
}

#[test]
fn check_of_a_server_that_does_not_answer_fails_with_advice() {
    let mut command = sentinel();
    let ran = command.args(["--server", "http://127.0.0.1:1", "check"]).output().unwrap();
    let ran = CliOutput::of(&["check"], &ran).exited(1);
    assert!(ran.out.contains("FAIL  api") && ran.out.contains("sentinel dev"), "{}", ran.out);
}

fn files(archive: &Path) -> BTreeMap<String, String> {
    let file = std::fs::File::open(archive).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(entry.path().unwrap().to_string_lossy().into_owned(), text);
    }
    files
}

#[test]
fn report_has_no_secret_of_a_task() {
    let dev = Dev::start(&[]);
    let env = format!("PLAIN={CANARY}");
    let run = ["run", "--name", "secretive", "--stdin", "--env", &env, "--"];
    let command = ["sh", "-c", "cat > /dev/null; echo \"$PLAIN $1\"", "sh", CANARY];
    let ran = dev.run_with(&[&run[..], &command].concat(), CANARY.as_bytes()).exited(0);
    assert!(ran.out.contains(CANARY), "its output has it: {}", ran.out);
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script.sh");
    std::fs::write(&script, format!("#!/bin/sh\nfalse {CANARY}\n")).unwrap();
    dev.run(&["run", "--name", "scripted", "--script", &script.to_string_lossy()]).exited(1);
    let report = folder.path().join("report.tar.gz");
    dev.run(&["report", "-f", &report.to_string_lossy()]).exited(0);
    let files = files(&report);
    for (name, text) in &files {
        assert!(!text.contains(CANARY), "{name} has the secret:\n{text}");
    }
    for name in [
        "MANIFEST.md",
        "check.json",
        "tasks/default/secretive.json",
        "tasks/default/scripted.json",
        "runs.json",
    ] {
        assert!(files.contains_key(&format!("sentinel-report/{name}")), "{name}: {:?}", files.keys());
    }
    let task: Value = serde_json::from_str(&files["sentinel-report/tasks/default/secretive.json"]).unwrap();
    assert_eq!(
        (&task["spec"]["run"]["command"][0], &task["status"]["phase"]),
        (&"sh".into(), &"Succeeded".into())
    );
}

#[test]
fn the_plugin_names_itself_as_kubectl_calls_it() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-sentinel");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sentinel"), &plugin).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&plugin);
        command.env_remove("KUBECONFIG").env_remove("SENTINEL_SERVER").args(arguments);
        CliOutput::of(arguments, &command.output().unwrap())
    };
    let help = run(&["run", "--help"]).exited(0);
    assert!(help.out.contains("Usage: kubectl sentinel run"), "{}", help.out);
    assert!(help.out.lines().all(|line| !line.starts_with("  sentinel ")), "{}", help.out);
    assert!(help.out.contains("  kubectl sentinel run"), "{}", help.out);
    let failed = run(&["--server", "http://127.0.0.1:1", "nodes"]).exited(1);
    assert!(failed.err.contains("kubectl sentinel dev"), "{}", failed.err);
}

#[test]
fn kubectl_is_offered_candidates_by_the_script() {
    let dev = Dev::start(&["--nodes", "2"]);
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sentinel"), folder.path().join("kubectl-sentinel"))
        .unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/kubectl_complete-sentinel");
    let offered = |words: &[&str]| {
        let mut command = Command::new(&script);
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("SENTINEL_SERVER", &dev.server).args(words);
        CliOutput::of(words, &command.output().unwrap()).exited(0).out
    };
    assert_eq!(offered(&["run", "--node", "sim-"]), "sim-1\nsim-2\n:4\n");
    assert_eq!(offered(&["rer"]), "rerun\n:4\n");
}
