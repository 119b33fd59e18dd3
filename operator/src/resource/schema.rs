//! Validation and defaulting of an API server, for Tasks that do not come through one: files, and the API of dev mode. The
//! structure is validated strictly against the schema of the definition; defaults are filled in.
//!
//! Not a general validator: it supports the keywords that this schema uses, and a test fails when the schema uses another
//! one. No library does the same: `jsonschema` fills in no defaults, ignores the `x-kubernetes-*` keywords and lists, for a
//! field of two types, an error for each type; `serde_ignored` with `serde_path_to_error` ends at the first wrong type,
//! where this reports every problem of a file at once.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::invalid::{Invalid, Problems};
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
            Some(spec) => check(spec, &spec_schema().spec, &Path::of("spec"), &mut problems),
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

/// The schema of the spec of a Task, and its patterns.
struct SpecSchema {
    spec: Value,
    patterns: HashMap<String, Regex>,
}

fn spec_schema() -> &'static SpecSchema {
    static SCHEMA: OnceLock<SpecSchema> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let crd = crd::task_crd().ok().and_then(|crd| serde_json::to_value(crd).ok()).unwrap_or_default();
        let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").cloned();
        let mut spec = spec.unwrap_or_default();
        strip(&mut spec);
        let mut patterns = HashMap::new();
        collect_patterns(&spec, &mut patterns);
        SpecSchema { spec, patterns }
    })
}

/// Removes what no check reads, and most of the schema is.
fn strip(schema: &mut Value) {
    let Value::Object(keywords) = schema else { return };
    for unread in ["description", "x-kubernetes-validations"] {
        keywords.remove(unread);
    }
    for (keyword, value) in keywords {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(strip),
            ("items" | "additionalProperties", value) => strip(value),
            _ => {}
        }
    }
}

fn collect_patterns(schema: &Value, patterns: &mut HashMap<String, Regex>) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::String(pattern)) = object.get("pattern")
                && let Ok(regex) = Regex::new(pattern)
            {
                patterns.insert(pattern.clone(), regex);
            }
            object.values().for_each(|value| collect_patterns(value, patterns));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_patterns(value, patterns)),
        _ => {}
    }
}

/// The place of a value, written out only for a problem: most Tasks have none.
struct Path<'a> {
    parent: Option<&'a Self>,
    step: Step<'a>,
}

enum Step<'a> {
    Field(&'a str),
    Key(&'a str),
    Item(usize),
}

impl<'a> Path<'a> {
    fn of(field: &'a str) -> Self {
        Self { parent: None, step: Step::Field(field) }
    }

    fn then(&'a self, step: Step<'a>) -> Self {
        Self { parent: Some(self), step }
    }
}

impl Display for Path<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Field(name) if self.parent.is_none() => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Key(key) => write!(f, "[{key}]"),
            Step::Item(index) => write!(f, "[{index}]"),
        }
    }
}

/// Validates a value and fills in defaults.
fn check(value: &mut Value, schema: &Value, path: &Path<'_>, problems: &mut Problems) {
    if schema["x-kubernetes-int-or-string"] == Value::Bool(true) {
        int_or_text(value, schema, path, problems);
        return;
    }
    match (schema["type"].as_str(), &mut *value) {
        (Some("object"), Value::Object(object)) => check_object(object, schema, path, problems),
        (Some("array"), Value::Array(items)) => check_array(items, schema, path, problems),
        (Some("string"), Value::String(text)) => check_text(text, schema, path, problems),
        (Some("integer"), Value::Number(number)) if number.is_i64() || number.is_u64() => {
            check_number(number.as_i64(), schema, path, problems);
        }
        (Some("boolean"), Value::Bool(_)) | (None, _) => {}
        (Some(wanted), _) => {
            let wanted = match wanted {
                "object" => "an object",
                "array" => "a list",
                "string" => "a string (quote numbers, and words such as yes)",
                "integer" => "a whole number",
                "boolean" => "true or false",
                other => other,
            };
            problems.json(&path.to_string(), value, format!("must be {wanted}"));
        }
    }
}

fn check_object(object: &mut Map<String, Value>, schema: &Value, path: &Path<'_>, problems: &mut Problems) {
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
        let most = schema["maxProperties"].as_u64().unwrap_or(u64::MAX);
        if object.len() as u64 > most {
            problems.value(
                path.to_string(),
                &format!("{} entries", object.len()),
                format!("must be at most {most}"),
            );
        }
        for (key, value) in object {
            check(value, values, &path.then(Step::Key(key)), problems);
        }
        return;
    }
    let Some(properties) = schema["properties"].as_object() else { return };
    if object.keys().any(|name| !properties.contains_key(name)) {
        let known: Vec<&str> = properties.keys().map(String::as_str).collect();
        unknown(object, &known, &path.to_string(), problems);
    }
    for (name, property) in properties {
        let default = property.get("default");
        // As in an API server: null counts as absent where there is a default.
        if default.is_some() && object.get(name).is_none_or(Value::is_null) {
            object.insert(name.clone(), default.cloned().unwrap_or_default());
        }
    }
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(required) {
            problems.field(join(&path.to_string(), required), "is required");
        }
    }
    for (name, value) in object {
        if let Some(property) = properties.get(name) {
            check(value, property, &path.then(Step::Field(name)), problems);
        }
    }
}

