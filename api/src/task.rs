//! A Task as a client reads it: the fields that tell how it stands.
//!
//! What is absent is empty; a field of the wrong type is an error (see [`crate::decode`]). The operator's types are in
//! its `resource` module, for they make the definition in the cluster; a test there reads all of them through these.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::command_line::display_command;
use crate::view::ExecutionView;

/// A Task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Task {
    /// Its metadata.
    pub metadata: Metadata,
    /// Its spec, as JSON: a client shows it and decides nothing by it.
    pub spec: Value,
    /// Its status.
    pub status: TaskStatus,
}

/// The metadata of a Task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// Grows with each change of the spec.
    pub generation: i64,
    /// When it was created, RFC 3339.
    pub creation_timestamp: Option<String>,
    /// When its deletion was requested, RFC 3339.
    pub deletion_timestamp: Option<String>,
}

/// The status of a Task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TaskStatus {
    /// The generation that this status is about; -1 before the operator has seen the Task.
    pub observed_generation: Option<i64>,
    /// For people only.
    pub phase: String,
    /// What holds for the Task.
    pub conditions: Vec<Condition>,
    /// The latest Run.
    pub run: Option<RunStatus>,
    /// Up to 100 targets of the latest Run, failures first.
    pub nodes: Vec<NodeStatus>,
    /// One-time requests that were handled.
    pub handled: Handled,
}

/// One-time requests that were handled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Handled {
    /// The Run whose cancellation was requested last.
    pub cancel: Option<u32>,
    /// The token of the last rerun request.
    pub rerun: Option<String>,
}

/// A condition, as everywhere in Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// Its type, such as `Complete`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, for programs.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

/// The latest Run of a Task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RunStatus {
    /// Its number: 1, 2, 3 and so on.
    pub number: u32,
    /// Why it began.
    pub trigger: String,
    /// When it began, RFC 3339.
    pub started_at: Option<String>,
    /// When its last target ended, RFC 3339.
    pub finished_at: Option<String>,
    /// How it ended; `None` while it is active.
    pub verdict: Option<String>,
    /// Why it starts nothing more, if so.
    pub stopping: Option<String>,
    /// Who asked for it.
    pub requested_by: Option<RequestedBy>,
    /// Who cancelled it, where that is known.
    pub cancelled_by: Option<Person>,
    /// Who approved it, if that was needed.
    pub approved_by: Option<Person>,
    /// Its targets by state.
    pub counts: Counts,
    /// Finished targets out of total.
    pub progress: String,
    /// The target list, where it is short enough for the status.
    pub targets: Vec<String>,
    /// Number of its targets.
    pub target_count: u64,
}

/// Who is behind a Run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestedBy {
    /// Who last changed its spec.
    pub author: Option<Person>,
    /// Who asked to run the unchanged spec again, if that is why it began.
    pub rerun: Option<Person>,
    /// Why it is unknown who asked; `None` when it is known.
    pub unknown: Option<String>,
}

impl RequestedBy {
    /// The names, for people: who asked for a rerun, and whose spec it is.
    pub fn names(&self) -> String {
        let user = |person: &Option<Person>| person.as_ref().map(|person| person.user.clone());
        match (&self.unknown, user(&self.rerun), user(&self.author)) {
            (Some(why), ..) => format!("unknown ({why})"),
            (None, Some(rerun), Some(author)) => format!("{rerun} (spec of {author})"),
            (None, _, author) => author.unwrap_or_else(|| "unknown".to_owned()),
        }
    }
}

/// A user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Person {
    /// Their name.
    pub user: String,
}

/// Number of targets by state; together they are all targets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Not started yet.
    pub waiting: u64,
    /// Dispatched or running.
    pub running: u64,
    /// Succeeded.
    pub succeeded: u64,
    /// Ended otherwise.
    pub failed: u64,
    /// Never reached, or with an unknown result.
    pub unreachable: u64,
}

/// One target of the latest Run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeStatus {
    /// Name of the node.
    #[serde(rename = "node")]
    pub name: String,
    /// `Pending`, `WaitingForNode`, `Dispatched`, `Running`, or its Outcome.
    pub state: String,
    /// Number of its latest Attempt; `None` for the first.
    pub attempt: Option<u32>,
    /// Its state in one sentence, where the state alone does not tell.
    pub message: String,
    /// The exit code of the command, where it has one.
    pub exit_code: Option<u8>,
    /// When the command was started, by the node's clock, RFC 3339.
    pub started_at: Option<String>,
}

