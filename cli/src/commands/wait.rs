//! `wait`: waits until a Task meets a condition.

use std::time::Duration;

use sentinel_protocol::human::human_duration;

use crate::args::{Until, WaitArgs};
use crate::client::{Client, ClientError, Event};
use crate::exit::{ExitResult, FAILED, Failure, OK};
use crate::follow::summarize_failures;
use crate::output::format::print;
use crate::view::{Standing, Task};

/// Pause before events are requested again after an error.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Pause before events are requested again after their stream ended.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn execute(client: &Client, namespace: &str, args: &WaitArgs) -> ExitResult {
    let condition = match args.until {
        Until::Ended => Condition::Ended,
        Until::Complete => Condition::Complete,
        Until::Failed => Condition::Failed,
        Until::Deleted => Condition::Deleted,
    };
    let (namespace, name) = args.task.within(namespace);
    let result = wait_for(client, namespace, name, condition, args.timeout).await?;
    if let Some(task) = &result.failed {
        summarize_failures(task);
    }
    print(&format!("task/{name} {}\n", result.description))?;
    Ok(if result.met { OK } else { FAILED })
}

/// A condition to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// The Run of the latest edit has ended.
    Ended,
    /// It is complete.
    Complete,
    /// It has failed.
    Failed,
    /// The Task is deleted.
    Deleted,
    /// The Run with this number has ended.
    RunEnded(u32),
}

/// How the wait ended.
#[derive(Debug)]
pub(super) struct WaitResult {
    /// Whether the condition is met; otherwise it cannot be met any more.
    met: bool,
    /// What became of the Task.
    pub(super) description: String,
    /// The Task, where its Run has failed.
    failed: Option<Box<Task>>,
}

impl WaitResult {
    fn new(met: bool, description: impl Into<String>) -> Self {
        Self { met, description: description.into(), failed: None }
    }
}

/// Waits until a Task meets the condition or can no longer meet it.
///
/// # Errors
/// The timeout expired, the Task does not exist, or the server does not answer.
pub(super) async fn wait_for(
    client: &Client,
    namespace: &str,
    name: &str,
    condition: Condition,
    timeout: Option<Duration>,
) -> Result<WaitResult, Failure> {
    let wait = watch(client, namespace, name, condition);
    match timeout {
        None => wait.await,
        Some(limit) => tokio::time::timeout(limit, wait).await.unwrap_or_else(|_| {
            let after = human_duration(limit.as_millis() as u64);
            Err(Failure::timed_out(format!("timed out after {after} waiting for task {namespace}/{name}"))
                .hint(format!("Check its status with: sentinel get task {name}")))
        }),
    }
}

async fn watch(
    client: &Client,
    namespace: &str,
    name: &str,
    condition: Condition,
) -> Result<WaitResult, Failure> {
    let mut observed = false;
    loop {
        let mut events = match client.task_events(namespace, name).await {
            Ok(events) => events,
            Err(error) if !observed => return missing(condition, error),
            Err(_) => {
                // The server may be restarting, or the Task was deleted between two connections.
                tokio::time::sleep(RETRY_PAUSE).await;
                match client.task(namespace, name).await {
                    Err(error) if condition == Condition::Deleted && error.is_absence() => {
                        return Ok(WaitResult::new(true, "deleted"));
                    }
                    _ => continue,
                }
            }
        };
        loop {
            let event = match events.next().await {
                Ok(Some(event)) => event,
                Err(error) if !error.is_retryable() => return Err(error.into()),
                Ok(None) | Err(_) => break,
            };
            observed = true;
            match event {
                Event::Task(task) => {
                    if let Some(result) = evaluate(&task, condition) {
                        return Ok(result);
                    }
                }
                Event::Deleted(_) => {
                    let met = matches!(condition, Condition::Deleted | Condition::RunEnded(_));
                    return Ok(WaitResult::new(met, "deleted"));
                }
                Event::Synced => {}
            }
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

/// The result for a Task that did not exist in the first place.
fn missing(condition: Condition, error: ClientError) -> Result<WaitResult, Failure> {
    if condition == Condition::Deleted && error.is_absence() {
        Ok(WaitResult::new(true, "deleted"))
    } else {
        Err(error.into())
    }
}

/// The result, if the Task meets the condition or can no longer meet it.
fn evaluate(task: &Task, condition: Condition) -> Option<WaitResult> {
    match condition {
        Condition::RunEnded(number) => {
            let run = task.status.run.as_ref()?;
            if run.number > number {
                return Some(WaitResult::new(true, "ended"));
            }
            let verdict = run.verdict.as_ref().filter(|_| run.number == number)?;
            let is_cancelled = verdict == "Failed" && run.stopping.as_deref() == Some("Cancelled");
            let word = if is_cancelled { "cancelled".to_owned() } else { verdict.to_lowercase() };
            return Some(WaitResult::new(true, word));
        }
        Condition::Deleted => return None,
        Condition::Ended | Condition::Complete | Condition::Failed => {}
    }
    match task.standing() {
        Standing::UnderWay => None,
        Standing::Complete => Some(WaitResult::new(condition != Condition::Failed, "complete")),
        Standing::Failed(why) => {
            let verdict = if task.status.phase == "Cancelled" { "cancelled" } else { "failed" };
            let met = condition == Condition::Failed;
            Some(WaitResult {
                failed: Some(Box::new(task.clone())),
                ..WaitResult::new(met, format!("{verdict}: {why}"))
            })
        }
        Standing::Invalid(why) => Some(WaitResult::new(false, format!("cannot be run: {why}"))),
    }
}
