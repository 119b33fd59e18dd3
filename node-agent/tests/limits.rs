//! Limits and the idle and total clocks, on real commands under real supervisors. Limits need a machine where the
//! tests may make control groups, v1 or v2; where they may not, that is what is tested.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may panic")]

mod fixtures;

use std::path::{Path, PathBuf};

use fixtures::{Node, finish, running, shell, start, wait_for};
use sentinel_protocol::outcome::{Outcome, StartFailure};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::Start;

const MIB: u64 = 1 << 20;

/// What a limit comes to: it holds, or the command is not started and the words name it.
fn held(outcome: &Outcome, field: &str) -> bool {
    let Outcome::StartFailed { reason, message } = outcome else { return true };
    assert_eq!(*reason, StartFailure::Other);
    assert!(message.starts_with(&format!("{field} cannot be held on this node: ")), "{message}");
    assert!(!may_limit(), "{message}");
    false
}

/// Whether this machine lets us make a v1 group, or one of v2 with its controllers.
fn may_limit() -> bool {
    let v1 = Path::new("/sys/fs/cgroup/memory/tasks").exists();
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    fixtures::is_root() && (v1 || controllers.contains("memory"))
}

fn run(start: &Start) -> fixtures::Finished {
    Node::new().run(start)
}

#[test]
fn a_command_that_wants_more_memory_than_its_limit_is_killed_and_its_peak_is_told() {
    // `tail` keeps all of the one endless line.
    let mut greedy = start(1, &["tail", "/dev/zero"]);
    greedy.request.limits.memory = Some(32 * MIB);
    let run = run(&greedy);
    if !held(&run.ended.outcome, "run.limits.memory") {
        return;
    }
    let Outcome::OomKilled { peak: Some(peak) } = run.ended.outcome else {
        panic!("{:?}", run.ended.outcome)
    };
    assert!((24 * MIB..=33 * MIB).contains(&peak), "{peak}");
}

#[test]
fn a_command_within_its_limits_is_not_touched() {
    let mut modest = shell(1, "echo fits; exit 3");
    modest.request.limits.memory = Some(64 * MIB);
    modest.request.limits.cpu_millis = Some(500);
    modest.request.limits.pids = Some(16);
    let run = run(&modest);
    if held(&run.ended.outcome, "run.limits.cpu") {
        assert_eq!((&run.ended.outcome, run.text().as_str()), (&Outcome::Failed { exit_code: 3 }, "fits\n"));
    }
}

#[test]
fn a_signal_is_no_lack_of_memory() {
    let mut killed = shell(1, "kill -9 $$");
    killed.request.limits.memory = Some(64 * MIB);
    let run = run(&killed);
    if held(&run.ended.outcome, "run.limits.memory") {
        assert_eq!(run.ended.outcome, Outcome::Signaled { signal: 9 });
    }
}

#[test]
fn memory_is_counted_over_the_whole_tree_and_so_it_is_for_a_grandchild() {
    let mut greedy = shell(1, "sh -c 'tail /dev/zero; exit 9'; exit 7");
    greedy.request.limits.memory = Some(32 * MIB);
    let run = run(&greedy);
    if held(&run.ended.outcome, "run.limits.memory") {
        assert!(matches!(run.ended.outcome, Outcome::OomKilled { .. }), "{:?}", run.ended.outcome);
    }
}

#[test]
fn a_command_with_a_limit_of_processes_cannot_make_more() {
    // The shell and three of its children.
    let mut many = shell(1, "for i in 1 2 3 4 5 6; do sleep 30 & done; echo made");
    many.request.limits.pids = Some(4);
    many.deadlines.grace_ms = 100;
    let run = run(&many);
    if held(&run.ended.outcome, "run.limits.pids") {
        assert!(matches!(run.ended.outcome, Outcome::Failed { .. }), "{:?}", run.ended.outcome);
        let words = String::from_utf8(run.stderr()).unwrap();
        assert!(words.contains("fork"), "{words:?}");
        assert_eq!(run.text(), "");
    }
}

