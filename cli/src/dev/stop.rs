//! The end of dev mode: running commands are reported and cancelled.

use std::time::Duration;

use serde_json::Value;

use super::signals::Signals;
use crate::client::Client;
use crate::exit::Failure;
use crate::output::format::note;
use crate::view::Task;

/// How much longer than their grace period commands may take to end.
const EXTRA_TIME: Duration = Duration::from_secs(5);

/// Maximum number of Tasks that are named.
const MAX_NAMES: usize = 5;

/// How long to wait after a second signal; by then every supervisor has received the cancellation.
const HURRIED: Duration = Duration::from_secs(2);

/// How long the operator may take to answer before it is not asked again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between two reads of the Tasks.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Cancels every Run and waits until all have ended; after another signal, only for [`HURRIED`].
pub(super) async fn cancel_all(client: &Client, signals: &mut Signals) -> Result<(), Failure> {
    let Ok(tasks) = tokio::time::timeout(ANSWER_TIMEOUT, active_tasks(client)).await else {
        note("\nStopping; the operator does not answer, so running commands are left to the next dev mode.");
        return Ok(());
    };
    let tasks = tasks?;
    if tasks.is_empty() {
        note("\nStopping; no commands are running.");
        return Ok(());
    }
    let named: Vec<String> = tasks.iter().take(MAX_NAMES).map(Task::full_name).collect();
    let more = tasks.len().saturating_sub(MAX_NAMES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    note(&format!(
        "\nStopping; cancelling running commands: {}{more}. Press Ctrl-C again to stop without waiting.",
        named.join(", ")
    ));
    let cancel = async {
        for task in &tasks {
            // Fails if the Run has ended meanwhile; the wait below tells.
            let _ = client.cancel_task(&task.metadata.namespace, &task.metadata.name, None).await;
        }
    };
    let _ = tokio::time::timeout(ANSWER_TIMEOUT, cancel).await;
    let grace = tasks.iter().map(|task| grace(&task.spec)).max().unwrap_or_default();
    tokio::select! {
        ended = tokio::time::timeout(grace + EXTRA_TIME, all_ended(client)) => match ended {
            Ok(ended) => ended?,
            Err(_) => note("sentinel: some commands did not end in time"),
        },
        signal = signals.next() => {
            note(&format!("\n{signal}: not waiting any longer"));
            if let Ok(ended) = tokio::time::timeout(HURRIED, all_ended(client)).await {
                ended?;
            }
        }
    }
    Ok(())
}

/// The Tasks with an active Run.
async fn active_tasks(client: &Client) -> Result<Vec<Task>, Failure> {
    let tasks = client.tasks(None).await?;
    let is_active = |task: &Task| task.status.run.as_ref().is_some_and(|run| run.verdict.is_none());
    Ok(tasks.into_iter().filter(is_active).collect())
}

async fn all_ended(client: &Client) -> Result<(), Failure> {
    while !active_tasks(client).await?.is_empty() {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// `timeouts.grace` of a Task: the time between SIGTERM and SIGKILL.
fn grace(spec: &Value) -> Duration {
    let text = spec["timeouts"]["grace"].as_str().unwrap_or("10s");
    sentinel_operator::config::parse_duration(text).unwrap_or(Duration::from_secs(10))
}
