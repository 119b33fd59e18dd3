//! Validation and defaulting of an API server, for Tasks that do not come through one: files, and the API of dev mode. The
//! structure is validated strictly against the schema of the definition; defaults are filled in.
//!
//! Not a general validator: it supports the keywords that this schema uses, and a test fails when the schema uses another
//! one. No library does the same: `jsonschema` fills in no defaults, ignores the `x-kubernetes-*` keywords and lists, for a
//! field of two types, an error for each type; `serde_ignored` with `serde_path_to_error` ends at the first wrong type,
//! where this reports every problem of a file at once.

use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::invalid::{Invalid, Problems};
use super::structure::{Structure, unknown};
use super::validate::targets::{LABEL_VALUE, is_label_key, is_label_value};
use super::{Task, crd, validate};

/// What `apiVersion` must be.
pub const API_VERSION: &str = "sentinelnode.dev/v1alpha1";

/// What `kind` must be.
pub const KIND: &str = "Task";

/// Largest size of all annotations, bytes. Source: `TotalAnnotationSizeLimitB` of k8s.io/apimachinery.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// Largest Task as JSON, bytes.
pub const MAX_TASK_BYTES: usize = 512 << 10;

/// A Task from JSON, as an API server would admit it: validated, with defaults.
///
/// # Errors
/// All problems of its structure; and, where it can be read nevertheless, of its values.
pub fn admit(value: Value) -> Result<Task, Vec<Invalid>> {
    let (value, mut problems) = completed(value);
    match serde_path(value) {
        Ok(task) => {
            // A misspelt field would be reported as missing too, and some values are bounded by the schema and by rules.
            let is_known = |problem: &Invalid, known: &[Invalid]| {
                let same = |a: &str, b: &str| a.starts_with(b) || b.starts_with(a);
                known.iter().any(|known| same(&known.field, &problem.field))
            };
            let values = validate::check(&task).err().unwrap_or_default();
            let structure = problems.clone();
            problems.extend(values.into_iter().filter(|problem| !is_known(problem, &structure)));
            if problems.is_empty() { Ok(task) } else { Err(problems) }
        }
        Err(unreadable) => Err(if problems.is_empty() { unreadable } else { problems }),
    }
}

/// The first half of [`admit`]: what an API server does before it evaluates the rules in CEL, which [`validate::check`]
/// has too. The structure is validated, and defaults are filled in.
///
/// # Errors
/// All problems of its structure.
pub fn complete(value: Value) -> Result<Value, Vec<Invalid>> {
    let (value, problems) = completed(value);
    if problems.is_empty() { Ok(value) } else { Err(problems) }
}

/// The value with its defaults, and the problems of its structure.
fn completed(mut value: Value) -> (Value, Vec<Invalid>) {
    let mut problems = Problems::default();
    type_meta(&value, &mut problems);
    if !problems.is_empty() {
        return (Value::Null, problems.into_inner());
    }
    if let Value::Object(object) = &mut value {
        // As in an API server: it is a subresource.
        object.remove("status");
        metadata(object.get("metadata"), &mut problems);
        unknown(object, &["apiVersion", "kind", "metadata", "spec"], "", &mut problems);
        match object.get_mut("spec") {
            Some(spec) => spec_structure().check(spec, "spec", &mut problems),
            None => problems.field("spec", "is required"),
        }
    }
    (value, problems.into_inner())
}

fn serde_path(value: Value) -> Result<Task, Vec<Invalid>> {
    serde_json::from_value(value).map_err(|error| {
        let mut problems = Problems::default();
        problems.field("spec", format!("must be a Task: {error}"));
        problems.into_inner()
    })
}

/// Checks `apiVersion` and `kind`.
fn type_meta(value: &Value, problems: &mut Problems) {
    let Some(object) = value.as_object() else {
        problems.json(
            "the document",
            value,
            "must be a Task, an object with apiVersion, kind, metadata and spec",
        );
        return;
    };
    for (field, wanted) in [("kind", KIND), ("apiVersion", API_VERSION)] {
        match object.get(field) {
            Some(Value::String(text)) if text == wanted => {}
            Some(other) => problems.json(field, other, format!("must be {wanted}")),
            None => problems.field(field, format!("must be {wanted}")),
        }
    }
}

/// The fields of `metadata`.
const METADATA: [&str; 14] = [
    "name",
    "generateName",
    "namespace",
    "labels",
    "annotations",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "ownerReferences",
    "managedFields",
];

fn metadata(metadata: Option<&Value>, problems: &mut Problems) {
    let Some(Value::Object(metadata)) = metadata else {
        problems.field("metadata", "is required, with a name");
        return;
    };
    unknown(metadata, &METADATA, "metadata", problems);
    let text = |field: &str, problems: &mut Problems| match metadata.get(field) {
        Some(Value::String(text)) => Some(text.clone()),
        None | Some(Value::Null) => None,
        Some(other) => {
            problems.json(&format!("metadata.{field}"), other, "must be a string");
            None
        }
    };
    let name = text("name", problems);
    let generate = text("generateName", problems);
    match (&name, &generate) {
        (Some(name), _) => {
            if let Err(error) = sentinel_protocol::ids::NodeName::new(name.as_str()) {
                problems.value("metadata.name", name, format!("must be {}", error.allowed));
            }
        }
        (None, Some(prefix)) => {
            // The generated suffix is letters and digits.
            if let Err(error) = sentinel_protocol::ids::TaskName::new(format!("{prefix}0")) {
                problems.value("metadata.generateName", prefix, format!("must begin {}", error.allowed));
            }
        }
        (None, None) => problems.field("metadata.name", "is required"),
    }
    if let Some(namespace) = text("namespace", problems)
        && (namespace.contains('.')
            || namespace.len() > 63
            || sentinel_protocol::ids::NodeName::new(namespace.as_str()).is_err())
    {
        let allowed = "must be at most 63 lower-case letters, digits and '-'";
        problems.value("metadata.namespace", &namespace, allowed);
    }
    for field in ["labels", "annotations"] {
        match metadata.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Object(entries)) => marks(field, entries, problems),
            Some(other) => {
                problems.json(&format!("metadata.{field}"), other, "must be an object with string values");
            }
        }
    }
}

