//! What came of a Run: a few lines for people, objects for programs, a number for both.

use serde_json::{Value, json};

use super::run::{Followed, RunEnd};
use crate::client::{Client, Query, escape};
use crate::exit::{FAILED, Failure, INTERRUPTED, OK, RUN_FAILED, TIMED_OUT};
use crate::output::color::Paint;
use crate::output::format::note;
use crate::output::sink::print_json_line;
use crate::output::text::Text;
use crate::output::time;
use crate::view::{Node, Run, Standing, Task};

/// Exit codes of a shell for a program that is not there, and for one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// The state of a node whose command ended well.
const SUCCEEDED: &str = "Succeeded";

/// Most lines about nodes.
const LINES: usize = 20;

/// Most nodes that one line names; of more it names one less.
const NAMED: usize = 3;

/// Writes how a Run ended to standard error.
pub(crate) fn summarize(followed: &Followed) {
    let Some(run) = &followed.run else {
        return note(Text::sentinel().then(without_run(followed)));
    };
    let nodes = &followed.task.status.nodes;
    let shown: Vec<&Node> = nodes.iter().filter(|node| is_worth_a_line(node)).collect();
    let groups = grouped(&shown);
    for (nodes, node) in groups.iter().take(LINES) {
        let text = names(nodes).then(": ").state(&node.state);
        let message = if node.message.is_empty() { String::new() } else { format!(": {}", node.message) };
        note(Text::sentinel().append(text).then(message));
    }
    let bad = groups.iter().take(LINES).filter(|(_, node)| node.state != SUCCEEDED);
    let listed: usize = bad.map(|(nodes, _)| nodes.len()).sum();
    let left = run.target_count.saturating_sub(run.counts.succeeded).saturating_sub(listed as u64);
    if left > 0 && run.target_count > 0 {
        let name = &followed.task.metadata.name;
        note(
            Text::sentinel()
                .then(format!("and {left} more: sentinel get executions --task {name} --run {}", run.number)),
        );
    }
    let verdict = verdict(followed, run);
    let took = took(run.started_at.as_deref(), run.finished_at.as_deref());
    let why = match followed.task.standing() {
        Standing::Failed(why) if run.target_count == 0 => format!(": {why}"),
        _ => String::new(),
    };
    note(
        Text::sentinel()
            .then(format!("{} run {}: ", followed.task.full_name(), run.number))
            .state(verdict)
            .then(format!(", {}{why}{took}", counted(run, &followed.task.status.nodes))),
    );
}

/// Whether a node ended otherwise than well, or something is known beside that, such as what its command left behind.
fn is_worth_a_line(node: &Node) -> bool {
    node.state != SUCCEEDED || node.message.contains("; ")
}

fn without_run(followed: &Followed) -> String {
    let name = followed.task.full_name();
    match (followed.end, followed.task.standing()) {
        (_, Standing::Invalid(why)) => format!("{name} cannot be run: {why}"),
        (RunEnd::Deleted, _) => format!("{name} was deleted before it ran"),
        _ => format!("{name} has been replaced by a newer run"),
    }
}

fn verdict<'a>(followed: &Followed, run: &'a Run) -> &'a str {
    // As History has it. A Run that was complete when its cancellation was asked for is complete.
    let cancelled = matches!(run.stopping.as_deref(), Some("Cancelled" | "Deleted"));
    match run.verdict.as_deref() {
        Some("Failed") if cancelled => "Cancelled",
        Some(verdict) => verdict,
        None if followed.end == RunEnd::Deleted => "Deleted",
        None => "Unknown",
    }
}

/// Nodes that ended alike, in the order in which the first of each is listed.
fn grouped<'a>(nodes: &[&'a Node]) -> Vec<(Vec<&'a str>, &'a Node)> {
    let mut groups: Vec<(Vec<&str>, &Node)> = Vec::new();
    for node in nodes {
        match groups.iter_mut().find(|(_, first)| first.state == node.state && first.message == node.message)
        {
            Some((names, _)) => names.push(&node.name),
            None => groups.push((vec![&node.name], node)),
        }
    }
    groups
}

