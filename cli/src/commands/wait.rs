//! `wait`: until a Task is so.

use std::time::Duration;

use crate::args::{Until, WaitArgs};
use crate::client::{Client, Event};
use crate::exit::{Ended, FAILED, Failure, OK};
use crate::output::format::print;
use crate::view::{Standing, Task};

pub(super) async fn perform(client: &Client, namespace: &str, args: &WaitArgs) -> Ended {
    let what = match args.until {
        Until::Ended => What::Over,
        Until::Complete => What::Complete,
        Until::Failed => What::Failed,
        Until::Deleted => What::Deleted,
    };
    let outcome = until(client, namespace, &args.task, what, args.timeout).await?;
    print(&format!("task/{} {}\n", args.task, outcome.sentence))?;
    Ok(if outcome.as_wished { OK } else { FAILED })
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// The Run of the latest edit is over.
    Over,
    /// It is complete.
    Complete,
    /// It has failed.
    Failed,
    /// The Task is gone.
    Deleted,
    /// The Run with this number is over.
    RunOver(u32),
}

/// What it came to.
#[derive(Debug)]
pub(super) struct Outcome {
    as_wished: bool,
    sentence: String,
}

/// Waits for it.
pub(super) async fn until(
    client: &Client,
    namespace: &str,
    name: &str,
    what: What,
    timeout: Option<Duration>,
) -> Result<Outcome, Failure> {
    let wait = wait(client, namespace, name, what);
    match timeout {
        None => wait.await,
        Some(limit) => tokio::time::timeout(limit, wait).await.unwrap_or_else(|_| {
            Err(Failure::timed_out(format!(
                "task {namespace}/{name} is not so after {}",
                crate::output::time::span(limit.as_millis() as u64)
            ))
            .hint(format!("See how it stands with: sentinel get task {name}")))
        }),
    }
}

async fn wait(client: &Client, namespace: &str, name: &str, what: What) -> Result<Outcome, Failure> {
    let mut seen = false;
    loop {
        let mut events = match client.task_events(namespace, name).await {
            Ok(events) => events,
            Err(failure) if !seen => return gone_already(what, failure),
            Err(_) => {
                // The server may be starting anew; or the Task went while nobody looked.
                tokio::time::sleep(Duration::from_millis(500)).await;
                match client.get(&crate::client::task_path(namespace, name)).await {
                    Err(failure) if what == What::Deleted && failure.message.contains("no Task") => {
                        return Ok(outcome(true, "deleted"));
                    }
                    _ => continue,
                }
            }
        };
        while let Ok(Some(event)) = events.next().await {
            seen = true;
            match event {
                Event::Task(value) => {
                    if let Some(outcome) = judge(&Task::of(&value), what) {
                        return Ok(outcome);
                    }
                }
                Event::Deleted(_) => {
                    let wished = matches!(what, What::Deleted | What::RunOver(_));
                    return Ok(outcome(wished, "deleted"));
                }
                Event::Synced => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn gone_already(what: What, failure: Failure) -> Result<Outcome, Failure> {
    if what == What::Deleted && failure.message.contains("no Task") {
        Ok(outcome(true, "deleted"))
    } else {
        Err(failure)
    }
}

fn outcome(as_wished: bool, sentence: impl Into<String>) -> Outcome {
    Outcome { as_wished, sentence: sentence.into() }
}

fn judge(task: &Task, what: What) -> Option<Outcome> {
    if let What::RunOver(number) = what {
        let run = task.status.run.as_ref()?;
        let over = run.number > number || (run.number == number && run.verdict.is_some());
        return over.then(|| outcome(true, "ended"));
    }
    if what == What::Deleted {
        return None;
    }
    match task.standing() {
        Standing::UnderWay => None,
        Standing::Complete => Some(outcome(what != What::Failed, "complete")),
        Standing::Failed(why) => Some(outcome(what == What::Failed, format!("failed: {why}"))),
        Standing::Invalid(why) => Some(outcome(false, format!("cannot be run: {why}"))),
    }
}
