//! Between the decision of the policy and the start of the command: what was compared is what runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod fixtures;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fixtures::{Finished, Node, finish, start};
use sentinel_core::agent::{Permit, PolicyVerdict};
use sentinel_node_agent::PolicyFiles;
use sentinel_node_agent::journal::Accepted;
use sentinel_node_agent::policy::PolicyGate;
use sentinel_node_agent::supervisor::HostNamespaces;
use sentinel_protocol::ids::RunNumber;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::request::{Program, Sandbox};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::Start;

const ALL: &str = "apiVersion: sentinelnode.dev/v1alpha1\nkind: NodePolicy\nrules:\n\
    - {id: all, effect: Allow, who: Anyone, what: AnyCommand, users: Any, groups: Any, environments: [Host, Container], \
       sandboxes: [Restricted, Baseline, Privileged], workingDirs: [{glob: '**'}]}\n";

fn program(path: &Path, of: &str) -> String {
    fs::copy(of, path).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    path.canonicalize().unwrap().to_str().unwrap().to_owned()
}

/// What a policy that allows everything permits of this request now.
fn permit(node: &Node, start: &Start) -> Permit {
    let policy = node.path().join("policy.yaml");
    fs::write(&policy, ALL).unwrap();
    let files = PolicyFiles { policy: Some(policy), kill_switch: None };
    match PolicyGate::new(&files, node.path(), HostNamespaces::Own, None).verdict(start, UnixMillis(0)) {
        PolicyVerdict::Allowed(permit) => *permit,
        other => panic!("{other:?}"),
    }
}

/// Runs a request that was permitted, after `change`.
fn run_after(node: &mut Node, start: &Start, change: impl FnOnce(&mut Permit)) -> Finished {
    let mut permit = permit(node, start);
    change(&mut permit);
    let accepted = Accepted { permit: Some(permit), ..Accepted::now(start.clone()).unwrap() };
    let attempt = node.state.create(accepted).unwrap();
    node.launcher.launch(&attempt).unwrap();
    finish(attempt)
}

fn command(number: u32, argv: &[&str]) -> Start {
    let mut start = start(number, argv);
    start.request.sandbox = Some(Sandbox::Privileged);
    start
}

