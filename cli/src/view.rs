//! Tasks as the API gives them, read with tolerance: what is missing is empty, what is new is passed over.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A Task.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Task {
    #[serde(deserialize_with = "lenient")]
    pub(crate) metadata: Metadata,
    #[serde(deserialize_with = "lenient")]
    pub(crate) spec: Value,
    #[serde(deserialize_with = "lenient")]
    pub(crate) status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Metadata {
    #[serde(deserialize_with = "lenient")]
    pub(crate) name: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) namespace: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) uid: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) generation: i64,
    #[serde(deserialize_with = "lenient")]
    pub(crate) creation_timestamp: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) deletion_timestamp: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Status {
    #[serde(deserialize_with = "lenient")]
    pub(crate) observed_generation: Option<i64>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) phase: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) conditions: Vec<Condition>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) run: Option<Run>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) nodes: Vec<Node>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) handled: Handled,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Handled {
    #[serde(deserialize_with = "lenient")]
    pub(crate) cancel: Option<u32>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) rerun: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Condition {
    #[serde(rename = "type", deserialize_with = "lenient")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) status: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) reason: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) message: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Run {
    #[serde(deserialize_with = "lenient")]
    pub(crate) number: u32,
    #[serde(deserialize_with = "lenient")]
    pub(crate) trigger: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) started_at: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) finished_at: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) verdict: Option<String>,
    /// Why it starts nothing more, if so.
    #[serde(deserialize_with = "lenient")]
    pub(crate) stopping: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) counts: Counts,
    #[serde(deserialize_with = "lenient")]
    pub(crate) progress: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) targets: Vec<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) target_count: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Counts {
    #[serde(deserialize_with = "lenient")]
    pub(crate) waiting: u64,
    #[serde(deserialize_with = "lenient")]
    pub(crate) running: u64,
    #[serde(deserialize_with = "lenient")]
    pub(crate) succeeded: u64,
    #[serde(deserialize_with = "lenient")]
    pub(crate) failed: u64,
    #[serde(deserialize_with = "lenient")]
    pub(crate) unreachable: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Node {
    #[serde(rename = "node", deserialize_with = "lenient")]
    pub(crate) name: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) state: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) attempt: Option<u32>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) message: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) exit_code: Option<u8>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) started_at: Option<String>,
}

/// A field of another type than is expected is an empty one: it must not hide the fields beside it.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).unwrap_or_default())
}

/// How the latest edit of a Task stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not seen yet, waiting or running.
    UnderWay,
    /// Its Run ended within its budgets.
    Complete,
    /// Its Run ended otherwise; the sentence says how.
    Failed(String),
    /// Its spec cannot be run; the sentence says why.
    Invalid(String),
}

impl Node {
    /// An Execution of the API's list, as the status of a Task has it.
    pub(crate) fn of_execution(item: &Value) -> Self {
        let number = |key: &str| item[key].as_u64();
        Self {
            name: item["node"].as_str().unwrap_or_default().to_owned(),
            state: item["state"].as_str().unwrap_or_default().to_owned(),
            attempt: number("attempt").and_then(|number| u32::try_from(number).ok()),
            message: item["message"].as_str().unwrap_or_default().to_owned(),
            exit_code: number("exitCode").and_then(|code| u8::try_from(code).ok()),
            started_at: item["startedAt"].as_str().map(str::to_owned),
        }
    }
}

impl Task {
    /// Reads a Task; one that is not readable at all is an empty one.
    pub(crate) fn of(value: &Value) -> Self {
        serde_json::from_value(value.clone()).unwrap_or_default()
    }

    /// `namespace/name`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// How the latest edit stands, by its conditions (the phase is for people).
    pub(crate) fn standing(&self) -> Standing {
        if self.status.observed_generation != Some(self.metadata.generation) {
            return Standing::UnderWay;
        }
        let sentence = |condition: &Condition| {
            if condition.message.is_empty() { condition.reason.clone() } else { condition.message.clone() }
        };
        if let Some(refused) = self.condition("Accepted").filter(|condition| condition.status == "False") {
            return Standing::Invalid(sentence(refused));
        }
        if self.holds("Complete") {
            return Standing::Complete;
        }
        match self.condition("Failed").filter(|condition| condition.status == "True") {
            Some(failed) => Standing::Failed(sentence(failed)),
            None => Standing::UnderWay,
        }
    }

    pub(crate) fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|condition| condition.kind == kind)
    }

    fn holds(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|condition| condition.status == "True")
    }

    /// What it runs, on one line.
    pub(crate) fn command(&self) -> String {
        let run = &self.spec["run"];
        if let Some(words) = run["command"].as_array() {
            let words: Vec<String> =
                words.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect();
            return sentinel_operator::history::record::display_command(&words);
        }
        run["script"]["text"].as_str().map(|text| text.trim().to_owned()).unwrap_or_default()
    }

    /// Which nodes it is for, on one line.
    pub(crate) fn target(&self) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn task(status: &Value) -> Task {
        Task::of(&json!({"metadata": {"name": "a", "namespace": "b", "generation": 2}, "status": status}))
    }

    #[test]
    fn an_older_status_says_nothing_about_a_newer_edit() {
        let complete = json!([{"type": "Complete", "status": "True"}]);
        assert_eq!(
            task(&json!({"observedGeneration": 1, "conditions": complete})).standing(),
            Standing::UnderWay
        );
        assert_eq!(
            task(&json!({"observedGeneration": 2, "conditions": complete})).standing(),
            Standing::Complete
        );
        assert_eq!(Task::of(&json!({"metadata": {"generation": 1}})).standing(), Standing::UnderWay);
    }

    #[test]
    fn a_field_of_another_type_hides_nothing_but_itself() {
        let task = task(
            &json!({"observedGeneration": 2, "handled": {"rerun": 7}, "run": {"number": 3, "progress": 1}}),
        );
        assert_eq!((task.metadata.generation, task.status.observed_generation), (2, Some(2)));
        assert_eq!(task.status.run.unwrap().number, 3);
    }

    #[test]
    fn a_refused_spec_is_told_from_a_failed_run() {
        let refused = json!([{"type": "Accepted", "status": "False", "message": "no targets"},
                             {"type": "Stalled", "status": "True"}]);
        let failed = json!([{"type": "Failed", "status": "True", "reason": "NodesFailed"}]);
        let standing =
            |conditions: &Value| task(&json!({"observedGeneration": 2, "conditions": conditions})).standing();
        assert_eq!(standing(&refused), Standing::Invalid("no targets".into()));
        assert_eq!(standing(&failed), Standing::Failed("NodesFailed".into()));
    }
}