/// Validates labels or annotations. The prefix of an annotation may have capitals.
/// Source: `ValidateAnnotations` and `ValidateLabels` of k8s.io/apimachinery.
fn marks(field: &str, entries: &Map<String, Value>, problems: &mut Problems) {
    let is_label = field == "labels";
    let mut bytes = 0;
    for (key, value) in entries {
        let is_key = is_label_key(key) || (!is_label && is_label_key(&key.to_lowercase()));
        if !is_key {
            let allowed = "must have keys such as team or example.com/team";
            problems.value(format!("metadata.{field}"), key, allowed);
        }
        match value {
            Value::String(text) if is_label && !is_label_value(text) => {
                problems.value(format!("metadata.{field}[{key}]"), text, LABEL_VALUE);
            }
            Value::String(text) => bytes += key.len() + text.len(),
            other => problems.json(&format!("metadata.{field}[{key}]"), other, "must be a string"),
        }
    }
    if !is_label && bytes > MAX_ANNOTATIONS {
        let allowed = format!("must be at most {MAX_ANNOTATIONS} bytes in total");
        problems.value("metadata.annotations", &format!("{bytes} bytes"), allowed);
    }
}

/// The schema of the spec of a Task.
fn spec_schema() -> Value {
    let crd = crd::task_crd().ok().and_then(|crd| serde_json::to_value(crd).ok()).unwrap_or_default();
    let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec");
    spec.cloned().unwrap_or_default()
}

fn spec_structure() -> &'static Structure {
    static STRUCTURE: OnceLock<Structure> = OnceLock::new();
    STRUCTURE.get_or_init(|| Structure::of(&spec_schema()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::structure::pattern_message;
    use super::*;

    #[test]
    fn every_pattern_of_the_schema_is_supported_and_has_a_message() {
        let mut in_schema = Vec::new();
        texts(&spec_schema(), "pattern", &mut in_schema);
        assert!(!in_schema.is_empty());
        for pattern in in_schema {
            assert!(regex::Regex::new(&pattern).is_ok(), "{pattern} is not a supported regular expression");
            let message = pattern_message(&pattern);
            assert!(!message.contains("match its pattern"), "{pattern} has no message");
            assert!(!message.contains(['^', '\\', '*']), "{message:?} shows the expression");
        }
    }

    fn texts(schema: &Value, key: &str, found: &mut Vec<String>) {
        match schema {
            Value::Object(object) => {
                found.extend(object.get(key).and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| texts(value, key, found));
            }
            Value::Array(items) => items.iter().for_each(|value| texts(value, key, found)),
            _ => {}
        }
    }

    #[test]
    fn problems_of_structure_and_values_are_listed_together() {
        let task = serde_json::json!({
            "apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "a"},
            "spec": {
                "targets": {"all": true}, "run": {"command": ["true"], "nice": 3},
                "timeouts": {"run": "5 minutes", "idle": "0s"}, "retry": {"limit": 99},
            },
        });
        let problems = admit(task).unwrap_err();
        let mut fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["spec.retry.limit", "spec.run.nice", "spec.timeouts.idle", "spec.timeouts.run"]);
    }

    /// A keyword of the schema that is not in this list would not be validated.
    #[test]
    fn schema_uses_supported_keywords_only() {
        const TYPES: [&str; 5] = ["object", "array", "string", "integer", "boolean"];
        const SUPPORTED: [&str; 21] = [
            "additionalProperties",
            "default",
            "description",
            "enum",
            "format",
            "items",
            "maxItems",
            "maxLength",
            "maxProperties",
            "maximum",
            "minItems",
            "minLength",
            "minimum",
            "pattern",
            "properties",
            "required",
            "type",
            "x-kubernetes-int-or-string",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-list-type",
            // In `validate`; tests/cluster holds that both refuse the same.
            "x-kubernetes-validations",
        ];
        fn walk(schema: &Value) {
            for (keyword, value) in schema.as_object().unwrap() {
                assert!(SUPPORTED.contains(&keyword.as_str()), "{keyword} is not supported");
                match keyword.as_str() {
                    "type" => assert!(TYPES.contains(&value.as_str().unwrap()), "{value} is not supported"),
                    "properties" => value.as_object().unwrap().values().for_each(walk),
                    "items" | "additionalProperties" => walk(value),
                    _ => {}
                }
            }
        }
        walk(&spec_schema());
    }

    #[test]
    fn misspelt_field_is_named_with_a_suggestion() {
        let task = json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "a"},
            "spec": {"targets": {"all": true}, "run": {"comand": ["df"]}}});
        let problems = admit(task).unwrap_err();
        assert_eq!(problems[0].to_string(), "spec.run.comand is an unknown field; did you mean command?");
    }
}
