//! An Attempt is handed over to a supervisor: it is started once at most, and its end is recorded whatever becomes of the agent.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sentinel_node_agent::journal::{AbandonResult, Abandonment, AttemptState};
use sentinel_node_agent::spool::{self, Reader};
use sentinel_node_agent::supervisor::{Liveness, Prefork, StartRecord, end_tree, liveness};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::time::UnixMillis;

use super::fixtures::{self, Node, finish, running, shell, start, wait_for};

#[test]
fn commands_end_with_a_record_without_the_agent() {
    let mut node = Node::with(Prefork::On);
    let attempts: Vec<_> =
        (1..=8).map(|n| node.launch(&shell(n, &format!("sleep 0.3; echo {n}; exit {n}")))).collect();
    // Supervisors depend neither on the launcher nor on the lock of the state directory.
    drop(node.launcher);
    drop(node.state);
    for (n, attempt) in (1u8..).zip(attempts) {
        let run = finish(attempt);
        assert_eq!(
            (run.ended.outcome.clone(), run.text()),
            (Outcome::Failed { exit_code: n }, format!("{n}\n"))
        );
    }
}

#[test]
fn a_dead_supervisors_tree_is_ended_and_its_output_recovered() {
    let mut node = Node::new();
    let attempt = node.launch(&shell(1, "echo before; trap '' TERM; setsid sleep 1000 & sleep 1000"));
    let (supervisor, command) = running(&attempt);
    wait_for("the first output", || {
        (!Reader::open(&attempt).unwrap().read(0, 1).unwrap().is_empty()).then_some(())
    });
    assert_eq!(liveness(&attempt).unwrap(), Liveness::Alive);
    assert!(supervisor.is_alive() && command.is_alive());
    kill_process(Pid::from_raw(supervisor.pid).unwrap(), Signal::KILL).unwrap();
    wait_for("the lock", || (liveness(&attempt).unwrap() != Liveness::Alive).then_some(()));
    assert_eq!(liveness(&attempt).unwrap(), Liveness::Dead { populated: true });
    let lock = attempt.try_lock().unwrap().expect("the lock of a dead holder is free");
    assert_eq!(end_tree(&attempt.state().unwrap(), fixtures::PATIENCE), Vec::<i32>::new());
    assert!(!command.is_alive());
    let summary = spool::recover(&lock).unwrap();
    assert_eq!((summary.end, summary.stdout.bytes), (7, 7));
    drop(lock);
    assert_eq!(liveness(&attempt).unwrap(), Liveness::Dead { populated: false });
    assert_eq!(attempt.exit().unwrap(), None);
}

#[test]
fn a_late_supervisor_does_not_start_an_abandoned_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let witness = dir.path().join("started");
    let mut node = Node::new();
    let attempt = node.accept(&start(1, &["touch", witness.to_str().unwrap()]));
    assert_eq!(attempt.abandon(Abandonment::HandedBack).unwrap(), AbandonResult::Abandoned);
    node.launcher.launch(&attempt).unwrap();
    wait_for("the supervisor to end", || {
        node.launcher.reap();
        (node.launcher.running() == 0).then_some(())
    });
    assert!(!witness.exists());
    assert_eq!(attempt.exit().unwrap(), None);
    assert_eq!(attempt.state().unwrap(), AttemptState::Abandoned { why: Abandonment::HandedBack });
    assert_eq!(attempt.abandon(Abandonment::Cancelled).unwrap(), AbandonResult::Abandoned, "idempotent");
}

#[test]
fn an_attempt_handed_to_many_supervisors_is_started_once() {
    let dir = tempfile::tempdir().unwrap();
    let witness = dir.path().join("starts");
    let mut node = Node::new();
    let attempt = node.accept(&shell(1, &format!("echo x >> {}; sleep 0.1", witness.display())));
    for _ in 0..5 {
        node.launcher.launch(&attempt).unwrap();
    }
    assert_eq!(
        attempt.abandon(Abandonment::HandedBack).unwrap_or(AbandonResult::TooLate),
        match attempt.state().unwrap() {
            AttemptState::Abandoned { .. } => AbandonResult::Abandoned,
            _ => AbandonResult::TooLate,
        }
    );
    wait_for("all supervisors to end", || {
        node.launcher.reap();
        (node.launcher.running() == 0).then_some(())
    });
    let started = std::fs::read_to_string(&witness).unwrap_or_default().lines().count();
    let abandoned = matches!(attempt.state().unwrap(), AttemptState::Abandoned { .. });
    assert_eq!(started, usize::from(!abandoned), "started once, or abandoned and not at all");
}

