//! What History adds to a Run that has ended: nodes that the status omits, and the end of a Run whose Task was deleted.

use std::time::{Duration, Instant};

use sentinel_api::view::ExecutionView;
use sentinel_core::reconcile::run::TargetState;

use super::followed::{FollowEnd, FollowedRun};
use super::request::FollowRequest;
use crate::client::{Client, Query};
use crate::exit::Failure;
use crate::output::format::StreamFormat;
use crate::view::{Counts, Node, Run, Task};

/// How long History may lag behind the end of a Run.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause between two reads of History.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The Executions of a Run.
pub(super) async fn executions(
    client: &Client,
    task: &Task,
    run: &Run,
) -> Result<Vec<ExecutionView>, Failure> {
    let mut query = Query::default();
    query.add("taskUid", &task.metadata.uid);
    query.add("run", run.number);
    Ok(client.executions(query).await?)
}

/// Adds what is missing: for a deleted Task, whose status was not written again after its Run ended; and for JSON
/// output, which lists every node while a status lists at most 100.
pub(super) async fn complete(
    request: &FollowRequest,
    mut followed: FollowedRun,
) -> Result<FollowedRun, Failure> {
    let deleted = followed.end == FollowEnd::Deleted;
    let every_node = request.options.format == StreamFormat::Json;
    let Some(run) = followed.run.clone().filter(|_| deleted || every_node) else { return Ok(followed) };
    let mut nodes = ended_nodes(&request.client, &followed.task, &run).await?;
    // Nodes that are not in History are taken from the status.
    let missing = |node: &&Node| nodes.iter().all(|known| known.name != node.name);
    let missing: Vec<Node> = followed.task.status.nodes.iter().filter(missing).cloned().collect();
    nodes.extend(missing);
    if deleted && let Some(run) = &mut followed.run {
        run.counts = count(&nodes, run.target_count);
        add_verdict(&request.client, &followed.task, run).await?;
    }
    // Failures first, as in a status.
    nodes.sort_by_key(|node| node.state == "Succeeded");
    followed.task.status.nodes = nodes;
    Ok(followed)
}

/// The nodes of a Run in History, once all have ended or [`HISTORY_TIMEOUT`] has passed.
async fn ended_nodes(client: &Client, task: &Task, run: &Run) -> Result<Vec<Node>, Failure> {
    let deadline = Instant::now() + HISTORY_TIMEOUT;
    loop {
        let items = executions(client, task, run).await?;
        let ended = items.iter().filter(|item| item.outcome.is_some()).count() as u64;
        if ended >= run.target_count || Instant::now() > deadline {
            return Ok(items.iter().map(Node::from).collect());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Adds verdict and end of the Run from History.
async fn add_verdict(client: &Client, task: &Task, run: &mut Run) -> Result<(), Failure> {
    let mut query = Query::default();
    query.add("taskUid", &task.metadata.uid);
    let runs = client.runs(query).await?;
    if let Some(archived) = runs.into_iter().find(|archived| archived.run == run.number) {
        run.verdict = run.verdict.take().or(archived.verdict);
        run.finished_at = run.finished_at.take().or(archived.finished_at);
    }
    Ok(())
}

/// Counts the nodes by state; unknown ones count as waiting.
fn count(nodes: &[Node], targets: u64) -> Counts {
    let mut counts = Counts::default();
    for node in nodes {
        match TargetState::from_status(&node.state) {
            TargetState::Succeeded => counts.succeeded += 1,
            TargetState::Unreachable => counts.unreachable += 1,
            TargetState::Waiting => {}
            TargetState::Running => counts.running += 1,
            TargetState::Failed => counts.failed += 1,
        }
    }
    let known = counts.succeeded + counts.unreachable + counts.running + counts.failed;
    counts.waiting = targets.saturating_sub(known);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_nodes_as_a_status_does() {
        let node = |state: &str| Node { state: state.to_owned(), ..Node::default() };
        let states = ["Succeeded", "StartTimedOut", "Lost", "TimedOut", "Running", "WaitingForNode"];
        let nodes: Vec<Node> = states.into_iter().map(node).collect();
        let counts = count(&nodes, 7);
        let Counts { waiting, running, succeeded, failed, unreachable } = counts;
        assert_eq!((succeeded, unreachable, failed, running, waiting), (1, 2, 1, 1, 2));
    }
}
