//! The exit code of a Run, and advice on a command that did not start.

use sentinel_api::view::AttemptDetails;
use sentinel_core::reconcile::run::TargetState;

use super::archived::executions;
use super::followed::{FollowEnd, FollowedRun, is_cancelled};
use crate::client::Client;
use crate::exit::{
    FAILED, Failure, INTERRUPTED, NOT_EXECUTABLE, NOT_FOUND, OK, RUN_FAILED, SIGNALED, TIMED_OUT,
};
use crate::view::{Node, Run, Standing, Task};

/// SIGKILL, which the kernel sends when memory is exhausted.
const SIGKILL: u8 = 9;

/// The exit code of a Run: that of the command; with several nodes, the highest.
pub(crate) async fn exit_code(client: &Client, followed: &FollowedRun) -> Result<u8, Failure> {
    let Some(run) = &followed.run else {
        let complete =
            followed.end == FollowEnd::AlreadyExecuted && followed.task.standing() == Standing::Complete;
        return Ok(if complete { OK } else { RUN_FAILED });
    };
    if run.target_count == 0 {
        return Ok(RUN_FAILED);
    }
    let complete = run.verdict.as_deref() == Some("Complete") && run.counts.failed == 0;
    if complete || run.counts.succeeded == run.target_count {
        return Ok(OK);
    }
    let cancelled = is_cancelled(run) || followed.end == FollowEnd::Deleted;
    let mut highest = 0;
    for node in &followed.task.status.nodes {
        let code = if let Some(code) = code_of(node, cancelled) {
            code
        } else {
            let details = details(client, &followed.task, run.number, node).await?;
            detailed_code(&node.state, details.reason.as_deref(), details.signal)
        };
        highest = highest.max(code);
    }
    highest = highest.max(unlisted_code(client, &followed.task, run).await?);
    Ok(if highest == 0 { FAILED } else { highest })
}

/// The highest exit code of nodes that a status omits. It lists failures first, so there are none if it lists a success.
async fn unlisted_code(client: &Client, task: &Task, run: &Run) -> Result<u8, Failure> {
    let listed = task.status.nodes.iter().filter(|node| node.state != "Succeeded").count() as u64;
    if listed >= run.target_count.saturating_sub(run.counts.succeeded) {
        return Ok(0);
    }
    let items = executions(client, task, run).await?;
    let failed = items.iter().filter(|item| item.outcome.as_deref() != Some("Succeeded"));
    Ok(failed.filter_map(|item| item.exit_code).max().unwrap_or(0))
}

/// The exit code of a node, or `None` if it depends on the details of its Execution.
fn code_of(node: &Node, cancelled: bool) -> Option<u8> {
    Some(match node.state.as_str() {
        "Succeeded" => OK,
        "Failed" => node.exit_code.unwrap_or(FAILED),
        "TimedOut" | "IdleTimedOut" | "StartTimedOut" => TIMED_OUT,
        "StartFailed" | "Signaled" => return None,
        "OomKilled" => SIGNALED + SIGKILL,
        "Cancelled" => INTERRUPTED,
        // The Run was cancelled before its node started the command.
        state if cancelled && has_not_started(state) => INTERRUPTED,
        _ => RUN_FAILED,
    })
}

fn has_not_started(state: &str) -> bool {
    state == "NotStarted" || TargetState::from_status(state) == TargetState::Waiting
}

/// The exit code of an Execution whose command could not be started or was ended by a signal.
fn detailed_code(state: &str, reason: Option<&str>, signal: Option<i32>) -> u8 {
    match (state, reason, signal) {
        ("StartFailed", Some("ProgramNotFound"), _) => NOT_FOUND,
        ("StartFailed", _, _) => NOT_EXECUTABLE,
        (_, _, Some(number @ 1..=64)) => SIGNALED + number.unsigned_abs() as u8,
        _ => RUN_FAILED,
    }
}

/// A hint about a command that could not be started on a node, if its mistake is a common one.
pub(crate) async fn advice(client: &Client, followed: &FollowedRun) -> Option<String> {
    let run = followed.run.as_ref()?;
    let node = followed.task.status.nodes.iter().find(|node| node.state == "StartFailed")?;
    let hint = super::hint::hint(&followed.task.spec["run"]["command"])?;
    let details = details(client, &followed.task, run.number, node).await.ok()?;
    (details.reason.as_deref() == Some("ProgramNotFound")).then_some(hint)
}

/// Why and by which signal an Execution ended, if known.
#[derive(Default)]
struct EndDetails {
    reason: Option<String>,
    signal: Option<i32>,
}

async fn details(client: &Client, task: &Task, run: u32, node: &Node) -> Result<EndDetails, Failure> {
    let details = client.execution(&task.metadata.uid, run, &node.name).await?.details;
    let known = |details: AttemptDetails| EndDetails { reason: details.reason, signal: details.signal };
    Ok(details.map(known).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(state: &str) -> Node {
        Node { state: state.to_owned(), ..Node::default() }
    }

    #[test]
    fn a_cancelled_run_exits_130_even_if_no_node_started_it() {
        for state in ["NotStarted", "WaitingForNode", "Pending", ""] {
            assert_eq!(code_of(&node(state), true), Some(INTERRUPTED), "{state:?}");
            assert_eq!(code_of(&node(state), false), Some(RUN_FAILED), "{state:?}");
        }
        assert_eq!(code_of(&node("Cancelled"), false), Some(INTERRUPTED));
        for state in ["Lost", "Refused", "CancelFailed"] {
            assert_eq!(code_of(&node(state), true), Some(RUN_FAILED), "{state:?}");
        }
    }

    #[test]
    fn details_decide_between_start_failures_and_signals() {
        for (state, reason, signal, expected) in [
            ("StartFailed", Some("ProgramNotFound"), None, NOT_FOUND),
            ("StartFailed", Some("NotExecutable"), None, NOT_EXECUTABLE),
            ("StartFailed", None, None, NOT_EXECUTABLE),
            ("Signaled", None, Some(9), 137),
            ("Signaled", None, None, RUN_FAILED),
        ] {
            assert_eq!(code_of(&node(state), false), None);
            assert_eq!(detailed_code(state, reason, signal), expected, "{state} {reason:?} {signal:?}");
        }
    }
}