#[test]
fn a_late_or_cancelled_start_starts_nothing() {
    let mut node = Node::new();
    let mut late = start(1, &["true"]);
    late.deadlines.start_ms = 0;
    let run = node.run(&late);
    assert_eq!((run.ended.outcome, run.ended.started_at), (Outcome::StartTimedOut { why: None }, None));
    let attempt = node.accept(&start(2, &["true"]));
    attempt.request_cancel(UnixMillis(1), None).unwrap();
    node.launcher.launch(&attempt).unwrap();
    let run = finish(attempt);
    assert_eq!((run.ended.outcome, run.ended.started_at), (Outcome::Cancelled, None));
}

/// The disk of the agent, or the server of the working directory, may not answer for any time.
#[test]
fn what_is_cancelled_or_late_while_its_start_waits_to_be_durable_is_not_started() {
    let dir = tempfile::tempdir().unwrap();
    let witness = dir.path().join("started");
    let mut node = Node::new();
    let mut waiting = |number, start_ms| {
        let mut start = start(number, &["touch", witness.to_str().unwrap()]);
        start.deadlines.start_ms = start_ms;
        let attempt = node.accept(&start);
        let handed_over = node.launcher.launch_with(&attempt, None, |_| StartRecord::InLog).unwrap();
        (attempt, handed_over)
    };
    let (cancelled, handed_over) = waiting(1, 600_000);
    wait_for("the start to be announced", || {
        (cancelled.state().unwrap() != AttemptState::Accepted).then_some(())
    });
    cancelled.request_cancel(UnixMillis(1), None).unwrap();
    handed_over.confirm();
    assert_eq!(finish(cancelled).ended.outcome, Outcome::Cancelled);
    let (late, handed_over) = waiting(2, 500);
    let accepted = Instant::now();
    wait_for("the deadline to pass", || (accepted.elapsed() > Duration::from_millis(500)).then_some(()));
    handed_over.confirm();
    let ended = finish(late).ended;
    assert_eq!((ended.outcome, ended.started_at), (Outcome::StartTimedOut { why: None }, None));
    assert!(!witness.exists());
}

#[test]
fn a_preforked_supervisor_exits_with_its_agent() {
    let mut node = Node::with(Prefork::On);
    assert_eq!(node.outcome(&start(1, &["true"])), Outcome::Succeeded { exit_code: 0 });
    let log = std::fs::read_to_string(
        node.state.attempt(&"0b6c-1/1/node-1/1".parse().unwrap()).path().join("supervisor.log"),
    );
    assert_eq!(log.unwrap_or_default(), "", "a successful run logs nothing");
    drop(node.launcher);
}

/// A start that was handed over before it was durable: the command waits for the agent's answer.
#[test]
fn a_command_is_executed_once_its_start_is_confirmed_and_never_after_it_was_refused() {
    let mut node = Node::new();
    let launch = |node: &mut Node, number| {
        let attempt = node.accept(&shell(number, "echo x"));
        let handed_over = node.launcher.launch_with(&attempt, None, |_| StartRecord::InLog).unwrap();
        (attempt, handed_over)
    };
    let (attempt, handed_over) = launch(&mut node, 1);
    handed_over.confirm();
    assert_eq!(finish(attempt).ended.outcome, Outcome::Succeeded { exit_code: 0 });

    // An fsync that follows a failed one proves nothing, so the supervisor must not try it itself.
    let (attempt, handed_over) = launch(&mut node, 2);
    handed_over.refuse();
    let refused = finish(attempt).ended;
    assert!(
        matches!(&refused.outcome, Outcome::StartFailed { message, .. } if message.contains("journal of the node has failed")),
        "{refused:?}"
    );

    // An agent that was killed has not answered.
    let (attempt, handed_over) = launch(&mut node, 3);
    drop(handed_over);
    assert_eq!(finish(attempt).ended.outcome, Outcome::Succeeded { exit_code: 0 });
}
