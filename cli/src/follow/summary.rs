//! What came of a Run: a few lines for people, a number for programs.

use serde_json::Value;

use super::run::Followed;
use crate::client::{Client, Query, escape};
use crate::exit::{FAILED, Failure, INTERRUPTED, OK, RUN_FAILED, TIMED_OUT};
use crate::output::color::{Paint, To};
use crate::output::escape::escaped;
use crate::output::format::note;
use crate::output::time;
use crate::view::{Node, Standing, Task};

/// Exit codes of a shell for a program that is not there, and for one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Most nodes that are named one by one.
const NAMED: usize = 20;

/// Says how a Run ended, on standard error.
pub(crate) fn summarize(followed: &Followed) {
    let say = |text: &str| note(&format!("{} {}", Paint::Faint.on(To::Err, "sentinel:"), escaped(text)));
    let Some(run) = &followed.run else {
        return say(&match followed.task.standing() {
            Standing::Invalid(why) => format!("{} cannot be run: {why}", followed.task.full_name()),
            _ => format!("{} has been replaced by a newer run", followed.task.full_name()),
        });
    };
    let bad: Vec<&Node> = nodes(&followed.task).filter(|node| node.state != "Succeeded").collect();
    for node in bad.iter().take(NAMED) {
        let name = Paint::node(&node.name).on(To::Err, &node.name);
        let state = Paint::Bad.on(To::Err, &node.state);
        note(&format!(
            "{} {name}: {state}: {}",
            Paint::Faint.on(To::Err, "sentinel:"),
            escaped(&node.message)
        ));
    }
    // The status lists a part of the nodes only.
    let all_bad = run.target_count.saturating_sub(run.counts.succeeded).max(bad.len() as u64);
    if all_bad > NAMED as u64 {
        say(&format!("and {} more", all_bad - NAMED as u64));
    }
    let verdict = run.verdict.as_deref().unwrap_or("Deleted");
    let counts = match run.target_count {
        0 => "no node matched".to_owned(),
        1 if bad.is_empty() => "1 node, succeeded".to_owned(),
        total => format!("{} of {total} nodes succeeded", run.counts.succeeded),
    };
    let took = took(run.started_at.as_deref(), run.finished_at.as_deref());
    let why = match followed.task.standing() {
        Standing::Failed(why) if run.target_count == 0 => format!(": {why}"),
        _ => String::new(),
    };
    let painted =
        Paint::state(verdict).map_or_else(|| verdict.to_owned(), |paint| paint.on(To::Err, verdict));
    note(&format!(
        "{} {} run {}: {painted}, {}{took}",
        Paint::Faint.on(To::Err, "sentinel:"),
        followed.task.full_name(),
        run.number,
        escaped(&format!("{counts}{why}")),
    ));
}

fn took(start: Option<&str>, end: Option<&str>) -> String {
    let at = |text: Option<&str>| text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    match (at(start), at(end)) {
        (Some(start), Some(end)) => {
            let millis = end.as_millisecond().saturating_sub(start.as_millisecond()).max(0);
            format!(", {}", time::span(millis as u64))
        }
        _ => String::new(),
    }
}

fn nodes(task: &Task) -> impl Iterator<Item = &Node> {
    task.status.nodes.iter()
}

/// The exit code of a Run: that of the command on one node, the worst on several.
pub(crate) async fn exit_code(client: &Client, followed: &Followed) -> Result<u8, Failure> {
    let Some(run) = &followed.run else { return Ok(RUN_FAILED) };
    if run.target_count == 0 {
        return Ok(RUN_FAILED);
    }
    if run.verdict.as_deref() == Some("Complete") && run.counts.failed == 0 {
        return Ok(OK);
    }
    let mut worst = 0;
    for node in nodes(&followed.task) {
        worst = worst.max(code_of(client, &followed.task, run.number, node).await?);
    }
    // Failures are listed first; behind them there may be others that did worse.
    let listed = nodes(&followed.task).filter(|node| node.state != "Succeeded").count() as u64;
    if listed < run.target_count.saturating_sub(run.counts.succeeded) {
        let mut query = Query::default();
        query.add("taskUid", &followed.task.metadata.uid);
        query.add("run", run.number);
        let items = client.list_all("/api/v1/executions", query).await?;
        let code =
            |item: &Value| if item["outcome"] == "Succeeded" { None } else { item["exitCode"].as_u64() };
        worst = worst.max(items.iter().filter_map(code).max().unwrap_or(0) as u8);
    }
    Ok(if worst == 0 { FAILED } else { worst })
}

async fn code_of(client: &Client, task: &Task, run: u32, node: &Node) -> Result<u8, Failure> {
    Ok(match node.state.as_str() {
        "Succeeded" => OK,
        "Failed" => node.exit_code.unwrap_or(FAILED),
        "TimedOut" | "IdleTimedOut" | "StartTimedOut" => TIMED_OUT,
        "StartFailed" => match details(client, task, run, node).await?["reason"].as_str() {
            Some("ProgramNotFound") => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        },
        "Signaled" => match details(client, task, run, node).await?["signal"].as_u64() {
            Some(number @ 1..=64) => 128 + number as u8,
            _ => RUN_FAILED,
        },
        "OomKilled" => 128 + 9,
        "Cancelled" => INTERRUPTED,
        _ => RUN_FAILED,
    })
}

/// What is known of how an Execution ended.
async fn details(client: &Client, task: &Task, run: u32, node: &Node) -> Result<Value, Failure> {
    let path = format!("/api/v1/executions/{}/{run}/{}", escape(&task.metadata.uid), escape(&node.name));
    Ok(client.get(&path).await?["details"].take())
}
