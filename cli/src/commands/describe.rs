//! The description of one Execution for people, one property per line.

use sentinel_protocol::human::{human_bytes, human_duration};
use serde_json::Value;

use crate::output::color::Style;
use crate::output::text::Text;
use crate::output::{counted, quoted, time};

/// Column at which values start.
const WIDTH: usize = 14;

/// The description of an Execution as the API returns it.
pub(super) fn execution(value: &Value) -> Text {
    let details = &value["details"];
    let name = format!("{}/{}/{}", string(&value["task"]), value["run"], string(&value["node"]));
    let mut description = Description::default();
    identity(&mut description, value, &name);
    outcome(&mut description, value);
    timing(&mut description, value);
    for (label, key) in [("Stdout", "stdout"), ("Stderr", "stderr")] {
        description.line(label, &stream(&details[key]));
    }
    if let Some(blocked) = details["blockedMs"].as_u64().filter(|blocked| *blocked > 0) {
        description.line("Blocked", &format!("{} by a full spool", human_duration(blocked)));
    }
    attempts(&mut description, value);
    if value["source"] == "Operator" {
        description.line("Source", "concluded by the operator; not reported by the node");
    }
    description.line("Log", &format!("sentinel logs {}", quoted(&name)));
    description.0
}

fn identity(description: &mut Description, value: &Value, name: &str) {
    description.line("Name", name);
    for (label, key) in [("Namespace", "namespace"), ("Id", "id"), ("Command", "command")] {
        description.line(label, &string(&value[key]));
    }
    description.line("Environment", &string(&value["details"]["environment"]));
    if let Some(attempt) = value["attempt"].as_u64() {
        description.line("Attempt", &if attempt == 0 { "none".to_owned() } else { attempt.to_string() });
    }
}

fn outcome(description: &mut Description, value: &Value) {
    let details = &value["details"];
    let exit = &details["exit"];
    description.styled("State", Text::new().state(&string(&value["state"])));
    description.line("Reason", &string(&details["reason"]));
    description.line("Message", &string(&value["message"]));
    let code = value["exitCode"].as_u64().or_else(|| exit["code"].as_u64());
    description.line("Exit code", &code.map(|code| code.to_string()).unwrap_or_default());
    description.line("Signal", &signal(details, exit));
    description.line("Ended by", &timeout(exit));
    description.line("Signed by", exit["signedBy"].as_str().unwrap_or_default());
    description.line("Left behind", &left_behind(&exit["left"]));
    if let Some(held) = exit["outputHeldMs"].as_u64() {
        let after = human_duration(held);
        let held = format!("held open by another process; closed {after} after the command ended");
        description.line("Output", &held);
    }
    if let Some(masked) = exit["masked"].as_u64() {
        let times = if masked == 1 { "once".to_owned() } else { format!("{masked} times") };
        description.line("Masked", &format!("a secret in the output, {times}"));
    }
}

fn timing(description: &mut Description, value: &Value) {
    let details = &value["details"];
    description.line("Started", &timestamp(&value["startedAt"]));
    description.line("Ended", &timestamp(&value["endedAt"]));
    description.line("Duration", &value["durationMs"].as_u64().map(human_duration).unwrap_or_default());
    description.line("CPU time", &cpu_time(details));
    let memory = details["maxRss"].as_u64().filter(|bytes| *bytes > 0);
    let memory = memory.map(|bytes| format!("at most {} in one process", human_bytes(bytes)));
    description.line("Memory", &memory.unwrap_or_default());
}

