//! Limits and the idle and total clocks, on real commands under real supervisors. Limits need a machine where the tests
//! can create control groups, v1 or v2.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may panic")]

mod fixtures;

use std::path::{Path, PathBuf};

use fixtures::{Node, finish, running, shell, start, wait_for};
use sentinel_protocol::outcome::{Outcome, StartFailure};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::Start;

const MIB: u64 = 1 << 20;

/// Whether the limit is enforced. Where it cannot be, the command is not started, the message names the limit, and the
/// test has not run.
fn is_enforced(outcome: &Outcome, field: &str) -> bool {
    let Outcome::StartFailed { reason, message } = outcome else { return true };
    assert_eq!(*reason, StartFailure::Other);
    assert!(message.starts_with(&format!("{field} cannot be held on this node: ")), "{message}");
    assert!(!can_limit(), "{message}");
    fixtures::cannot_run(message);
    false
}

/// Whether the tests can create a v1 group, or a v2 group with the memory controller.
fn can_limit() -> bool {
    let v1 = Path::new("/sys/fs/cgroup/memory/tasks").exists();
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    fixtures::is_root() && (v1 || controllers.contains("memory"))
}

fn run(start: &Start) -> fixtures::Finished {
    Node::new().run(start)
}

#[test]
fn exceeding_the_memory_limit_is_oom_killed_with_its_peak() {
    // `tail` keeps the whole endless line in memory.
    let mut greedy = start(1, &["tail", "/dev/zero"]);
    greedy.request.limits.memory = Some(32 * MIB);
    let run = run(&greedy);
    if !is_enforced(&run.ended.outcome, "run.limits.memory") {
        return;
    }
    let Outcome::OomKilled { peak: Some(peak) } = run.ended.outcome else {
        panic!("{:?}", run.ended.outcome)
    };
    assert!((24 * MIB..=33 * MIB).contains(&peak), "{peak}");
}

#[test]
fn a_command_within_its_limits_is_not_affected() {
    let mut modest = shell(1, "echo fits; exit 3");
    modest.request.limits.memory = Some(64 * MIB);
    modest.request.limits.cpu_millis = Some(500);
    modest.request.limits.pids = Some(16);
    let run = run(&modest);
    if is_enforced(&run.ended.outcome, "run.limits.cpu") {
        assert_eq!((&run.ended.outcome, run.text().as_str()), (&Outcome::Failed { exit_code: 3 }, "fits\n"));
    }
}

#[test]
fn a_signal_is_not_reported_as_oom() {
    let mut killed = shell(1, "kill -9 $$");
    killed.request.limits.memory = Some(64 * MIB);
    let run = run(&killed);
    if is_enforced(&run.ended.outcome, "run.limits.memory") {
        assert_eq!(run.ended.outcome, Outcome::Signaled { signal: 9 });
    }
}

#[test]
fn memory_of_grandchildren_counts() {
    let mut greedy = shell(1, "sh -c 'tail /dev/zero; exit 9'; exit 7");
    greedy.request.limits.memory = Some(32 * MIB);
    let run = run(&greedy);
    if is_enforced(&run.ended.outcome, "run.limits.memory") {
        assert!(matches!(run.ended.outcome, Outcome::OomKilled { .. }), "{:?}", run.ended.outcome);
    }
}

#[test]
fn the_process_limit_is_enforced() {
    // The shell and three of its children.
    let mut many = shell(1, "for i in 1 2 3 4 5 6; do sleep 30 & done; echo made");
    many.request.limits.pids = Some(4);
    many.deadlines.grace_ms = 100;
    let run = run(&many);
    if is_enforced(&run.ended.outcome, "run.limits.pids") {
        assert!(matches!(run.ended.outcome, Outcome::Failed { .. }), "{:?}", run.ended.outcome);
        let stderr = String::from_utf8(run.stderr()).unwrap();
        assert!(stderr.contains("fork"), "{stderr:?}");
        assert_eq!(run.text(), "");
    }
}

#[test]
fn the_cpu_limit_is_enforced() {
    let mut busy = shell(1, "while :; do :; done");
    busy.request.limits.cpu_millis = Some(100);
    busy.deadlines.run_ms = Some(2_000);
    busy.deadlines.grace_ms = 0;
    let run = run(&busy);
    if is_enforced(&run.ended.outcome, "run.limits.cpu") {
        assert_eq!(run.ended.outcome, Outcome::TimedOut);
        let used = run.ended.usage.user_ms + run.ended.usage.system_ms;
        // A full CPU would be 2000; on a machine that is busy otherwise it gets less.
        assert!((20..600).contains(&used), "{used} ms");
    }
}

/// The groups of a command, in all hierarchies.
fn groups_of(supervisor: i32) -> Vec<PathBuf> {
    let trees = ["", "unified", "cpu", "memory", "pids"].map(|tree| Path::new("/sys/fs/cgroup").join(tree));
    let groups = trees.iter().flat_map(|tree| std::fs::read_dir(tree.join("sentinel")).into_iter().flatten());
    let ours =
        |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{supervisor}."));
    groups.map(|entry| entry.unwrap().path()).filter(ours).collect()
}

