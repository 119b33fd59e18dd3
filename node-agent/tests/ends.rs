//! What is known of a command's end beside its Outcome, and what becomes of what it leaves behind: real processes
//! under real supervisors.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may panic"
)]

mod fixtures;

use std::path::{Path, PathBuf};

use fixtures::{Finished, Node, PROGRAM, finish, is_alive, running, shell, start, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use sentinel_node_agent::journal::AttemptDir;
use sentinel_node_agent::spool::Reader;
use sentinel_node_agent::supervisor::{Launcher, Warm};
use sentinel_protocol::exit::{Clock, ExitDetails, Fate};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::request::Leftovers;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::Start;

/// Which clock ended it, and after how long.
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
fn the_exit_code_of_a_command_that_ends_itself_on_term_is_kept() {
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
    attempt.request_cancel(UnixMillis(0)).unwrap();
    let run = finish(attempt);
    assert_eq!(run.ended.outcome, Outcome::Cancelled);
    assert_eq!(run.ended.exit, ExitDetails { code: Some(3), ..ExitDetails::default() });
    assert_eq!(run.ended.message(), "cancelled; exited with code 3");
}

#[test]
fn a_signal_that_ended_a_command_of_ours_is_kept_and_so_is_whether_kill_was_needed() {
    let mut node = Node::new();
    let mut obedient = start(1, &["sleep", "1000"]);
    obedient.deadlines.run_ms = Some(200);
    let exit = node.run(&obedient).ended.exit;
    assert_eq!((exit.code, exit.signal, exit.killed), (None, Some(15), false));
    let mut deaf = shell(2, "trap '' TERM; while :; do sleep 0.05; done");
    deaf.deadlines.run_ms = Some(200);
    deaf.deadlines.grace_ms = 200;
    let run = node.run(&deaf);
    assert_eq!((run.ended.exit.signal, run.ended.exit.killed), (Some(9), true));
    assert!(run.ended.message().ends_with("; KILL was needed"), "{}", run.ended.message());
    // The command obeys, a child of it does not.
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
fn the_clock_that_ended_a_command_is_named() {
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
    // What ended by itself was ended by no clock.
    let mut quick = shell(4, "exit 0");
    quick.deadlines.run_ms = Some(60_000);
    assert_eq!(node.run(&quick).ended.exit, ExitDetails { code: Some(0), ..ExitDetails::default() });
}

#[test]
fn a_command_killed_for_its_memory_keeps_the_signal() {
    let mut greedy = start(1, &["tail", "/dev/zero"]);
    greedy.request.limits.memory = Some(32 << 20);
    let run = Node::new().run(&greedy);
    if matches!(run.ended.outcome, Outcome::OomKilled { .. }) {
        assert_eq!((run.ended.exit.signal, run.ended.exit.killed), (Some(9), false));
    }
}

/// Two daemons, one of them by double fork and in a session of its own, that do not hold the output.
const DAEMONS: &str = "sleep 1000 >/dev/null 2>&1 & echo $!; \
    (setsid sh -c 'echo $$; exec sleep 1001 >/dev/null 2>&1' &); sleep 0.2; exit 4";

#[test]
fn what_a_command_left_behind_is_ended_and_named() {
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
fn left_processes_that_ignore_term_are_killed_which_is_recorded() {
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
fn output_that_is_held_open_is_closed_after_the_drain_which_is_recorded() {
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
fn a_process_that_ends_right_after_its_command_was_not_left_behind() {
    let mut node = Node::with(Warm::Yes);
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

/// Control groups of a supervisor's command, in all trees.
fn groups_of(supervisor: i32) -> Vec<PathBuf> {
    let trees = ["", "unified", "cpu", "memory", "pids"].map(|tree| Path::new("/sys/fs/cgroup").join(tree));
    let groups = trees.iter().flat_map(|tree| std::fs::read_dir(tree.join("sentinel")).into_iter().flatten());
    let ours =
        |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{supervisor}."));
    groups.map(|entry| entry.unwrap().path()).filter(ours).collect()
}

#[test]
fn processes_that_are_to_be_kept_outlive_their_attempt_its_supervisor_and_its_record() {
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
    assert!(took < 4_500, "nothing was waited for: {took} ms");
    wait_for("the supervisor to end", || (!supervisor.is_alive()).then_some(()));
    run.attempt.remove().unwrap();
    let kept = pids(&run);
    assert!(kept.iter().all(|pid| is_alive(*pid)), "{kept:?}");
    // They stay in the group of their Attempt, which goes when they have gone.
    let groups = groups_of(supervisor.pid);
    for group in &groups {
        let inside = std::fs::read_to_string(group.join("cgroup.procs")).unwrap();
        assert!(kept.iter().all(|pid| inside.lines().any(|line| line == pid.to_string())), "{inside}");
    }
    // Another Attempt is not held up by them.
    assert_eq!(node.outcome(&start(2, &["true"])), Outcome::Succeeded { exit_code: 0 });
    assert!(kept.iter().all(|pid| is_alive(*pid)), "another agent's start leaves them alone");
    for pid in kept {
        end(pid);
    }
    drop(Launcher::of(PROGRAM, Warm::No));
    assert_eq!(groups_of(supervisor.pid), Vec::<PathBuf>::new());
}

#[test]
fn a_kept_process_stays_under_the_limits_of_its_command() {
    let mut node = Node::new();
    let mut limited = keeping(1, "sleep 1000 >/dev/null 2>&1 & echo $!; sleep 0.4");
    limited.request.limits.memory = Some(64 << 20);
    let attempt = node.launch(&limited);
    let run = finish(attempt);
    if let Outcome::StartFailed { message, .. } = &run.ended.outcome {
        assert!(message.starts_with("run.limits.memory cannot be held on this node: "), "{message}");
        eprintln!("NOT RUN: {message}");
        return;
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
fn the_output_of_a_kept_process_is_taken_for_as_long_as_the_drain_and_then_closed() {
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
    // The subshell, and what it has become or waits for.
    for process in &run.ended.exit.left.as_ref().unwrap().processes {
        let _ = kill_process(Pid::from_raw(process.pid).unwrap(), Signal::KILL);
    }
    wait_for("the process to end", || (!is_alive(kept)).then_some(()));
}

#[test]
fn what_is_to_be_kept_is_ended_all_the_same_when_the_command_itself_is() {
    let mut node = Node::new();
    let text = "sleep 1000 >/dev/null 2>&1 & echo $!; wait";
    let mut late = keeping(1, text);
    late.deadlines.run_ms = Some(300);
    let run = node.run(&late);
    assert_eq!((&run.ended.outcome, &run.ended.exit.left), (&Outcome::TimedOut, &None));
    assert!(!is_alive(pids(&run)[0]));
    let attempt = node.launch(&keeping(2, text));
    wait_for_output(&attempt, "\n");
    attempt.request_cancel(UnixMillis(0)).unwrap();
    let run = finish(attempt);
    assert_eq!(run.ended.outcome, Outcome::Cancelled);
    assert!(!is_alive(pids(&run)[0]));
}

#[test]
fn a_command_that_leaves_nothing_ends_as_ever_when_it_may_keep() {
    let run = Node::new().run(&keeping(1, "echo done; exit 3"));
    assert_eq!(
        (run.ended.outcome.clone(), run.text().as_str()),
        (Outcome::Failed { exit_code: 3 }, "done\n")
    );
    assert_eq!(run.ended.exit, ExitDetails { code: Some(3), ..ExitDetails::default() });
}

/// As `systemd-run --scope` does it.
#[test]
fn a_process_that_left_the_control_group_of_its_command_is_asked_to_end_like_the_others() {
    let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(|path| Path::new(path).join("cgroup.procs"));
    let Some(procs) = root.iter().find(|path| path.exists() && !path.with_file_name("tasks").exists()) else {
        eprintln!("NOT RUN: control groups v2 are not mounted");
        return;
    };
    if !fixtures::is_root() {
        eprintln!("NOT RUN: only root can leave a control group");
        return;
    }
    let text = format!(
        "sh -c 'trap \"echo asked; exit\" TERM; echo 0 >{}; echo out; while :; do sleep 0.02; done' & wait",
        procs.display()
    );
    let mut node = Node::new();
    let attempt = node.launch(&shell(1, &text));
    wait_for_output(&attempt, "out\n");
    attempt.request_cancel(UnixMillis(0)).unwrap();
    let run = finish(attempt);
    assert_eq!((run.ended.outcome.clone(), run.text().as_str()), (Outcome::Cancelled, "out\nasked\n"));
    assert!(!run.ended.exit.killed);
}

/// It was taken for the end of the wait for output, and what the command had left went on.
#[test]
fn a_cancel_before_the_end_is_recorded_ends_what_would_be_kept() {
    let mut node = Node::new();
    // The child holds the output open, so that its end is awaited for some seconds.
    let attempt = node.launch(&keeping(1, "sleep 1000 & echo $!; exit 0"));
    wait_for_output(&attempt, "\n");
    let (_, command) = running(&attempt);
    wait_for("the main process to end", || (!command.is_alive()).then_some(()));
    attempt.request_cancel(UnixMillis(0)).unwrap();
    let run = finish(attempt);
    let left = run.ended.exit.left.clone().unwrap();
    assert_eq!((left.count, left.fate), (1, Fate::Ended), "{}", run.ended.message());
    let child: i32 = run.text().trim().parse().unwrap();
    wait_for("the child to end", || (!is_alive(child)).then_some(()));
}