fn why(finished: &Finished) -> String {
    match &finished.ended.outcome {
        Outcome::Refused { refusal: Refusal::Policy { rule, why: Some(why) } } if *rule == "all" => {
            why.to_string()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_program_is_executed_by_its_descriptor_under_its_own_name() {
    let mut node = Node::new();
    let sh = program(&node.path().join("shell"), "/bin/sh");
    let start = command(1, &[&sh, "-c", "readlink /proc/$$/exe; tr '\\0' ' ' < /proc/$$/cmdline"]);
    let finished = run_after(&mut node, &start, |_| {});
    assert_eq!(finished.ended.outcome, Outcome::Succeeded { exit_code: 0 });
    let text = finished.text();
    assert!(text.starts_with(&format!("{sh}\n{sh} -c ")), "{text}");
}

#[test]
fn a_script_and_a_program_of_the_path_run_as_without_a_policy() {
    let mut node = Node::new();
    let file = node.path().join("tool");
    fs::write(&file, "#!/bin/sh\necho \"$0 $1\"\n").unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    let tool = file.canonicalize().unwrap().to_str().unwrap().to_owned();
    let finished = run_after(&mut node, &command(1, &[&tool, "x"]), |_| {});
    assert_eq!(finished.text(), format!("{tool} x\n"), "its interpreter has its path");
    let finished = run_after(&mut node, &command(2, &["echo", "x"]), |_| {});
    assert_eq!(finished.text(), "x\n");
    let mut script = command(3, &[]);
    script.request.program = Program::Script {
        interpreter: "sh".into(),
        argument: Some("-u".into()),
        text: "echo $-; exit 4".into(),
    };
    let finished = run_after(&mut node, &script, |_| {});
    assert_eq!(finished.ended.outcome, Outcome::Failed { exit_code: 4 });
    assert!(finished.text().contains('u'));
}

/// A script was executed by the path in the request: the owner of a link on the way to it chose what ran.
#[test]
fn a_script_is_executed_by_its_path_without_links() {
    let mut node = Node::new();
    let file = node.path().join("tool");
    fs::write(&file, "#!/bin/sh\necho \"$0\"\n").unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    let link = node.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let finished = run_after(&mut node, &command(1, &[link.to_str().unwrap()]), |_| {});
    assert_eq!(finished.text(), format!("{}\n", file.canonicalize().unwrap().display()));
}

/// The interpreter of a script was not examined: who could replace it chose what a rule about the script allows.
#[test]
fn a_script_is_refused_if_others_can_replace_its_interpreter() {
    let node = Node::new();
    let interpreter = program(&node.path().join("interpreter"), "/bin/sh");
    let script = node.path().join("script");
    fs::write(&script, format!("#!{interpreter}\n")).unwrap();
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let script = script.canonicalize().unwrap().to_str().unwrap().to_owned();
    permit(&node, &command(1, &[&script]));
    fs::set_permissions(&interpreter, PermissionsExt::from_mode(0o757)).unwrap();

    let policy = node.path().join("policy.yaml");
    let files = PolicyFiles { policy: Some(policy.clone()), kill_switch: None };
    let mut gate = PolicyGate::new(&files, node.path(), HostNamespaces::Own, None);
    let PolicyVerdict::Refused { rule, why } = gate.verdict(&command(1, &[&script]), UnixMillis(0)) else {
        panic!("allowed")
    };
    let expected = format!(
        "{interpreter} is writable by everyone, so {interpreter}, the interpreter of {script}, need not be"
    );
    assert!(
        rule == "no-rule" && why.contains("the closest is all") && why.contains(&expected),
        "{rule}: {why}"
    );

    // What a rule allows in vain on this node, `lint` names there.
    let text = format!(
        "apiVersion: sentinelnode.dev/v1alpha1\nkind: NodePolicy\nrules:\n- {{id: tool, effect: Allow, who: Anyone, \
         what: [{{programs: [{script}, /bin/sh]}}], users: [root], environments: [Container]}}\n"
    );
    fs::write(&policy, text).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_node-agent"))
        .args(["policy", "lint", "--here", policy.to_str().unwrap()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let refused: Vec<&str> = text.lines().filter(|line| line.contains("is refused here")).collect();
    let [refused] = refused.as_slice() else { panic!("{text}") };
    let expected = format!("tool: {script} is refused here in the environment Container: {expected}");
    assert!(refused.starts_with(&expected), "{refused}");
}

#[test]
fn a_program_that_was_replaced_after_the_decision_is_not_started() {
    let mut node = Node::new();
    let path = node.path().join("tool");
    let tool = program(&path, "/bin/echo");
    let other = program(&node.path().join("other"), "/bin/cat");
    let start = command(1, &[&tool, "x"]);
    let finished = run_after(&mut node, &start, |_| fs::rename(&other, &path).unwrap());
    assert!(why(&finished).contains("tool has changed since the rule allowed it"), "{}", why(&finished));
    assert_eq!(finished.text(), "");
}

#[test]
fn a_program_whose_content_was_changed_after_the_decision_is_not_started() {
    let mut node = Node::new();
    let path = node.path().join("tool");
    let tool = program(&path, "/bin/echo");
    let finished = run_after(&mut node, &command(1, &[&tool, "x"]), |permit| {
        // In place, with the same length: another time of change, once the clock of the file system has moved on.
        let content = fs::read(&path).unwrap();
        loop {
            fs::write(&path, &content).unwrap();
            let now = std::os::unix::fs::MetadataExt::ctime_nsec(&fs::metadata(&path).unwrap());
            if now != permit.program.changed_at % 1_000_000_000 {
                break;
            }
        }
    });
    assert!(why(&finished).contains("has changed"));
}

#[test]
fn a_link_that_points_elsewhere_after_the_decision_is_not_followed() {
    let mut node = Node::new();
    program(&node.path().join("one"), "/bin/echo");
    program(&node.path().join("two"), "/bin/echo");
    let link = node.path().join("tool");
    std::os::unix::fs::symlink("one", &link).unwrap();
    let start = command(1, &[link.to_str().unwrap(), "x"]);
    let finished = run_after(&mut node, &start, |_| {
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("two", &link).unwrap();
    });
    let why = why(&finished);
    assert!(why.contains("/two, before ") && why.contains("/one"), "{why}");
}

/// A link in a working directory that was exchanged after the decision led the command to a directory that no rule allows.
#[test]
fn a_working_directory_that_points_elsewhere_after_the_decision_is_not_entered() {
    let mut node = Node::new();
    for name in ["one", "two"] {
        fs::create_dir(node.path().join(name)).unwrap();
    }
    let link = node.path().join("link");
    std::os::unix::fs::symlink("one", &link).unwrap();
    let mut start = command(1, &["/bin/pwd", "-P"]);
    start.request.working_dir = link.to_str().unwrap().to_owned();
    let finished = run_after(&mut node, &start, |_| {});
    assert_eq!(finished.text(), format!("{}\n", node.path().join("one").canonicalize().unwrap().display()));
    start.attempt.run = RunNumber(2);
    let finished = run_after(&mut node, &start, |_| {
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("two", &link).unwrap();
    });
    assert!(why(&finished).contains("the working directory"), "{}", why(&finished));
    // The same name, and another directory.
    start.attempt.run = RunNumber(3);
    let two = node.path().join("two");
    let finished = run_after(&mut node, &start, |_| {
        fs::rename(&two, two.with_file_name("old")).unwrap();
        fs::create_dir(&two).unwrap();
    });
    assert!(why(&finished).contains("the working directory"), "{}", why(&finished));
}

/// Of a permit without a directory nothing was compared.
#[test]
fn what_an_earlier_agent_accepted_without_its_directory_is_not_started() {
    let mut node = Node::new();
    let finished = run_after(&mut node, &command(1, &["/bin/echo", "x"]), |permit| permit.directory = None);
    assert!(
        why(&finished).contains("did not record which directory / was; run it again"),
        "{}",
        why(&finished)
    );
    assert_eq!(finished.text(), "");
}

/// Another process exchanges the directories all the time: however it falls, the command is in the allowed one, or does not run.
#[test]
fn a_working_directory_that_is_exchanged_all_the_time_is_the_allowed_one_or_none() {
    let mut node = Node::new();
    let root = node.path().canonicalize().unwrap();
    for name in ["allowed", "secret"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    let link = root.join("link");
    std::os::unix::fs::symlink("allowed", &link).unwrap();
    std::os::unix::fs::symlink("secret", root.join("other")).unwrap();
    let policy = root.join("narrow.yaml");
    let dirs = format!("workingDirs: [{}, {}]", link.display(), root.join("allowed").display());
    fs::write(&policy, ALL.replace("workingDirs: [{glob: '**'}]", &dirs)).unwrap();
    let files = PolicyFiles { policy: Some(policy), kill_switch: None };
    let mut gate = PolicyGate::new(&files, node.path(), HostNamespaces::Own, None);
    let stop = Arc::new(AtomicBool::new(false));
    let exchanging = std::thread::spawn({
        let (stop, link, other) = (stop.clone(), link.clone(), root.join("other"));
        move || {
            while !stop.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, &link, rustix::fs::CWD, &other, flags).unwrap();
            }
        }
    });
    let (mut ran, mut not) = (0, 0);
    for number in 1..=60 {
        let mut start = command(number, &["/bin/pwd", "-P"]);
        start.request.working_dir = link.to_str().unwrap().to_owned();
        let PolicyVerdict::Allowed(permit) = gate.verdict(&start, UnixMillis(0)) else {
            not += 1;
            continue;
        };
        let accepted = Accepted { permit: Some(*permit), ..Accepted::now(start).unwrap() };
        let attempt = node.state.create(accepted).unwrap();
        node.launcher.launch(&attempt).unwrap();
        let text = finish(attempt).text();
        assert!(!text.contains("secret"), "{text}");
        *if text.is_empty() { &mut not } else { &mut ran } += 1;
    }
    stop.store(true, Ordering::Relaxed);
    exchanging.join().unwrap();
    println!("{ran} ran in the allowed directory, {not} did not run");
}

/// Otherwise what the new one refuses would start, without being asked for again.
#[test]
fn a_policy_that_changes_while_a_request_is_examined_is_not_the_one_that_decided() {
    let node = Node::new();
    let policy = node.path().join("policy.yaml");
    fs::write(&policy, ALL).unwrap();
    let files = PolicyFiles { policy: Some(policy.clone()), kill_switch: None };
    let mut gate = PolicyGate::new(&files, node.path(), HostNamespaces::Own, None);
    assert!(matches!(gate.verdict(&command(1, &["/bin/true"]), UnixMillis(0)), PolicyVerdict::Allowed(_)));
    assert_eq!(gate.decided_by(), gate.version());
    fs::write(&policy, ALL.replace("Allow", "Deny")).unwrap();
    assert!(gate.decided_by() < gate.version(), "what it refuses now was allowed by the one before");
}

#[test]
fn a_user_that_became_another_one_after_the_decision_is_not_taken() {
    let mut node = Node::new();
    let finished = run_after(&mut node, &command(1, &["/bin/echo", "x"]), |permit| permit.groups.push(4711));
    assert!(why(&finished).contains("the user or the groups of the command"), "{}", why(&finished));
}