/// `web-1, web-2 and 3 more`.
pub(super) fn names(nodes: &[&str]) -> Text {
    let named = if nodes.len() > NAMED { NAMED - 1 } else { nodes.len() };
    let mut text = Text::new();
    for (index, name) in nodes.iter().take(named).enumerate() {
        let last = index + 1 == nodes.len();
        let between = match index {
            0 => "",
            _ if last => " and ",
            _ => ", ",
        };
        text = text.then(between).painted(Paint::node(name), *name);
    }
    match nodes.len() - named {
        0 => text,
        more => text.then(format!(" and {more} more")),
    }
}

/// How many nodes ended how; the numbers add up to all of them.
fn counted(run: &Run, nodes: &[Node]) -> String {
    let total = run.target_count;
    if total == 0 {
        return "no node matched".to_owned();
    }
    if total == 1 && run.counts.succeeded == 1 {
        return "1 node, succeeded".to_owned();
    }
    let mut parts = vec![format!("{} of {total} nodes succeeded", run.counts.succeeded)];
    if nodes.len() as u64 == total {
        let mut words: Vec<(&str, usize)> = Vec::new();
        for node in nodes.iter().filter(|node| node.state != "Succeeded") {
            match words.iter_mut().find(|(word, _)| *word == node.state) {
                Some((_, count)) => *count += 1,
                None => words.push((&node.state, 1)),
            }
        }
        parts.extend(words.iter().map(|(word, count)| format!("{count} {word}")));
    } else {
        let counts = &run.counts;
        let rest = [
            (counts.failed, "failed"),
            (counts.unreachable, "unreachable"),
            (counts.running, "running"),
            (counts.waiting, "not started"),
        ];
        parts.extend(
            rest.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")),
        );
    }
    parts.join(", ")
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

/// Writes how each node and the Run ended as objects for programs, with the exit code that we end with.
///
/// # Errors
/// [`Failure`] when they cannot be written.
pub(crate) fn report(followed: &Followed, code: u8) -> Result<(), Failure> {
    let task = &followed.task;
    let mut result = json!({
        "type": "result",
        "namespace": task.metadata.namespace,
        "task": task.metadata.name,
        "taskUid": task.metadata.uid,
        "exitCode": code,
    });
    let mut lines = Vec::new();
    if let Some(run) = &followed.run {
        for node in &task.status.nodes {
            let mut line = json!({
                "type": "ended",
                "node": node.name,
                "state": node.state,
                "attempt": node.attempt.unwrap_or(1),
                "message": node.message,
            });
            if let Some(code) = node.exit_code {
                line["exitCode"] = json!(code);
            }
            lines.push(line);
        }
        let counts = &run.counts;
        result["run"] = json!(run.number);
        result["verdict"] = json!(verdict(followed, run));
        result["targets"] = json!(run.target_count);
        result["counts"] = json!({
            "succeeded": counts.succeeded,
            "failed": counts.failed,
            "unreachable": counts.unreachable,
            "running": counts.running,
            "waiting": counts.waiting,
        });
        result["startedAt"] = json!(run.started_at);
        result["finishedAt"] = json!(run.finished_at);
    } else {
        result["verdict"] = json!(match followed.end {
            RunEnd::Invalid => "Invalid",
            RunEnd::Deleted => "Deleted",
            RunEnd::Over | RunEnd::Replaced => "Replaced",
        });
        result["message"] = json!(without_run(followed));
    }
    lines.push(result);
    lines
        .iter()
        .try_for_each(print_json_line)
        .map_err(|error| Failure::new(format!("failed to write to standard output: {error}")))
}

/// The exit code of a Run: that of the command on one node, the worst on several.
pub(crate) async fn exit_code(client: &Client, followed: &Followed) -> Result<u8, Failure> {
    let Some(run) = &followed.run else { return Ok(RUN_FAILED) };
    if run.target_count == 0 {
        return Ok(RUN_FAILED);
    }
    let complete = run.verdict.as_deref() == Some("Complete") && run.counts.failed == 0;
    if complete || run.counts.succeeded == run.target_count {
        return Ok(OK);
    }
    let mut worst = 0;
    for node in &followed.task.status.nodes {
        worst = worst.max(code_of(client, &followed.task, run.number, node).await?);
    }
    // Failures are listed first; behind them there may be others that did worse.
    let listed = followed.task.status.nodes.iter().filter(|node| node.state != "Succeeded").count() as u64;
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

/// A hint about a command that could not be started on a node, where there is one.
pub(crate) async fn advice(client: &Client, followed: &Followed) -> Option<String> {
    let run = followed.run.as_ref()?;
    let node = followed.task.status.nodes.iter().find(|node| node.state == "StartFailed")?;
    let hint = super::hint(&followed.task.spec["run"]["command"])?;
    let details = details(client, &followed.task, run.number, node).await.ok()?;
    (details["reason"] == "ProgramNotFound").then_some(hint)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Counts;

    fn node(name: &str, state: &str, message: &str) -> Node {
        let (name, state, message) = (name.to_owned(), state.to_owned(), message.to_owned());
        Node { name, state, message, ..Node::default() }
    }

    #[test]
    fn nodes_that_ended_alike_are_one_line_with_their_names() {
        let nodes: Vec<Node> =
            (1..=5).map(|n| node(&format!("web-{n}"), "Failed", "exited with code 3")).collect();
        let other = node("db-1", "Lost", "the node was rebooted while the command ran");
        let all: Vec<&Node> = nodes.iter().chain([&other]).collect();
        let groups = grouped(&all);
        assert_eq!(groups.len(), 2);
        let text = |names_of: &[&str]| format!("{:?}", names(names_of));
        assert!(text(&groups[0].0).contains(" and 3 more"), "{}", text(&groups[0].0));
        assert!(!text(&groups[0].0).contains("web-3"));
        assert!(text(&["a", "b", "c"]).contains("\"c\"") && !text(&["a", "b", "c"]).contains("more"));
    }

    #[test]
    fn a_run_that_was_cancelled_did_not_just_fail() {
        let followed = |end| Followed { task: Task::default(), run: None, end };
        let run = |verdict: Option<&str>, stopping: Option<&str>| Run {
            verdict: verdict.map(str::to_owned),
            stopping: stopping.map(str::to_owned),
            ..Run::default()
        };
        for (written, stopping, expected) in [
            (Some("Failed"), Some("Cancelled"), "Cancelled"),
            (Some("Failed"), Some("Deleted"), "Cancelled"),
            (Some("Failed"), Some("SupersededFinish"), "Failed"),
            (Some("Failed"), None, "Failed"),
            (Some("Complete"), Some("Cancelled"), "Complete"),
            (None, Some("Deleted"), "Unknown"),
        ] {
            assert_eq!(verdict(&followed(RunEnd::Over), &run(written, stopping)), expected);
        }
        assert_eq!(verdict(&followed(RunEnd::Deleted), &run(None, Some("Deleted"))), "Deleted");
    }

    #[test]
    fn the_numbers_of_a_summary_add_up_to_the_nodes() {
        let mut run = Run { target_count: 3, ..Run::default() };
        run.counts.succeeded = 1;
        let nodes = [node("a", "Succeeded", ""), node("b", "Cancelled", ""), node("c", "Lost", "")];
        assert_eq!(counted(&run, &nodes), "1 of 3 nodes succeeded, 1 Cancelled, 1 Lost");
        let counts = Counts { waiting: 7, running: 0, succeeded: 480, failed: 9, unreachable: 4 };
        let many = Run { target_count: 500, counts, ..Run::default() };
        let text = counted(&many, &nodes);
        assert_eq!(text, "480 of 500 nodes succeeded, 9 failed, 4 unreachable, 7 not started");
    }
}