/// A line for each Attempt, if there are several.
fn attempts(description: &mut Description, value: &Value) {
    let attempts = value["attempts"].as_array().map_or(&[][..], Vec::as_slice);
    for attempt in attempts.iter().filter(|_| attempts.len() > 1) {
        let message = string(&attempt["message"]);
        let message = if message.is_empty() { String::new() } else { format!(": {message}") };
        let took = attempt["durationMs"].as_u64().map(|took| format!(", {}", human_duration(took)));
        let started = attempt["startedAt"].as_str().map(|at| format!(", started {at}"));
        let details = Text::new()
            .state(&string(&attempt["state"]))
            .single_line(&message)
            .plain(took.unwrap_or_default())
            .single_line(&started.unwrap_or_default());
        description.styled(&format!("Attempt {}", attempt["attempt"]), details);
    }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Lines of labels and values; empty values are omitted.
#[derive(Default)]
struct Description(Text);

impl Description {
    fn line(&mut self, label: &str, value: &str) {
        self.styled(label, if value.is_empty() { Text::new() } else { Text::new().single_line(value) });
    }

    fn styled(&mut self, label: &str, value: Text) {
        if value.is_empty() {
            return;
        }
        let text = std::mem::take(&mut self.0);
        let label = format!("{:<WIDTH$}", format!("{label}:"));
        self.0 = text.styled(Style::Dim, label).append(value).plain("\n");
    }
}

/// `SIGKILL (9)`, and whether SIGKILL was needed.
fn signal(details: &Value, exit: &Value) -> String {
    let number = exit["signal"].as_i64().or_else(|| details["signal"].as_i64());
    let name = number.map(|number| match exit["signalName"].as_str() {
        Some(name) => format!("{name} ({number})"),
        None => number.to_string(),
    });
    match (name, exit["killed"] == true) {
        (Some(name), true) => format!("{name}; it did not end on SIGTERM within timeouts.grace"),
        (None, true) => "SIGKILL was needed for processes left after timeouts.grace".to_owned(),
        (name, false) => name.unwrap_or_default(),
    }
}

/// The timeout that expired, and after how long.
fn timeout(exit: &Value) -> String {
    match (exit["clock"]["field"].as_str(), exit["clock"]["afterMs"].as_u64()) {
        (Some(field), Some(after)) => format!("{field}, after {}", human_duration(after)),
        _ => String::new(),
    }
}

/// Processes that outlived the command.
fn left_behind(left: &Value) -> String {
    let Some(count) = left["count"].as_u64() else { return String::new() };
    let named: Vec<String> = left["processes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|process| format!("{} ({})", process["name"].as_str().unwrap_or("?"), process["pid"]))
        .collect();
    let fate = if left["fate"] == "Kept" { "left running" } else { "ended" };
    let more = count.saturating_sub(named.len() as u64);
    let more = if more > 0 && !named.is_empty() { format!(" and {more} more") } else { String::new() };
    let named = if named.is_empty() { String::new() } else { format!(": {}", named.join(", ")) };
    format!("{}, {fate}{named}{more}", counted(count, "process"))
}

fn timestamp(value: &Value) -> String {
    value.as_str().map(|at| format!("{at} ({} ago)", time::age(Some(at)))).unwrap_or_default()
}

fn cpu_time(details: &Value) -> String {
    match (details["userMs"].as_u64(), details["systemMs"].as_u64()) {
        (Some(user), Some(system)) => {
            let [total, user, system] = [user + system, user, system].map(human_duration);
            format!("{total} ({user} user, {system} system)")
        }
        _ => String::new(),
    }
}

fn stream(stream: &Value) -> String {
    let Some(bytes) = stream["bytes"].as_u64() else { return String::new() };
    match stream["dropped"].as_u64() {
        Some(dropped) if dropped > 0 => format!("{}, {} dropped", human_bytes(bytes), human_bytes(dropped)),
        _ => human_bytes(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn described(value: &Value) -> String {
        format!("{:?}", execution(value))
    }

    #[test]
    fn a_timeout_is_named_with_its_duration() {
        let text = described(&json!({
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
    fn unknown_properties_are_omitted() {
        let text =
            described(&json!({"task": "web", "run": 1, "node": "n", "state": "Running", "attempt": 1}));
        for absent in ["Exit code", "Signal", "Ended by", "Left behind", "Stdout", "Memory", "CPU"] {
            assert!(!text.contains(absent), "{absent:?} is in {text}");
        }
    }
}