/// How the latest edit of a Task stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Not observed by the operator yet, waiting or running.
    UnderWay,
    /// Its Run completed.
    Complete,
    /// Its Run failed; the sentence tells how.
    Failed(String),
    /// Its spec was rejected; the sentence tells why.
    Invalid(String),
}

impl Task {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// How the latest edit stands, by its conditions; the phase is for people.
    pub fn standing(&self) -> Standing {
        if self.status.observed_generation != Some(self.metadata.generation) {
            return Standing::UnderWay;
        }
        let holds =
            |kind: &str, status: &str| self.condition(kind).filter(|condition| condition.status == status);
        if let Some(rejected) = holds("Accepted", "False") {
            return Standing::Invalid(rejected.sentence());
        }
        if holds("Complete", "True").is_some() {
            return Standing::Complete;
        }
        holds("Failed", "True").map_or(Standing::UnderWay, |failed| Standing::Failed(failed.sentence()))
    }

    /// The condition of this type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Why nothing was run, if an earlier Task of this name has run the same.
    pub fn already_executed(&self) -> Option<&Condition> {
        self.condition("Ready").filter(|condition| condition.reason == "AlreadyExecuted")
    }

    /// Why the Run that is due does not begin, if its ceiling holds it for now.
    pub fn held(&self) -> Option<&str> {
        let ready = self.condition("Ready")?;
        let holds = ["AwaitingApproval", "CeilingsUnreadable"].contains(&ready.reason.as_str());
        holds.then_some(ready.message.as_str())
    }

    /// The command, or the text of the script, on one line.
    pub fn command(&self) -> String {
        let run = &self.spec["run"];
        if let Some(argv) = run["command"].as_array() {
            let argv: Vec<String> = argv.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect();
            return display_command(&argv);
        }
        run["script"]["text"].as_str().map(|text| text.trim().to_owned()).unwrap_or_default()
    }

    /// Which nodes it selects, on one line.
    pub fn target(&self) -> String {
        let targets = &self.spec["targets"];
        if targets["all"] == Value::Bool(true) {
            return "all".to_owned();
        }
        if let Some(names) = targets["nodeNames"].as_array() {
            let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
            return names.join(",");
        }
        let selector = &targets["nodeSelector"];
        let labels = selector["matchLabels"].as_object().into_iter().flatten();
        let mut parts: Vec<String> =
            labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("?"))).collect();
        for requirement in selector["matchExpressions"].as_array().into_iter().flatten() {
            let text = |key: &str| requirement[key].as_str().unwrap_or("?").to_owned();
            let values: Vec<&str> =
                requirement["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            parts.push(format!("{} {} ({})", text("key"), text("operator"), values.join(",")));
        }
        parts.join(",")
    }
}

/// An Execution of a list, as the status of its Task has it.
impl From<&ExecutionView> for NodeStatus {
    fn from(view: &ExecutionView) -> Self {
        Self {
            name: view.node.clone(),
            state: view.state.clone(),
            attempt: Some(view.attempt),
            message: view.message.clone(),
            exit_code: view.exit_code,
            started_at: view.started_at.clone(),
        }
    }
}

impl Condition {
    fn sentence(&self) -> String {
        if self.message.is_empty() { self.reason.clone() } else { self.message.clone() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(status: &Value) -> Task {
        let task = json!({"metadata": {"name": "a", "namespace": "b", "generation": 2}, "status": status});
        serde_json::from_value(task).unwrap()
    }

    #[test]
    fn older_status_tells_nothing_about_a_newer_edit() {
        let complete = json!([{"type": "Complete", "status": "True"}]);
        let standing = |generation: i64| {
            task(&json!({"observedGeneration": generation, "conditions": complete})).standing()
        };
        assert_eq!(standing(1), Standing::UnderWay);
        assert_eq!(standing(2), Standing::Complete);
        assert_eq!(Task::default().standing(), Standing::UnderWay);
    }

    #[test]
    fn rejected_spec_is_not_a_failed_run() {
        let rejected = json!([{"type": "Accepted", "status": "False", "message": "no targets"},
                              {"type": "Stalled", "status": "True"}]);
        let failed = json!([{"type": "Failed", "status": "True", "reason": "NodesFailed"}]);
        let standing =
            |conditions: &Value| task(&json!({"observedGeneration": 2, "conditions": conditions})).standing();
        assert_eq!(standing(&rejected), Standing::Invalid("no targets".into()));
        assert_eq!(standing(&failed), Standing::Failed("NodesFailed".into()));
    }
}