fn check_array(items: &mut [Value], schema: &Value, path: &Path<'_>, problems: &mut Problems) {
    let count = items.len() as u64;
    let (least, most) =
        (schema["minItems"].as_u64().unwrap_or(0), schema["maxItems"].as_u64().unwrap_or(u64::MAX));
    if count < least || count > most {
        let allowed = format!("must be {}", range(least, most));
        problems.value(path.to_string(), &format!("{count} items"), allowed);
        return;
    }
    for (index, item) in items.iter_mut().enumerate() {
        check(item, &schema["items"], &path.then(Step::Item(index)), problems);
    }
    check_unique(items, schema, path, problems);
}

/// A list of type set has no duplicate items, and one of type map no duplicate keys.
fn check_unique(items: &[Value], schema: &Value, path: &Path<'_>, problems: &mut Problems) {
    let key = match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => None,
        Some("map") => schema["x-kubernetes-list-map-keys"][0].as_str(),
        _ => return,
    };
    let mut seen = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        let (field, value) = match key {
            Some(key) => (format!("{path}[{index}].{key}"), &item[key]),
            None => (format!("{path}[{index}]"), item),
        };
        if let Some(first) = seen.insert(value, index) {
            let allowed = format!("must be unique; {path}[{first}] is the same");
            problems.json(&field, value, allowed);
        }
    }
}

fn check_text(text: &str, schema: &Value, path: &Path<'_>, problems: &mut Problems) {
    let length = text.chars().count() as u64;
    let least = schema["minLength"].as_u64().unwrap_or(0);
    let most = schema["maxLength"].as_u64().unwrap_or(u64::MAX);
    if length < least || length > most {
        problems.value(path.to_string(), text, format!("must be {} characters long", range(least, most)));
        return;
    }
    if let Some(names) = schema["enum"].as_array()
        && !names.iter().any(|name| name == text)
    {
        let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
        problems.value(path.to_string(), text, format!("must be {}", names.join(" or ")));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && spec_schema().patterns.get(pattern).is_some_and(|regex| !regex.is_match(text))
    {
        problems.value(path.to_string(), text, pattern_message(pattern));
    }
}

fn check_number(number: Option<i64>, schema: &Value, path: &Path<'_>, problems: &mut Problems) {
    let bound = |keyword: &str| schema[keyword].as_f64().map(|bound| bound as i64);
    let (least, most) = (bound("minimum").unwrap_or(i64::MIN), bound("maximum").unwrap_or(i64::MAX));
    let widest = match schema["format"].as_str() {
        Some("int32") => i64::from(i32::MAX),
        _ => i64::MAX,
    };
    match number {
        Some(number) if number >= least && number <= most.min(widest) => {}
        _ => {
            let seen = number.map_or_else(|| "a number out of range".to_owned(), |number| number.to_string());
            problems.value(path.to_string(), &seen, format!("must be {least} to {}", most.min(widest)));
        }
    }
}

fn int_or_text(value: &Value, schema: &Value, path: &Path<'_>, problems: &mut Problems) {
    match value {
        Value::Number(number) if number.is_i64() || number.is_u64() => {
            check_number(number.as_i64(), schema, path, problems);
        }
        Value::String(text) => check_text(text, schema, path, problems),
        other => problems.json(&path.to_string(), other, "must be a whole number or a string"),
    }
}

/// The message about a pattern that does not match.
fn pattern_message(pattern: &str) -> String {
    match pattern {
        super::task::run::NO_NUL_PATTERN => {
            "must not contain a zero byte, which the kernel cannot pass on".to_owned()
        }
        // Not reached: a test holds that each pattern of the schema has a message.
        _ => "must match its pattern; the description of the field has an example".to_owned(),
    }
}

fn range(least: u64, most: u64) -> String {
    match (least, most) {
        (least, u64::MAX) => format!("at least {least}"),
        (0, most) => format!("at most {most}"),
        (least, most) => format!("{least} to {most}"),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn unknown(object: &Map<String, Value>, known: &[&str], path: &str, problems: &mut Problems) {
    for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
        let field = join(path, name);
        let known = match nearest(name, known) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("known fields: {}", known.join(", ")),
        };
        problems.field(field, format!("is an unknown field; {known}"));
    }
}

/// The known name within a few letters, if there is one.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let most = (name.chars().count() / 3).clamp(1, 3);
    let candidates = known.iter().map(|candidate| (distance(name, candidate), *candidate));
    candidates.filter(|(distance, _)| *distance <= most).min().map(|(_, candidate)| candidate)
}

/// The Levenshtein distance, without case.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.chars()) {
            let next = (diagonal + usize::from(x != y)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = next;
            left = next;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_pattern_of_the_schema_is_supported_and_has_a_message() {
        let mut found = HashMap::new();
        collect_patterns(&spec_schema().spec, &mut found);
        let mut in_schema = Vec::new();
        texts(&spec_schema().spec, "pattern", &mut in_schema);
        for pattern in in_schema {
            assert!(found.contains_key(&pattern), "{pattern} is not a supported regular expression");
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
                    "properties" => value.as_object().unwrap().values().for_each(walk),
                    "items" | "additionalProperties" => walk(value),
                    _ => {}
                }
            }
        }
        walk(&spec_schema().spec);
    }

    #[test]
    fn misspelt_field_is_named_with_a_suggestion() {
        let task = json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "a"},
            "spec": {"targets": {"all": true}, "run": {"comand": ["df"]}}});
        let problems = admit(task).unwrap_err();
        assert_eq!(problems[0].to_string(), "spec.run.comand is an unknown field; did you mean command?");
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("comand", "command"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(nearest("xyz", &["command", "script"]), None);
    }
}
