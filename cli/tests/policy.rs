//! `sentinel policy` and `sentinel dev --policy`.
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
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use kit::Dev;

const POLICY: &str = "apiVersion: sentinelnode.dev/v1alpha1
kind: NodePolicy
rules:
- id: talk
  effect: Allow
  who: {namespaces: [default], users: [alice]}
  what: [{programs: [/bin/echo], resolvesTo: [/usr/bin/echo], args: [hi]}]
  users: Any
  environments: [Container]
";

const TASK: &str = "apiVersion: sentinelnode.dev/v1alpha1
kind: Task
metadata: {name: talk}
spec:
  targets: {all: true}
  run: {command: [/bin/echo, hi]}
";

fn sentinel(directory: &Path, words: &[&str]) -> Output {
    kit::sentinel().current_dir(directory).args(words).output().unwrap()
}

fn files() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("policy.yaml"), POLICY).unwrap();
    fs::write(directory.path().join("task.yaml"), TASK).unwrap();
    let path = directory.path().to_owned();
    (directory, path)
}

#[test]
fn explains_a_verdict_rule_by_rule_and_exits_with_it() {
    let (_kept, directory) = files();
    let explain = |more: &[&str]| {
        let words = [&["policy", "explain", "policy.yaml", "task.yaml"][..], more].concat();
        let output = sentinel(&directory, &words);
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(
        explain(&["--user", "alice"]),
        (0, "talk (Allow): matches\nallowed by rule talk\n".to_owned())
    );
    let (code, text) = explain(&["--user", "bob"]);
    assert!(code == 1 && text.contains("who: \"bob\" asked; allowed are the users \"alice\""), "{text}");
    let (code, text) = explain(&[]);
    assert!(code == 1 && text.contains("who asked is not known"), "{text}");
}

#[test]
fn an_invalid_file_is_a_usage_error() {
    let (_kept, directory) = files();
    fs::write(directory.join("bad.yaml"), "rules: [").unwrap();
    for words in [
        ["policy", "explain", "bad.yaml", "task.yaml"],
        ["policy", "explain", "policy.yaml", "policy.yaml"],
        ["policy", "explain", "missing.yaml", "task.yaml"],
    ] {
        let output = sentinel(&directory, &words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(sentinel(&directory, &["policy", "lint", "bad.yaml"]).status.code(), Some(2));
}

#[test]
fn lint_fails_for_findings_only_if_it_is_asked_to() {
    let (_kept, directory) = files();
    let found = sentinel(&directory, &["policy", "lint", "policy.yaml"]);
    assert_eq!(found.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&found.stdout).contains("from the operator alone"));
    assert_eq!(sentinel(&directory, &["policy", "lint", "--strict", "policy.yaml"]).status.code(), Some(1));
}

/// What `request` prints is what an agent gets, and what `node-agent policy test` reads.
#[test]
fn a_request_has_the_defaults_of_the_definition() {
    let (_kept, directory) = files();
    let output =
        sentinel(&directory, &["policy", "request", "task.yaml", "--user", "alice", "--group", "sre"]);
    let start: sentinel_protocol::to_agent::Start = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((start.request.umask, start.request.working_dir.as_str()), (0o022, "/"));
    let author = start.requested_by.unwrap().author;
    assert_eq!((author.user.as_str(), author.groups.len()), ("alice", 1));
}

/// Why a command was refused is where people read how it ended.
#[test]
fn a_refused_command_shows_the_rule_and_a_change_of_the_policy_counts_at_once() {
    let (_kept, directory) = files();
    let policy = directory.join("policy.yaml");
    let dev = Dev::start(&["--policy", policy.to_str().unwrap()]);
    let run = ["run", "--name", "first", "--", "/bin/echo", "hi"];
    let refused = dev.run(&run).exited(125);
    assert!(refused.err.contains("the node's policy forbids it (rule no-rule)"), "{}", refused.err);
    assert!(
        refused.err.contains("who asked is not known") || refused.err.contains("asked; allowed are"),
        "{}",
        refused.err
    );
    let described = dev.run(&["get", "executions", "--task", "first", "-o", "json"]).exited(0);
    assert!(described.out.contains("no-rule"), "{}", described.out);
    fs::write(&policy, POLICY.replace("namespaces: [default], users: [alice]", "namespaces: [default]"))
        .unwrap();
    let allowed = dev.run(&["run", "--", "/bin/echo", "hi"]).exited(0);
    assert!(allowed.out.contains("hi\n"), "{}", allowed.out);
    fs::remove_file(&policy).unwrap();
    let unusable = dev.run(&["run", "--", "/bin/echo", "hi"]).exited(125);
    assert!(
        unusable.err.contains("policy-unusable") && unusable.err.contains("No such file"),
        "{}",
        unusable.err
    );
}

/// Who writes a Task chooses its text, and others read what became of it.
#[test]
fn the_text_of_a_task_begins_no_line_where_its_refusal_is_shown() {
    let (_kept, directory) = files();
    // One that exists: what is not found is quoted.
    let program = directory.join("x\nallowed by rule df\u{9b}31m");
    fs::copy("/bin/true", &program).unwrap();
    let command =
        serde_json::json!([program.to_str().unwrap(), "\nOK"]).to_string().replace('\u{9b}', "\\u009b");
    let task = format!(
        "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {{name: hostile}}\nspec:\n  targets: {{all: true}}\n  \
         run: {{command: {command}}}\n"
    );
    fs::write(directory.join("hostile.yaml"), task).unwrap();
    let quiet = |text: &str| {
        assert!(!text.lines().any(|line| line.starts_with("allowed") || line.starts_with("OK")), "{text}");
        assert!(!text.chars().any(|char| char.is_control() && char != '\n'), "{text:?}");
    };
    let explained = sentinel(&directory, &["policy", "explain", "policy.yaml", "hostile.yaml"]);
    assert_eq!(explained.status.code(), Some(1));
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(text.contains("allowed by rule df"), "{text}");
    quiet(&text);

    let dev = Dev::start(&["--policy", directory.join("policy.yaml").to_str().unwrap()]);
    dev.run(&["apply", directory.join("hostile.yaml").to_str().unwrap()]).exited(0);
    let followed = dev.run(&["rerun", "hostile", "-f"]);
    assert!(
        followed.err.contains("rule no-rule") && followed.err.contains("allowed by rule df"),
        "{followed:?}"
    );
    quiet(&followed.err);
    for shown in [
        &["get", "executions", "-o", "wide"][..],
        &["get", "tasks", "-o", "wide"],
        &["get", "runs", "-o", "wide"],
        &["get", "task", "hostile"],
        &["get", "execution", "hostile/1/dev-1"],
    ] {
        let shown = dev.run(shown);
        quiet(&shown.out);
        quiet(&shown.err);
    }
    quiet(&dev.err.wait_for("hostile run 1 "));
}

/// A second way to the same action skipped the permission elsewhere: here a retry and a rerun are asked like the first.
#[test]
fn a_retry_and_a_rerun_are_asked_again_after_the_policy_has_changed() {
    let (_kept, directory) = files();
    let policy = directory.join("policy.yaml");
    let any = "apiVersion: sentinelnode.dev/v1alpha1\nkind: NodePolicy\nrules:\n- {id: any, effect: Allow, who: Anyone, what: AnyCommand, \
               users: Any, environments: [Host, Container], sandboxes: [Privileged, Baseline, Restricted]}\n";
    let none = "apiVersion: sentinelnode.dev/v1alpha1\nkind: NodePolicy\nrules: []\n";
    fs::write(&policy, any).unwrap();
    let dev = Dev::start(&["--policy", policy.to_str().unwrap()]);
    // The first Attempt forbids everything, and fails: the policy is another when it is retried.
    let script = format!("printf '%b' '{}' > {}; exit 1", none.replace('\n', "\\n"), policy.display());
    let retried = [
        "run",
        "--name",
        "retried",
        "--retry",
        "3",
        "--host",
        "--sandbox",
        "Privileged",
        "--",
        "sh",
        "-c",
        &script,
    ];
    dev.run(&retried);
    let shown = dev.run(&["get", "executions", "--task", "retried", "-o", "json"]).exited(0);
    let execution = shown.json()["items"][0].clone();
    assert_eq!((&execution["attempt"], &execution["outcome"]), (&2.into(), &"Refused".into()), "{execution}");
    assert!(execution["message"].as_str().unwrap().contains("rule no-rule"), "{execution}");
    fs::write(&policy, any).unwrap();
    dev.run(&["run", "--name", "again", "--", "true"]).exited(0);
    fs::write(&policy, none).unwrap();
    let again = dev.run(&["rerun", "again", "-f"]);
    assert!(again.err.contains("rule no-rule"), "{again:?}");
    let task = dev.run(&["get", "task", "again", "-o", "json"]).exited(0).json();
    let message = task["status"]["nodes"][0]["message"].as_str().unwrap_or_default();
    assert!(message.contains("rule no-rule"), "{task}");
}

/// From the author's key by way of the operator to the node that verifies.
#[test]
fn a_task_that_its_author_has_signed_runs_where_signatures_are_asked_for() {
    let (_kept, directory) = files();
    let key = directory.join("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "alice", "-f"])
        .arg(&key)
        .status();
    let Ok(made) = made else {
        let _ =
            writeln!(std::io::stderr(), "NOT RUN: signatures: ssh-keygen (openssh-client) is not installed");
        return;
    };
    assert!(made.success());
    let public = fs::read_to_string(directory.join("key.pub")).unwrap();
    let signing =
        POLICY.replace("rules:", &format!("signers: [{{name: alice, key: '{}'}}]\nrules:", public.trim()));
    let signing = signing.replace("namespaces: [default], users: [alice]", "namespaces: [default]");
    fs::write(directory.join("policy.yaml"), format!("{signing}  signature: {{by: [alice]}}\n")).unwrap();
    let dev = Dev::start(&["--policy", directory.join("policy.yaml").to_str().unwrap()]);
    let task = directory.join("task.yaml");
    let task = task.to_str().unwrap();
    dev.run(&["apply", task]).exited(0);
    dev.run(&["wait", "talk", "--for", "complete"]).exited(1);
    dev.run(&["delete", "talk"]).exited(0);
    dev.run(&["wait", "talk", "--for", "deleted"]).exited(0);

    let refused = sentinel(&directory, &["sign", task, "--key", key.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2), "a selector cannot be verified");
    let signed = sentinel(&directory, &["sign", task, "--key", key.to_str().unwrap(), "--any-node"]);
    assert_eq!(signed.status.code(), Some(0), "{}", String::from_utf8_lossy(&signed.stderr));
    fs::write(directory.join("signed.yaml"), &signed.stdout).unwrap();
    let explained = sentinel(&directory, &["policy", "explain", "--here", "policy.yaml", "signed.yaml"]);
    assert!(String::from_utf8_lossy(&explained.stdout).contains("signed by alice for 1 starts"));
    dev.run(&["apply", directory.join("signed.yaml").to_str().unwrap()]).exited(0);
    dev.run(&["wait", "talk", "--for", "complete"]).exited(0);
    // Once is what the author has signed.
    dev.run(&["rerun", "talk", "--follow"]).exited(125).printed("was used 1 times on this node");

    let missing = sentinel(&directory, &["sign", task, "--any-node", "--key", "no-such-key"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("failed to sign with the key no-such-key"));
}

/// Whether `ssh-keygen` has made a key of this kind; it is a part of OpenSSH, which a machine may not have.
fn has_made(kind: &[&str], key: &std::path::Path) -> bool {
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-C", "alice", "-f"])
        .arg(key)
        .args(kind)
        .status();
    let Ok(made) = made else {
        let _ =
            writeln!(std::io::stderr(), "NOT RUN: signatures: ssh-keygen (openssh-client) is not installed");
        return false;
    };
    assert!(made.success(), "{kind:?}");
    true
}

/// Such values were taken, and no node could use them.
#[test]
fn a_signature_that_is_about_nothing_is_not_made() {
    let (_kept, directory) = files();
    for (flags, expected) in [
        (["--for", "0s"], "from 1ms to 3650d"),
        (["--for", "99999d"], "from 1ms to 3650d"),
        (["--audience", ""], "--audience"),
        (["--node", "no node"], "--node"),
    ] {
        let sign = [&["sign", "task.yaml", "--key", "key"][..], &flags].concat();
        let refused = sentinel(&directory, &sign);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{error}");
        assert!(error.contains(expected), "{flags:?}: {error}");
    }
}

/// Such a Task was signed, and refused by every node.
#[test]
fn a_key_that_no_node_can_verify_is_refused_before_it_signs() {
    let (_kept, directory) = files();
    for (name, kind) in [
        ("ssh-rsa", &["-t", "rsa", "-N", ""][..]),
        // It would ask for its passphrase.
        ("ssh-rsa", &["-t", "rsa", "-N", "a passphrase"]),
        ("ssh-rsa", &["-t", "rsa", "-m", "PEM", "-N", ""]),
        ("ecdsa-sha2-nistp384", &["-t", "ecdsa", "-b", "384", "-N", ""]),
    ] {
        let folder = tempfile::tempdir_in(&directory).unwrap();
        let key = folder.path().join("key");
        if !has_made(kind, &key) {
            return;
        }
        for file in [key.clone(), key.with_extension("pub")] {
            let refused =
                sentinel(&directory, &["sign", "task.yaml", "--any-node", "--key", file.to_str().unwrap()]);
            let error = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "{error}");
            let expected = format!(
                "{name} keys are not supported; supported are ssh-ed25519, sk-ssh-ed25519@openssh.com, ecdsa-sha2-nistp256"
            );
            assert!(error.contains(&expected) && error.contains("ssh-keygen -t ed25519"), "{error}");
        }
    }
}

#[test]
fn a_signed_task_is_about_the_node_that_it_is_signed_for_and_not_too_large_for_an_api_server() {
    let (_kept, directory) = files();
    let key = directory.join("key");
    if !has_made(&["-t", "ecdsa", "-N", ""], &key) {
        return;
    }
    let key = key.to_str().unwrap();
    let sign =
        |task: &str| sentinel(&directory, &["sign", task, "--key", key, "--node", "n-7", "--node", "n-8"]);
    fs::write(directory.join("signed.yaml"), sign("task.yaml").stdout).unwrap();
    let node_of = |args: &[&str]| {
        let request = sentinel(&directory, args);
        let start: serde_json::Value = serde_json::from_slice(&request.stdout).unwrap();
        start["attempt"].as_str().unwrap().split('/').nth(2).unwrap().to_owned()
    };
    assert_eq!(node_of(&["policy", "request", "signed.yaml"]), "n-7");
    assert_eq!(node_of(&["policy", "request", "signed.yaml", "--node", "n-9"]), "n-9");
    assert_eq!(node_of(&["policy", "request", "task.yaml"]), "node");

    let text = "\"".repeat(100_000);
    let task = serde_json::json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": {"name": "large"},
        "spec": {"targets": {"all": true}, "run": {"script": {"text": text}}},
    });
    fs::write(directory.join("large.json"), task.to_string()).unwrap();
    let refused = sign("large.json");
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "{error}");
    assert!(
        error.contains("task/large: signed, its annotations have") && error.contains("takes 262144"),
        "{error}"
    );
}