#[test]
fn a_command_with_a_tenth_of_a_cpu_gets_no_more() {
    let mut busy = shell(1, "while :; do :; done");
    busy.request.limits.cpu_millis = Some(100);
    busy.deadlines.run_ms = Some(2_000);
    busy.deadlines.grace_ms = 0;
    let run = run(&busy);
    if held(&run.ended.outcome, "run.limits.cpu") {
        assert_eq!(run.ended.outcome, Outcome::TimedOut);
        let used = run.ended.usage.user_ms + run.ended.usage.system_ms;
        // A full CPU would be 2000; on a machine that is busy otherwise it gets less.
        assert!((20..600).contains(&used), "{used} ms");
    }
}

/// The groups of a command, in all trees.
fn groups_of(supervisor: i32) -> Vec<PathBuf> {
    let trees = ["", "unified", "cpu", "memory", "pids"].map(|tree| Path::new("/sys/fs/cgroup").join(tree));
    let groups = trees.iter().flat_map(|tree| std::fs::read_dir(tree.join("sentinel")).into_iter().flatten());
    let ours =
        |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{supervisor}."));
    groups.map(|entry| entry.unwrap().path()).filter(ours).collect()
}

#[test]
fn the_groups_of_a_command_hold_all_of_it_and_are_gone_when_it_is() {
    if !may_limit() {
        return;
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
    attempt.request_cancel(UnixMillis(1)).unwrap();
    assert_eq!(finish(attempt).ended.outcome, Outcome::Cancelled);
    wait_for("the groups to be removed", || groups_of(supervisor.pid).is_empty().then_some(()));
}

#[test]
fn a_limit_that_the_kernel_refuses_starts_nothing_and_is_named() {
    let mut none = start(1, &["true"]);
    // Admission would have refused it; the supervisor does not rely on that.
    none.request.limits.cpu_millis = Some(0);
    let run = run(&none);
    let Outcome::StartFailed { message, .. } = run.ended.outcome else { panic!("{:?}", run.ended.outcome) };
    assert!(message.starts_with("run.limits.cpu cannot be held on this node: "), "{message}");
    assert_eq!(run.ended.started_at, None);
}

#[test]
fn a_command_that_falls_silent_is_ended_and_one_that_speaks_is_not() {
    let mut silent = shell(1, "echo first; sleep 600");
    silent.deadlines.idle_ms = Some(300);
    let run_of = run(&silent);
    assert_eq!((&run_of.ended.outcome, run_of.text().as_str()), (&Outcome::IdleTimedOut, "first\n"));
    let took = run_of.ended.ended_at.since(run_of.ended.started_at.unwrap());
    assert!((300..6_000).contains(&took), "{took} ms");
    // Far longer than the clock in all, and now and then a word on the one stream or the other.
    let mut talking =
        shell(2, "for i in 1 2 3 4 5 6 7 8; do sleep 0.2; echo $i; sleep 0.2; echo $i >&2; done");
    talking.deadlines.idle_ms = Some(2_000);
    assert_eq!(run(&talking).ended.outcome, Outcome::Succeeded { exit_code: 0 });
}

#[test]
fn a_silent_command_that_ignores_term_is_killed_after_its_grace() {
    let mut deaf = shell(1, "trap '' TERM; while :; do sleep 0.05; done");
    deaf.deadlines.idle_ms = Some(300);
    deaf.deadlines.grace_ms = 300;
    let run = run(&deaf);
    assert_eq!(run.ended.outcome, Outcome::IdleTimedOut);
    assert!(run.ended.ended_at.since(run.ended.started_at.unwrap()) >= 600);
}

#[test]
fn a_command_held_up_by_a_full_window_is_not_silent() {
    let mut node = Node::new();
    // Nobody takes the output: the window is full at once, and the command stands for longer than its idle clock.
    let mut held_up = shell(1, "head -c 12000000 /dev/zero");
    held_up.request.output.spool = MIB;
    held_up.request.output.max_block_ms = 1_500;
    held_up.deadlines.idle_ms = Some(400);
    let attempt = node.launch(&held_up);
    let ended = wait_for("the exit record", || attempt.exit().unwrap());
    assert_eq!(ended.outcome, Outcome::Succeeded { exit_code: 0 });
    assert!(ended.output.blocked_ms >= 1_000, "{:?}", ended.output);
}

#[test]
fn what_is_left_of_the_run_ends_a_command_that_may_run_longer_and_is_counted_from_acceptance() {
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
