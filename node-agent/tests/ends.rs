//! How a command ended beside its Outcome, and what happens to leftover processes: real processes under real
//! supervisors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may panic")]

mod fixtures;

use std::path::{Path, PathBuf};

use fixtures::{Finished, Node, PROGRAM, finish, is_alive, running, shell, start, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use sentinel_node_agent::journal::AttemptDir;
use sentinel_node_agent::spool::Reader;
use sentinel_node_agent::supervisor::{Launcher, Prefork};
use sentinel_protocol::exit::{Clock, ExitDetails, Fate};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::request::Leftovers;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::Start;

/// The clock that ended it, and after how long.
fn clock(exit: &ExitDetails) -> Option<(Clock, u64)> {
    exit.clock.map(|clock| (clock.name, clock.after_ms))
}

/// Waits until the command has written this.
fn wait_for_output(attempt: &AttemptDir, expected: &str) {
    running(attempt);
    let mut reader = Reader::open(attempt).unwrap();
    wait_for("output", || {
        let records = reader.read(0, 1 << 20).unwrap();
        let text: Vec<u8> = records.iter().flat_map(|record| record.data.to_vec()).collect();
        String::from_utf8_lossy(&text).contains(expected).then_some(())
    });
}

/// The pids that the command wrote, one a line.
fn pids(run: &Finished) -> Vec<i32> {
    run.text().lines().map(|line| line.parse().unwrap()).collect()
}

fn end(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    wait_for("the process to end", || (!is_alive(pid)).then_some(()));
}

#[test]
fn the_exit_code_after_term_is_kept() {
    let mut node = Node::new();
    let text = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.02; done";
    let mut late = shell(1, text);
    late.deadlines.run_ms = Some(300);
    let run = node.run(&late);
    assert_eq!((&run.ended.outcome, run.ended.exit_code()), (&Outcome::TimedOut, Some(3)));
    assert_eq!((run.ended.exit.code, run.ended.exit.signal, run.ended.exit.killed), (Some(3), None, false));
    let (name, after) = clock(&run.ended.exit).unwrap();
    assert!(name == Clock::Run && (300..5_000).contains(&after), "{name:?} {after}");
    assert!(run.ended.message().starts_with("ended by timeouts.run after "), "{}", run.ended.message());
    assert!(run.ended.message().ends_with("; exited with code 3"), "{}", run.ended.message());

    let attempt = node.launch(&shell(2, text));
    wait_for_output(&attempt, "ready");
    attempt.request_cancel(UnixMillis(0), None).unwrap();
    let run = finish(attempt);
    assert_eq!(run.ended.outcome, Outcome::Cancelled);
    assert_eq!(run.ended.exit, ExitDetails { code: Some(3), ..ExitDetails::default() });
    assert_eq!(run.ended.message(), "cancelled; exited with code 3");
}

#[test]
fn the_signal_and_the_need_for_kill_are_recorded() {
    let mut node = Node::new();
    let mut polite = start(1, &["sleep", "1000"]);
    polite.deadlines.run_ms = Some(200);
    let exit = node.run(&polite).ended.exit;
    assert_eq!((exit.code, exit.signal, exit.killed), (None, Some(15), false));
    let mut stubborn = shell(2, "trap '' TERM; while :; do sleep 0.05; done");
    stubborn.deadlines.run_ms = Some(200);
    stubborn.deadlines.grace_ms = 200;
    let run = node.run(&stubborn);
    assert_eq!((run.ended.exit.signal, run.ended.exit.killed), (Some(9), true));
    assert!(run.ended.message().ends_with("; KILL was needed"), "{}", run.ended.message());
    // The command exits at TERM, a child of it does not.
    let mut half = shell(
        3,
        "trap 'exit 4' TERM; (trap '' TERM; while :; do sleep 0.05; done) & while :; do sleep 0.02; done",
    );
    half.deadlines.run_ms = Some(300);
    half.deadlines.grace_ms = 200;
    let exit = node.run(&half).ended.exit;
    assert_eq!((exit.code, exit.killed), (Some(4), true));
}

#[test]
fn the_clock_that_ended_a_command_is_recorded() {
    let mut node = Node::new();
    let mut silent = shell(1, "echo once; sleep 1000");
    silent.deadlines.idle_ms = Some(300);
    silent.deadlines.run_ms = Some(60_000);
    let run = node.run(&silent);
    assert_eq!(run.ended.outcome, Outcome::IdleTimedOut);
    let (name, after) = clock(&run.ended.exit).unwrap();
    assert!(name == Clock::Idle && (300..5_000).contains(&after), "{name:?} {after}");
    let mut whole = shell(2, "sleep 1000");
    whole.deadlines.total_ms = Some(1_000);
    whole.deadlines.run_ms = Some(60_000);
    let run = node.run(&whole);
    assert_eq!(run.ended.outcome, Outcome::TimedOut);
    assert_eq!(clock(&run.ended.exit).unwrap().0, Clock::Total);
    let mut late = shell(3, "true");
    late.deadlines.start_ms = 0;
    let run = node.run(&late);
    assert_eq!(
        (run.ended.outcome.clone(), run.ended.started_at),
        (Outcome::StartTimedOut { why: None }, None)
    );
    assert_eq!(clock(&run.ended.exit).unwrap().0, Clock::Start);
    // A command that exits on its own has no clock recorded.
    let mut quick = shell(4, "exit 0");
    quick.deadlines.run_ms = Some(60_000);
    assert_eq!(node.run(&quick).ended.exit, ExitDetails { code: Some(0), ..ExitDetails::default() });
}

#[test]
fn a_command_killed_for_memory_keeps_its_signal() {
    let mut greedy = start(1, &["tail", "/dev/zero"]);
    greedy.request.limits.memory = Some(32 << 20);
    let run = Node::new().run(&greedy);
    if let Outcome::StartFailed { message, .. } = &run.ended.outcome {
        return fixtures::cannot_run(message);
    }
    assert!(matches!(run.ended.outcome, Outcome::OomKilled { .. }), "{:?}", run.ended.outcome);
    assert_eq!((run.ended.exit.signal, run.ended.exit.killed), (Some(9), false));
}

/// Two daemons that do not hold the output, one of them by double fork and in a session of its own.
const DAEMONS: &str = "sleep 1000 >/dev/null 2>&1 & echo $!; \
    (setsid sh -c 'echo $$; exec sleep 1001 >/dev/null 2>&1' &); sleep 0.2; exit 4";

#[test]
fn leftover_processes_are_ended_and_recorded() {
    let run = Node::new().run(&shell(1, DAEMONS));
    assert_eq!(run.ended.outcome, Outcome::Failed { exit_code: 4 });
    let left = run.ended.exit.left.clone().unwrap();
    assert_eq!((left.count, left.fate), (2, Fate::Ended));
    let mut named: Vec<i32> = left.processes.iter().map(|process| process.pid).collect();
    named.sort_unstable();
    let mut written = pids(&run);
    written.sort_unstable();
    assert_eq!(named, written);
    assert!(left.processes.iter().all(|process| process.name == "sleep"), "{left:?}");
    assert!(!run.ended.exit.killed && run.ended.exit.output_held_ms.is_none(), "{:?}", run.ended.exit);
    assert!(written.iter().all(|pid| !is_alive(*pid)));
    let message = run.ended.message();
    assert!(message.starts_with("exited with code 4; left 2 processes (sleep "), "{message}");
    assert!(message.ends_with("), ended"), "{message}");
}

#[test]
fn leftover_processes_that_ignore_term_are_killed() {
    let mut daemon = shell(
        1,
        "(setsid sh -c 'trap \"\" TERM; exec >/dev/null 2>&1; while :; do sleep 0.02; done' &); sleep 0.2",
    );
    daemon.deadlines.grace_ms = 200;
    let run = Node::new().run(&daemon);
    assert_eq!(run.ended.outcome, Outcome::Succeeded { exit_code: 0 });
    assert!(run.ended.exit.killed && run.ended.exit.left.is_some(), "{:?}", run.ended.exit);
}

#[test]
fn output_held_open_is_closed_after_the_drain() {
    let run = Node::new().run(&shell(1, "sleep 1000 & echo $!"));
    let exit = &run.ended.exit;
    let held = exit.output_held_ms.unwrap();
    assert!((5_000..9_000).contains(&held), "{held}");
    assert_eq!(exit.left.as_ref().unwrap().count, 1);
    let message = run.ended.message();
    assert!(message.contains("; left 1 process (sleep "), "{message}");
    assert!(message.contains("; output held open by another process, closed after 5"), "{message}");
}

#[test]
fn a_process_that_ends_with_its_command_is_not_a_leftover() {
    let mut node = Node::with(Prefork::On);
    for number in 1..=30 {
        let run = node.run(&shell(number, "sleep 0.01 & exit 0"));
        assert_eq!(run.ended.exit, ExitDetails { code: Some(0), ..ExitDetails::default() }, "run {number}");
    }
}

fn keeping(number: u32, text: &str) -> Start {
    let mut start = shell(number, text);
    start.request.leftovers = Leftovers::Keep;
    start
}

/// Control groups of a supervisor's command, in all hierarchies.
fn groups_of(supervisor: i32) -> Vec<PathBuf> {
    let trees = ["", "unified", "cpu", "memory", "pids"].map(|tree| Path::new("/sys/fs/cgroup").join(tree));
    let groups = trees.iter().flat_map(|tree| std::fs::read_dir(tree.join("sentinel")).into_iter().flatten());
    let ours =
        |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{supervisor}."));
    groups.map(|entry| entry.unwrap().path()).filter(ours).collect()
}

#[test]
fn kept_processes_outlive_attempt_supervisor_and_record() {
    let mut node = Node::new();
    let attempt = node.launch(&keeping(1, &DAEMONS.replace("sleep 0.2", "sleep 0.4")));
    let (supervisor, _) = running(&attempt);
    let run = finish(attempt);
    assert_eq!(run.ended.outcome, Outcome::Failed { exit_code: 4 });
    let left = run.ended.exit.left.clone().unwrap();
    assert_eq!((left.count, left.fate), (2, Fate::Kept));
    assert!(run.ended.message().ends_with("), kept running"), "{}", run.ended.message());
    assert!(!run.ended.exit.killed);
    let took = run.ended.ended_at.since(run.ended.started_at.unwrap());
    assert!(took < 4_500, "it waited for the drain: {took} ms");
    wait_for("the supervisor to end", || (!supervisor.is_alive()).then_some(()));
    run.attempt.remove().unwrap();
    let kept = pids(&run);
    assert!(kept.iter().all(|pid| is_alive(*pid)), "{kept:?}");
    // They stay in the group of their Attempt, which is removed when they have ended.
    let groups = groups_of(supervisor.pid);
    for group in &groups {
        let inside = std::fs::read_to_string(group.join("cgroup.procs")).unwrap();
        assert!(kept.iter().all(|pid| inside.lines().any(|line| line == pid.to_string())), "{inside}");
    }
    // Another Attempt is not affected by them.
    assert_eq!(node.outcome(&start(2, &["true"])), Outcome::Succeeded { exit_code: 0 });
    assert!(kept.iter().all(|pid| is_alive(*pid)), "the start of another agent does not end them");
    for pid in kept {
        end(pid);
    }
    drop(Launcher::of(PROGRAM, Prefork::Off));
    assert_eq!(groups_of(supervisor.pid), Vec::<PathBuf>::new());
}

#[test]
fn kept_processes_stay_under_the_limits_of_their_command() {
    let mut node = Node::new();
    let mut limited = keeping(1, "sleep 1000 >/dev/null 2>&1 & echo $!; sleep 0.4");
    limited.request.limits.memory = Some(64 << 20);
    let attempt = node.launch(&limited);
    let run = finish(attempt);
    if let Outcome::StartFailed { message, .. } = &run.ended.outcome {
        assert!(message.starts_with("run.limits.memory cannot be held on this node: "), "{message}");
        return fixtures::cannot_run(message);
    }
    let kept = pids(&run)[0];
    let groups = std::fs::read_to_string(format!("/proc/{kept}/cgroup")).unwrap();
    assert!(
        groups.lines().any(|line| line.contains("memory") && line.contains("/sentinel/"))
            || groups.lines().any(|line| line.starts_with("0::") && line.contains("/sentinel/")),
        "{groups}"
    );
    end(kept);
}

#[test]
fn output_of_kept_processes_is_read_until_the_drain_ends() {
    let text = "(trap '' PIPE; echo early; sleep 8; echo late 2>/dev/null; exec sleep 1000 >/dev/null 2>&1) & echo $!";
    let run = Node::new().run(&keeping(1, text));
    let held = run.ended.exit.output_held_ms.unwrap();
    assert!((5_000..9_000).contains(&held), "{held}");
    assert_eq!(run.ended.exit.left.as_ref().map(|left| left.fate), Some(Fate::Kept));
    let mut lines: Vec<String> = run.text().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[1], "early");
    let kept = lines[0].parse().unwrap();
    assert!(is_alive(kept));
    // The subshell and its child.
    for process in &run.ended.exit.left.as_ref().unwrap().processes {
        let _ = kill_process(Pid::from_raw(process.pid).unwrap(), Signal::KILL);
    }
    wait_for("the process to end", || (!is_alive(kept)).then_some(()));
}

