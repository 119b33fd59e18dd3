//! One execution for people: everything that is known of it, a line each.

use serde_json::Value;

use crate::output::color::Paint;
use crate::output::text::Text;
use crate::output::{quoted, time};

/// Column at which the values begin.
const WIDTH: usize = 14;

/// The description of an execution as the API gives it.
pub(super) fn execution(value: &Value) -> Text {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let details = &value["details"];
    let exit = &details["exit"];
    let name = format!("{}/{}/{}", text(&value["task"]), value["run"], text(&value["node"]));
    let mut lines = Lines::default();
    lines.plain("Name", &name);
    lines.plain("Namespace", &text(&value["namespace"]));
    lines.plain("Id", &text(&value["id"]));
    lines.plain("Command", &text(&value["command"]));
    lines.plain("Environment", &text(&details["environment"]));
    if let Some(attempt) = value["attempt"].as_u64() {
        lines.plain("Attempt", &if attempt == 0 { "none was made".to_owned() } else { attempt.to_string() });
    }
    lines.line("State", Text::new().state(&text(&value["state"])));
    lines.plain("Reason", &text(&details["reason"]));
    lines.plain("Message", &text(&value["message"]));
    let code = value["exitCode"].as_u64().or_else(|| exit["code"].as_u64());
    lines.plain("Exit code", &code.map(|code| code.to_string()).unwrap_or_default());
    lines.plain("Signal", &signal(details, exit));
    lines.plain("Ended by", &clock(exit));
    lines.plain("Left behind", &left(&exit["left"]));
    if let Some(held) = exit["outputHeldMs"].as_u64() {
        let after = time::span(held);
        lines.plain(
            "Output",
            &format!("was still held open by another process; closed {after} after the command's end"),
        );
    }
    lines.plain("Started", &moment(&value["startedAt"]));
    lines.plain("Ended", &moment(&value["endedAt"]));
    lines.plain("Duration", &value["durationMs"].as_u64().map(time::span).unwrap_or_default());
    lines.plain("CPU time", &cpu(details));
    let memory = details["maxRss"].as_u64().filter(|bytes| *bytes > 0);
    lines.plain(
        "Memory",
        &memory.map(|bytes| format!("{} at most in one process", time::bytes(bytes))).unwrap_or_default(),
    );
    for (label, key) in [("Stdout", "stdout"), ("Stderr", "stderr")] {
        lines.plain(label, &stream(&details[key]));
    }
    if let Some(blocked) = details["blockedMs"].as_u64().filter(|blocked| *blocked > 0) {
        lines.plain("Held up", &format!("{} by a full spool", time::span(blocked)));
    }
    if value["source"] == "Operator" {
        lines.plain("Source", "concluded by the operator; the node has not reported it");
    }
    lines.plain("Log", &format!("sentinel logs {}", quoted(&name)));
    lines.0
}

#[derive(Default)]
struct Lines(Text);

impl Lines {
    /// A line, if there is something to write on it.
    fn plain(&mut self, label: &str, value: &str) {
        self.line(label, if value.is_empty() { Text::new() } else { Text::new().name(value) });
    }

    fn line(&mut self, label: &str, value: Text) {
        if value.is_empty() {
            return;
        }
        let text = std::mem::take(&mut self.0);
        let label = format!("{:<WIDTH$}", format!("{label}:"));
        self.0 = text.painted(Paint::Faint, label).append(value).then("\n");
    }
}

/// `SIGKILL (9)`, and whether KILL was needed.
fn signal(details: &Value, exit: &Value) -> String {
    let number = exit["signal"].as_i64().or_else(|| details["signal"].as_i64());
    let name = number.map(|number| match exit["signalName"].as_str() {
        Some(name) => format!("{name} ({number})"),
        None => number.to_string(),
    });
    match (name, exit["killed"] == true) {
        (Some(name), true) => format!("{name}; it did not end on SIGTERM within timeouts.grace"),
        (None, true) => "SIGKILL was needed for what was left after timeouts.grace".to_owned(),
        (name, false) => name.unwrap_or_default(),
    }
}

/// The clock that was over, and after how long.
fn clock(exit: &Value) -> String {
    match (exit["clock"]["field"].as_str(), exit["clock"]["afterMs"].as_u64()) {
        (Some(field), Some(after)) => format!("{field}, after {}", time::span(after)),
        _ => String::new(),
    }
}

/// Processes that outlived the command.
fn left(left: &Value) -> String {
    let Some(count) = left["count"].as_u64() else { return String::new() };
    let named: Vec<String> = left["processes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|process| format!("{} ({})", process["name"].as_str().unwrap_or("?"), process["pid"]))
        .collect();
    let fate = if left["fate"] == "Kept" { "left running" } else { "ended" };
    let unit = if count == 1 { "process" } else { "processes" };
    let more = count.saturating_sub(named.len() as u64);
    let more = if more > 0 && !named.is_empty() { format!(" and {more} more") } else { String::new() };
    let named = if named.is_empty() { String::new() } else { format!(": {}", named.join(", ")) };
    format!("{count} {unit}, {fate}{named}{more}")
}

fn moment(value: &Value) -> String {
    value.as_str().map(|at| format!("{at} ({} ago)", time::ago(Some(at)))).unwrap_or_default()
}

fn cpu(details: &Value) -> String {
    match (details["userMs"].as_u64(), details["systemMs"].as_u64()) {
        (Some(user), Some(system)) => {
            format!(
                "{} ({} in the program, {} in the kernel)",
                time::span(user + system),
                time::span(user),
                time::span(system)
            )
        }
        _ => String::new(),
    }
}

fn stream(stream: &Value) -> String {
    let Some(bytes) = stream["bytes"].as_u64() else { return String::new() };
    match stream["dropped"].as_u64() {
        Some(dropped) if dropped > 0 => {
            format!("{}, of which {} were dropped", time::bytes(bytes), time::bytes(dropped))
        }
        _ => time::bytes(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(value: &Value) -> String {
        format!("{:?}", execution(value))
    }

    #[test]
    fn an_end_by_a_clock_names_the_clock_and_what_it_took() {
        let text = lines(&json!({
            "task": "web", "run": 3, "node": "n", "state": "TimedOut", "attempt": 1,
            "details": {"exit": {
                "signal": 9, "signalName": "SIGKILL", "killed": true,
                "clock": {"field": "timeouts.run", "afterMs": 600_000},
                "left": {"count": 2, "fate": "Ended", "processes": [{"pid": 7, "name": "sleep"}]},
            }},
        }));
        for expected in [
            "web/3/n",
            "SIGKILL (9); it did not end on SIGTERM within timeouts.grace",
            "timeouts.run, after 10m",
            "2 processes, ended: sleep (7) and 1 more",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in {text}");
        }
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let text = lines(&json!({"task": "web", "run": 1, "node": "n", "state": "Running", "attempt": 1}));
        for absent in ["Exit code", "Signal", "Ended by", "Left behind", "Stdout", "Memory", "CPU"] {
            assert!(!text.contains(absent), "{absent:?} is in {text}");
        }
    }
}
