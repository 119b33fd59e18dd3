//! The end of dev mode: what still runs is reported, and ended.

use std::time::Duration;

use serde_json::Value;

use crate::client::{Client, Query};
use crate::commands::cancel;
use crate::exit::Failure;
use crate::output::format::note;
use crate::view::Task;

use super::signals::Signals;

/// How long commands get to end beyond their own grace.
const BEYOND_GRACE: Duration = Duration::from_secs(5);

/// Most commands that are named one by one.
const NAMED: usize = 5;

/// How long a command has to end where a second signal says not to wait: its supervisor has heard of it by then.
const AT_LEAST: Duration = Duration::from_secs(2);

/// Ends every command of dev mode, and waits until none runs; after another signal, for a moment only.
pub(super) async fn end_commands(client: &Client, signals: &mut Signals) -> Result<(), Failure> {
    let tasks: Vec<Task> = client
        .list_all("/api/v1/tasks", Query::default())
        .await?
        .iter()
        .map(Task::of)
        .filter(|task| task.status.run.as_ref().is_some_and(|run| run.verdict.is_none()))
        .collect();
    if tasks.is_empty() {
        note("\nEnding; nothing runs.");
        return Ok(());
    }
    let named: Vec<String> = tasks.iter().take(NAMED).map(Task::full_name).collect();
    let more = tasks.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    note(&format!(
        "\nEnding; what still runs is cancelled: {}{more}. Ctrl-C again does not wait.",
        named.join(", ")
    ));
    for task in &tasks {
        // It may have ended by itself meanwhile; the wait below finds out.
        let _ = cancel::request(client, &task.metadata.namespace, &task.metadata.name, None).await;
    }
    let grace = tasks.iter().map(|task| grace(&task.spec)).max().unwrap_or_default();
    tokio::select! {
        ended = tokio::time::timeout(grace + BEYOND_GRACE, all_ended(client)) => match ended {
            Ok(ended) => ended?,
            Err(_) => note("sentinel: some commands did not end in time"),
        },
        signal = signals.next() => {
            note(&format!("\n{signal}: not waiting any longer"));
            if let Ok(ended) = tokio::time::timeout(AT_LEAST, all_ended(client)).await {
                ended?;
            }
        }
    }
    Ok(())
}

async fn all_ended(client: &Client) -> Result<(), Failure> {
    loop {
        let tasks = client.list_all("/api/v1/tasks", Query::default()).await?;
        let goes_on = |value: &Value| Task::of(value).status.run.is_some_and(|run| run.verdict.is_none());
        if !tasks.iter().any(goes_on) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The time that a Task's commands have between TERM and KILL.
fn grace(spec: &Value) -> Duration {
    let text = spec["timeouts"]["grace"].as_str().unwrap_or("10s");
    sentinel_operator::config::parse_duration(text).unwrap_or(Duration::from_secs(10))
}