#[test]
fn cgroups_hold_the_whole_command_and_are_removed_with_it() {
    if !can_limit() {
        return fixtures::cannot_run("it needs root and control groups with the memory controller");
    }
    let mut node = Node::new();
    let mut limited = shell(1, "sleep 600 & sleep 600");
    limited.request.limits.pids = Some(16);
    limited.request.limits.memory = Some(64 * MIB);
    limited.request.limits.cpu_millis = Some(500);
    let attempt = node.launch(&limited);
    let (supervisor, command) = running(&attempt);
    let groups = groups_of(supervisor.pid);
    assert!(!groups.is_empty());
    for group in &groups {
        wait_for("the command and its children to be in the group", || {
            let procs = std::fs::read_to_string(group.join("cgroup.procs")).unwrap();
            let pids: Vec<i32> = procs.lines().map(|line| line.parse().unwrap()).collect();
            assert!(!pids.contains(&supervisor.pid), "the supervisor is not limited");
            (pids.contains(&command.pid) && pids.len() == 3).then_some(())
        });
    }
    attempt.request_cancel(UnixMillis(1), None).unwrap();
    assert_eq!(finish(attempt).ended.outcome, Outcome::Cancelled);
    wait_for("the groups to be removed", || groups_of(supervisor.pid).is_empty().then_some(()));
}

#[test]
fn a_limit_the_kernel_rejects_fails_the_start() {
    let mut none = start(1, &["true"]);
    // Admission refuses it; the supervisor does not rely on that.
    none.request.limits.cpu_millis = Some(0);
    let run = run(&none);
    let Outcome::StartFailed { message, .. } = run.ended.outcome else { panic!("{:?}", run.ended.outcome) };
    assert!(message.starts_with("run.limits.cpu cannot be held on this node: "), "{message}");
    assert_eq!(run.ended.started_at, None);
}

#[test]
fn the_idle_clock_ends_only_a_silent_command() {
    let mut silent = shell(1, "echo first; sleep 600");
    silent.deadlines.idle_ms = Some(300);
    let run_of = run(&silent);
    assert_eq!((&run_of.ended.outcome, run_of.text().as_str()), (&Outcome::IdleTimedOut, "first\n"));
    let took = run_of.ended.ended_at.since(run_of.ended.started_at.unwrap());
    assert!((300..6_000).contains(&took), "{took} ms");
    // Longer than the clock in all, with output now and then on either stream.
    let mut chatty =
        shell(2, "for i in 1 2 3 4 5 6 7 8; do sleep 0.2; echo $i; sleep 0.2; echo $i >&2; done");
    chatty.deadlines.idle_ms = Some(2_000);
    assert_eq!(run(&chatty).ended.outcome, Outcome::Succeeded { exit_code: 0 });
}

#[test]
fn an_idle_command_that_ignores_term_is_killed() {
    let mut stubborn = shell(1, "trap '' TERM; while :; do sleep 0.05; done");
    stubborn.deadlines.idle_ms = Some(300);
    stubborn.deadlines.grace_ms = 300;
    let run = run(&stubborn);
    assert_eq!(run.ended.outcome, Outcome::IdleTimedOut);
    assert!(run.ended.ended_at.since(run.ended.started_at.unwrap()) >= 600);
}

#[test]
fn a_command_blocked_on_a_full_window_is_not_idle() {
    let mut node = Node::new();
    // Nothing reads the output: the window is full at once, and the command is blocked for longer than its idle clock.
    let mut blocked = shell(1, "head -c 12000000 /dev/zero");
    blocked.request.output.spool = MIB;
    blocked.request.output.max_block_ms = 1_500;
    blocked.deadlines.idle_ms = Some(400);
    let attempt = node.launch(&blocked);
    let ended = wait_for("the exit record", || attempt.exit().unwrap());
    assert_eq!(ended.outcome, Outcome::Succeeded { exit_code: 0 });
    assert!(ended.output.blocked_ms >= 1_000, "{:?}", ended.output);
}

#[test]
fn the_total_clock_counts_from_acceptance() {
    let mut long = shell(1, "sleep 600");
    long.deadlines.run_ms = Some(600_000);
    long.deadlines.total_ms = Some(400);
    let run_of = run(&long);
    assert_eq!(run_of.ended.outcome, Outcome::TimedOut);
    assert!(run_of.ended.ended_at.since(run_of.ended.started_at.unwrap()) < 6_000);
    let mut late = shell(2, "echo too late");
    late.deadlines.total_ms = Some(0);
    let run_of = run(&late);
    assert_eq!((run_of.ended.outcome, run_of.ended.started_at), (Outcome::StartTimedOut { why: None }, None));
}
