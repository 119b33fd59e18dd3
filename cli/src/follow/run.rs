//! Follows one Run of a Task until it has ended and its output is printed.

use std::time::{Duration, Instant};

use super::followed::{FollowEnd, FollowedRun};
use super::node_logs::{NodeLogs, Output};
use super::request::{FollowRequest, RunSelector};
use super::server_watch::{is_final, with_server_watch};
use crate::client::{Event, Events};
use crate::exit::Failure;
use crate::view::{Standing, Task};

/// Pauses between connections: the first one, doubled up to the last.
const RECONNECT_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Follows a Run to its end.
///
/// # Errors
/// The Task does not exist, the server does not answer for minutes, or output cannot be written.
pub(crate) async fn follow(request: FollowRequest) -> Result<FollowedRun, Failure> {
    let client = request.client.clone();
    with_server_watch(&client, Box::pin(reconnecting(request, Output::Shown))).await
}

/// The same without the output of the nodes.
///
/// # Errors
/// As [`follow`].
pub(crate) async fn follow_silently(request: FollowRequest) -> Result<FollowedRun, Failure> {
    let client = request.client.clone();
    with_server_watch(&client, Box::pin(reconnecting(request, Output::Hidden))).await
}

/// Follows a Run across broken connections.
async fn reconnecting(request: FollowRequest, output: Output) -> Result<FollowedRun, Failure> {
    let mut logs = NodeLogs::new(&request, output);
    let mut observed: Option<Task> = None;
    let (first_pause, last_pause) = RECONNECT_PAUSES;
    let mut pause = first_pause;
    let mut last_answer = Instant::now();
    loop {
        let mut answered = false;
        let end = watch_events(&request, &mut logs, &mut observed, &mut answered).await;
        if answered {
            last_answer = Instant::now();
            pause = first_pause;
        }
        match end {
            Ok(Some(followed)) => {
                logs.finish().await?;
                return super::archived::complete(&request, followed).await;
            }
            // The stream ended: the server may be restarting.
            Ok(None) => {}
            Err(failure) => {
                // What is refused while events are allowed remains refused.
                let is_refused = answered && failure.is_refusal();
                let is_final = is_final(&failure, true, last_answer.elapsed());
                if is_refused || is_final || observed.is_none() {
                    return Err(failure);
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(last_pause);
    }
}

/// Follows events until the Run has ended; `None` if the stream ended first.
async fn watch_events(
    request: &FollowRequest,
    logs: &mut NodeLogs,
    observed: &mut Option<Task>,
    answered: &mut bool,
) -> Result<Option<FollowedRun>, Failure> {
    let mut events: Events = request.client.task_events(&request.namespace, &request.name).await?;
    *answered = true;
    loop {
        let report_due = logs.report_due();
        let event = tokio::select! {
            event = events.next() => event?,
            failure = logs.failed() => {
                logs.report_failure(failure)?;
                continue;
            }
            () = sleep_until(report_due) => {
                logs.report_waiting(observed.as_ref())?;
                continue;
            }
        };
        let Some(event) = event else { return Ok(None) };
        match event {
            Event::Task(task) => {
                let followed = observe(request, logs, &task).await?;
                *observed = Some(*task);
                if followed.is_some() {
                    return Ok(followed);
                }
            }
            Event::Deleted(task) => {
                let run = task.status.run.clone();
                // The Run may have ended without another write of the status.
                return Ok(Some(FollowedRun { run, task: *task, end: FollowEnd::Deleted }));
            }
            Event::Synced => {}
        }
    }
}

/// Sleeps until then, or forever.
async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Opens the logs of nodes that have started; returns the Run once it has ended.
async fn observe(
    request: &FollowRequest,
    logs: &mut NodeLogs,
    task: &Task,
) -> Result<Option<FollowedRun>, Failure> {
    let without_run = |end| Ok(Some(FollowedRun { task: task.clone(), run: None, end }));
    if matches!(request.run, RunSelector::Latest) && matches!(task.standing(), Standing::Invalid(_)) {
        return without_run(FollowEnd::Invalid);
    }
    if matches!(request.run, RunSelector::Latest)
        && task.already_executed().is_some()
        && task.standing() != Standing::UnderWay
    {
        return without_run(FollowEnd::AlreadyExecuted);
    }
    logs.report_held(task)?;
    let number = selected(&request.run, task);
    // A rerun that nothing will begin before the Task, its nodes or its ceiling change.
    if number.is_none() && matches!(task.standing(), Standing::Invalid(_)) {
        return without_run(FollowEnd::Invalid);
    }
    let Some(number) = number else { return Ok(None) };
    let Some(run) = task.status.run.clone() else { return Ok(None) };
    if run.number > number {
        return without_run(FollowEnd::Superseded);
    }
    if run.number != number {
        return Ok(None);
    }
    let ended = logs.observe(task, &run).await?;
    Ok(ended.then(|| FollowedRun { task: task.clone(), run: Some(run), end: FollowEnd::Ended }))
}

/// The number of the selected Run, once it is known.
fn selected(selector: &RunSelector, task: &Task) -> Option<u32> {
    let current = task.status.run.as_ref().map(|run| run.number);
    match selector {
        RunSelector::Number(number) => Some(*number),
        RunSelector::Latest => {
            current.filter(|_| task.status.observed_generation == Some(task.metadata.generation))
        }
        RunSelector::OfToken(token) => {
            current.filter(|_| task.status.handled.rerun.as_deref() == Some(token))
        }
    }
}