#[test]
fn processes_to_keep_are_ended_with_a_terminated_command() {
    let mut node = Node::new();
    let text = "sleep 1000 >/dev/null 2>&1 & echo $!; wait";
    let mut late = keeping(1, text);
    late.deadlines.run_ms = Some(300);
    let run = node.run(&late);
    assert_eq!((&run.ended.outcome, &run.ended.exit.left), (&Outcome::TimedOut, &None));
    assert!(!is_alive(pids(&run)[0]));
    let attempt = node.launch(&keeping(2, text));
    wait_for_output(&attempt, "\n");
    attempt.request_cancel(UnixMillis(0), None).unwrap();
    let run = finish(attempt);
    assert_eq!(run.ended.outcome, Outcome::Cancelled);
    assert!(!is_alive(pids(&run)[0]));
}

#[test]
fn keep_changes_nothing_without_leftovers() {
    let run = Node::new().run(&keeping(1, "echo done; exit 3"));
    assert_eq!(
        (run.ended.outcome.clone(), run.text().as_str()),
        (Outcome::Failed { exit_code: 3 }, "done\n")
    );
    assert_eq!(run.ended.exit, ExitDetails { code: Some(3), ..ExitDetails::default() });
}

/// As `systemd-run --scope` does.
#[test]
fn a_process_that_left_the_cgroup_receives_term_too() {
    let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(|path| Path::new(path).join("cgroup.procs"));
    let Some(procs) = root.iter().find(|path| path.exists() && !path.with_file_name("tasks").exists()) else {
        return fixtures::cannot_run("control groups v2 are not mounted");
    };
    if !fixtures::can_run_as_root() {
        return;
    }
    let text = format!(
        "sh -c 'trap \"echo asked; exit\" TERM; echo 0 >{}; echo out; while :; do sleep 0.02; done' & wait",
        procs.display()
    );
    let mut node = Node::new();
    let attempt = node.launch(&shell(1, &text));
    wait_for_output(&attempt, "out\n");
    attempt.request_cancel(UnixMillis(0), None).unwrap();
    let run = finish(attempt);
    assert_eq!((run.ended.outcome.clone(), run.text().as_str()), (Outcome::Cancelled, "out\nasked\n"));
    assert!(!run.ended.exit.killed);
}

/// The cancel only ended the wait for output, and the leftover processes continued.
#[test]
fn a_cancel_before_the_record_ends_processes_to_keep() {
    let mut node = Node::new();
    // The child holds the output open, so that the drain takes some seconds.
    let attempt = node.launch(&keeping(1, "sleep 1000 & echo $!; exit 0"));
    wait_for_output(&attempt, "\n");
    let (_, command) = running(&attempt);
    wait_for("the main process to end", || (!command.is_alive()).then_some(()));
    attempt.request_cancel(UnixMillis(0), None).unwrap();
    let run = finish(attempt);
    let left = run.ended.exit.left.clone().unwrap();
    assert_eq!((left.count, left.fate), (1, Fate::Ended), "{}", run.ended.message());
    let child: i32 = run.text().trim().parse().unwrap();
    wait_for("the child to end", || (!is_alive(child)).then_some(()));
}
