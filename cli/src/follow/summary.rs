//! The result of a Run as a few lines of text.

use sentinel_api::fold::fold_names;
use sentinel_protocol::human::human_duration;

use super::followed::{FollowEnd, FollowedRun};
use crate::output::color::Style;
use crate::output::format::note;
use crate::output::text::Text;
use crate::view::{Node, Run, Standing, Task};

/// The state of a node whose command succeeded.
const SUCCEEDED: &str = "Succeeded";

/// Maximum number of lines about nodes.
const MAX_LINES: usize = 20;

/// Maximum number of names in one line; a longer list is folded, or names one fewer and counts the rest.
const MAX_NAMES: usize = 3;

/// Longest list of folded names, characters.
const MAX_FOLDED: usize = 100;

/// Writes how a Run ended to standard error.
pub(crate) fn summarize(followed: &FollowedRun) {
    let Some(run) = &followed.run else {
        return note(Text::message().plain(without_run(followed)));
    };
    summarize_nodes(&followed.task, run);
    let duration = duration(run.started_at.as_deref(), run.finished_at.as_deref());
    let why = match followed.task.standing() {
        Standing::Failed(why) if run.target_count == 0 => format!(": {why}"),
        _ => String::new(),
    };
    note(
        Text::message()
            .plain(format!("{} run {}: ", followed.task.full_name(), run.number))
            .state(followed.verdict(run))
            .plain(format!(", {}{why}{duration}", counted(run, &followed.task.status.nodes))),
    );
}

/// Writes a line for each group of nodes of a Task's latest Run with the same result, unless it is a plain success.
pub(crate) fn summarize_failures(task: &Task) {
    if let Some(run) = &task.status.run {
        summarize_nodes(task, run);
    }
}

fn summarize_nodes(task: &Task, run: &Run) {
    let nodes = &task.status.nodes;
    let noteworthy: Vec<&Node> = nodes.iter().filter(|node| is_noteworthy(node)).collect();
    let groups = grouped(&noteworthy);
    for (nodes, node) in groups.iter().take(MAX_LINES) {
        let text = names(nodes).plain(": ").state(&node.state);
        let message = if node.message.is_empty() { String::new() } else { format!(": {}", node.message) };
        note(Text::message().append(text).plain(message));
    }
    let failed = groups.iter().take(MAX_LINES).filter(|(_, node)| node.state != SUCCEEDED);
    let listed: usize = failed.map(|(nodes, _)| nodes.len()).sum();
    let left = run.target_count.saturating_sub(run.counts.succeeded).saturating_sub(listed as u64);
    if left > 0 && run.target_count > 0 {
        let name = &task.metadata.name;
        note(
            Text::message().plain(format!(
                "and {left} more: sentinel get executions --task {name} --run {}",
                run.number
            )),
        );
    }
}

/// Whether a node did not succeed, or its message has more than the outcome, such as processes left behind.
fn is_noteworthy(node: &Node) -> bool {
    node.state != SUCCEEDED || node.message.contains("; ")
}

/// Why no Run is summarized.
pub(super) fn without_run(followed: &FollowedRun) -> String {
    let name = followed.task.full_name();
    match (followed.end, followed.task.standing()) {
        (_, Standing::Invalid(why)) => format!("{name} cannot be run: {why}"),
        (FollowEnd::Deleted, _) => format!("{name} was deleted without a Run"),
        (FollowEnd::AlreadyExecuted, _) => {
            let why = followed.task.already_executed().map_or("", |condition| &condition.message);
            format!("{name} runs nothing: {why}")
        }
        _ => format!("{name} was superseded by a newer Run"),
    }
}

/// Groups nodes with the same state and message, in the order of the first of each.
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

/// `web-[1-40,43]`; or `web, db and 3 more` where that is shorter.
pub(super) fn names(nodes: &[&str]) -> Text {
    if nodes.len() > MAX_NAMES {
        let folded = fold_names(nodes.iter().copied());
        if folded.chars().count() <= MAX_FOLDED {
            return Text::new().single_line(&folded);
        }
    }
    let named = if nodes.len() > MAX_NAMES { MAX_NAMES - 1 } else { nodes.len() };
    let mut text = Text::new();
    for (index, name) in nodes.iter().take(named).enumerate() {
        let last = index + 1 == nodes.len();
        let separator = match index {
            0 => "",
            _ if last => " and ",
            _ => ", ",
        };
        text = text.plain(separator).styled(Style::node(name), *name);
    }
    match nodes.len() - named {
        0 => text,
        more => text.plain(format!(" and {more} more")),
    }
}

/// Counts the nodes by result; the counts add up to all nodes.
fn counted(run: &Run, nodes: &[Node]) -> String {
    let total = run.target_count;
    if total == 0 {
        return "no node matched".to_owned();
    }
    if total == 1 && run.counts.succeeded == 1 {
        return "1 node, succeeded".to_owned();
    }
    let mut parts =
        vec![format!("{} of {} succeeded", run.counts.succeeded, crate::output::counted(total, "node"))];
    if nodes.len() as u64 == total {
        let mut states: Vec<(&str, usize)> = Vec::new();
        for node in nodes.iter().filter(|node| node.state != SUCCEEDED) {
            match states.iter_mut().find(|(state, _)| *state == node.state) {
                Some((_, count)) => *count += 1,
                None => states.push((&node.state, 1)),
            }
        }
        parts.extend(states.iter().map(|(state, count)| format!("{count} {state}")));
    } else {
        let counts = &run.counts;
        let rest = [
            (counts.failed, "failed"),
            (counts.unreachable, "unreachable"),
            (counts.running, "running"),
            (counts.waiting, "not started"),
        ];
        parts.extend(
            rest.iter().filter(|(count, _)| *count > 0).map(|(count, state)| format!("{count} {state}")),
        );
    }
    parts.join(", ")
}

/// `, 12s`, if both ends are known.
fn duration(start: Option<&str>, end: Option<&str>) -> String {
    let at = |text: Option<&str>| text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    match (at(start), at(end)) {
        (Some(start), Some(end)) => {
            let millis = end.as_millisecond().saturating_sub(start.as_millisecond()).max(0);
            format!(", {}", human_duration(millis as u64))
        }
        _ => String::new(),
    }
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
    fn groups_nodes_with_the_same_result() {
        let nodes: Vec<Node> =
            (1..=5).map(|n| node(&format!("web-{n}"), "Failed", "exited with code 3")).collect();
        let other = node("db-1", "Lost", "the node was rebooted while the command ran");
        let all: Vec<&Node> = nodes.iter().chain([&other]).collect();
        let groups = grouped(&all);
        assert_eq!(groups.len(), 2);
        let text = |names_of: &[&str]| format!("{:?}", names(names_of));
        assert!(text(&groups[0].0).contains("web-[1-5]"), "{}", text(&groups[0].0));
        let long: Vec<String> =
            (0..9).map(|n| format!("{}-{n}", char::from(b'a' + n).to_string().repeat(20))).collect();
        let long: Vec<&str> = long.iter().map(String::as_str).collect();
        assert!(text(&long).contains(" and 7 more") && !text(&long).contains("ccc"), "{}", text(&long));
        assert!(text(&["a", "b", "c"]).contains("\"c\"") && !text(&["a", "b", "c"]).contains("more"));
    }

    #[test]
    fn counts_add_up_to_all_nodes() {
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
