//! What an API server does to a Task before anybody sees it, for Tasks that come another way: files and the API of
//! dev mode. Its structure is checked against the schema of our own definition, strictly; defaults are filled in.
//!
//! Not a general checker: it knows the words that our schema uses, and a test fails when the schema learns a new one.

use std::collections::HashMap;
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

/// Most bytes of all annotations. Source: `TotalAnnotationSizeLimitB` of k8s.io/apimachinery.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// Most bytes of a Task as JSON.
pub const MAX_TASK_BYTES: usize = 512 << 10;

/// A Task out of JSON, as an API server would have it: checked in every respect, with its defaults.
///
/// # Errors
/// Everything that is wrong with its structure; and, where it can be read all the same, with its values.
pub fn admit(value: Value) -> Result<Task, Vec<Invalid>> {
    let (value, mut problems) = completed(value);
    match serde_path(value) {
        Ok(task) => {
            // A misspelt field would else be missed as well, and some values are bounded by schema and rules.
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

/// The first half of [`admit`]: what an API server does before it evaluates the rules in CEL, which
/// [`validate::check`] holds as well. Structure is checked, and defaults are filled in.
///
/// # Errors
/// Everything that is wrong with its structure.
pub fn complete(value: Value) -> Result<Value, Vec<Invalid>> {
    let (value, problems) = completed(value);
    if problems.is_empty() { Ok(value) } else { Err(problems) }
}

/// The value with its defaults, and what is wrong with its structure.
fn completed(mut value: Value) -> (Value, Vec<Invalid>) {
    let mut problems = Problems::default();
    type_meta(&value, &mut problems);
    if !problems.is_empty() {
        return (Value::Null, problems.into_inner());
    }
    if let Value::Object(object) = &mut value {
        // As the API server does: only the operator writes it.
        object.remove("status");
        metadata(object.get("metadata"), &mut problems);
        unknown(object, &["apiVersion", "kind", "metadata", "spec"], "", &mut problems);
        match object.get_mut("spec") {
            Some(spec) => check(spec, &rules().spec, "spec", &mut problems),
            None => problems.field("spec", "must be there"),
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

/// What `metadata` can hold.
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
        problems.field("metadata", "must be there, with a name");
        return;
    };
    unknown(metadata, &METADATA, "metadata", problems);
    let text = |field: &str, problems: &mut Problems| match metadata.get(field) {
        Some(Value::String(text)) => Some(text.clone()),
        None | Some(Value::Null) => None,
        Some(other) => {
            problems.json(&format!("metadata.{field}"), other, "must be a text");
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
            // What is appended to it is letters and digits.
            if let Err(error) = sentinel_protocol::ids::TaskName::new(format!("{prefix}0")) {
                problems.value("metadata.generateName", prefix, format!("must begin {}", error.allowed));
            }
        }
        (None, None) => problems.field("metadata.name", "must be there"),
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
            Some(other) => problems.json(&format!("metadata.{field}"), other, "must be an object of texts"),
        }
    }
}

/// Checks labels or annotations. Capitals are allowed in the prefix of an annotation.
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
            other => problems.json(&format!("metadata.{field}[{key}]"), other, "must be a text"),
        }
    }
    if !is_label && bytes > MAX_ANNOTATIONS {
        let allowed = format!("must be at most {MAX_ANNOTATIONS} bytes in all");
        problems.value("metadata.annotations", &format!("{bytes} bytes"), allowed);
    }
}

/// The schema of a Task's spec, and its patterns.
struct Rules {
    spec: Value,
    patterns: HashMap<String, Regex>,
}

fn rules() -> &'static Rules {
    static RULES: OnceLock<Rules> = OnceLock::new();
    RULES.get_or_init(|| {
        let crd = crd::task_crd().ok().and_then(|crd| serde_json::to_value(crd).ok()).unwrap_or_default();
        let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").cloned();
        let spec = spec.unwrap_or_default();
        let mut patterns = HashMap::new();
        collect_patterns(&spec, &mut patterns);
        Rules { spec, patterns }
    })
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

/// Checks a value against its schema and fills in defaults.
fn check(value: &mut Value, schema: &Value, path: &str, problems: &mut Problems) {
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
                "string" => "a text (a number or a word like yes needs quotes)",
                "integer" => "a whole number",
                "boolean" => "true or false",
                other => other,
            };
            problems.json(path, value, format!("must be {wanted}"));
        }
    }
}

fn check_object(object: &mut Map<String, Value>, schema: &Value, path: &str, problems: &mut Problems) {
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
        let most = schema["maxProperties"].as_u64().unwrap_or(u64::MAX);
        if object.len() as u64 > most {
            problems.value(path, &format!("{} entries", object.len()), format!("must be at most {most}"));
        }
        for (key, value) in object {
            check(value, values, &format!("{path}[{key}]"), problems);
        }
        return;
    }
    let Some(properties) = schema["properties"].as_object() else { return };
    let known: Vec<&str> = properties.keys().map(String::as_str).collect();
    unknown(object, &known, path, problems);
    for (name, property) in properties {
        let default = property.get("default");
        // As the API server does: an empty value is as good as none where there is a default.
        if default.is_some() && object.get(name).is_none_or(Value::is_null) {
            object.insert(name.clone(), default.cloned().unwrap_or_default());
        }
    }
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(required) {
            problems.field(join(path, required), "must be there");
        }
    }
    for (name, value) in object {
        if let Some(property) = properties.get(name) {
            check(value, property, &join(path, name), problems);
        }
    }
}

fn check_array(items: &mut [Value], schema: &Value, path: &str, problems: &mut Problems) {
    let count = items.len() as u64;
    let (least, most) =
        (schema["minItems"].as_u64().unwrap_or(0), schema["maxItems"].as_u64().unwrap_or(u64::MAX));
    if count < least || count > most {
        let allowed = format!("must be {}", range(least, most));
        problems.value(path, &format!("{count} items"), allowed);
        return;
    }
    for (index, item) in items.iter_mut().enumerate() {
        check(item, &schema["items"], &format!("{path}[{index}]"), problems);
    }
    check_unique(items, schema, path, problems);
}

/// A list that is a set has no item twice, and one that is a map no key.
fn check_unique(items: &[Value], schema: &Value, path: &str, problems: &mut Problems) {
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
            let allowed = format!("must not be there twice; {path}[{first}] has it too");
            problems.json(&field, value, allowed);
        }
    }
}

fn check_text(text: &str, schema: &Value, path: &str, problems: &mut Problems) {
    let length = text.chars().count() as u64;
    let least = schema["minLength"].as_u64().unwrap_or(0);
    let most = schema["maxLength"].as_u64().unwrap_or(u64::MAX);
    if length < least || length > most {
        problems.value(path, text, format!("must be {} characters long", range(least, most)));
        return;
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.iter().any(|word| word == text)
    {
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        problems.value(path, text, format!("must be {}", words.join(" or ")));
    }
    // What a pattern means is said better by those who check the meaning; here it is only refused.
    if let Some(pattern) = schema["pattern"].as_str()
        && rules().patterns.get(pattern).is_some_and(|regex| !regex.is_match(text))
    {
        problems.value(path, text, shape(pattern));
    }
}

fn check_number(number: Option<i64>, schema: &Value, path: &str, problems: &mut Problems) {
    let bound = |word: &str| schema[word].as_f64().map(|bound| bound as i64);
    let (least, most) = (bound("minimum").unwrap_or(i64::MIN), bound("maximum").unwrap_or(i64::MAX));
    let widest = match schema["format"].as_str() {
        Some("int32") => i64::from(i32::MAX),
        _ => i64::MAX,
    };
    match number {
        Some(number) if number >= least && number <= most.min(widest) => {}
        _ => {
            let seen = number.map_or_else(|| "a larger number".to_owned(), |number| number.to_string());
            problems.value(path, &seen, format!("must be {least} to {}", most.min(widest)));
        }
    }
}

fn int_or_text(value: &Value, schema: &Value, path: &str, problems: &mut Problems) {
    match value {
        Value::Number(number) if number.is_i64() || number.is_u64() => {
            check_number(number.as_i64(), schema, path, problems);
        }
        Value::String(text) => check_text(text, schema, path, problems),
        other => problems.json(path, other, "must be a whole number or a text"),
    }
}

/// What a pattern asks for, in words.
fn shape(pattern: &str) -> String {
    match pattern {
        super::task::NO_NUL_PATTERN => {
            "must not hold a zero byte, which the kernel cannot pass on".to_owned()
        }
        // A test holds every pattern of the schema to words of its own.
        _ => "must be of another form; the description of the field has an example".to_owned(),
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
            None => format!("the known ones are {}", known.join(", ")),
        };
        problems.field(field, format!("is an unknown field; {known}"));
    }
}

/// The known word that is at most a few letters away.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let most = (word.chars().count() / 3).clamp(1, 3);
    let candidates = known.iter().map(|candidate| (distance(word, candidate), *candidate));
    candidates.filter(|(distance, _)| *distance <= most).min().map(|(_, candidate)| candidate)
}

/// Letters to change, add or take away to make one word of the other; capitals do not count.
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
    fn every_pattern_of_the_schema_is_one_that_we_can_check_and_explain() {
        let mut found = HashMap::new();
        collect_patterns(&rules().spec, &mut found);
        let mut in_schema = Vec::new();
        texts(&rules().spec, "pattern", &mut in_schema);
        for pattern in in_schema {
            assert!(found.contains_key(&pattern), "{pattern} is no regular expression for us");
            let words = shape(&pattern);
            assert!(!words.contains("of another form"), "{pattern} has no words");
            assert!(!words.contains(['^', '\\', '*']), "{words:?} is written for programs");
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
    fn what_is_wrong_with_values_is_listed_beside_what_is_wrong_with_the_structure() {
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

    /// A word of the schema that is not in this list is a rule that this checker would not hold.
    #[test]
    fn the_schema_uses_no_word_that_is_not_checked() {
        const CHECKED: [&str; 21] = [
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
            // Checked by `validate`; tests/cluster holds that both refuse the same.
            "x-kubernetes-validations",
        ];
        fn walk(schema: &Value) {
            for (word, value) in schema.as_object().unwrap() {
                assert!(CHECKED.contains(&word.as_str()), "{word} is not checked");
                match word.as_str() {
                    "properties" => value.as_object().unwrap().values().for_each(walk),
                    "items" | "additionalProperties" => walk(value),
                    _ => {}
                }
            }
        }
        walk(&rules().spec);
    }

    #[test]
    fn a_misspelt_field_is_named_with_the_one_that_was_meant() {
        let task = json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "a"},
            "spec": {"targets": {"all": true}, "run": {"comand": ["df"]}}});
        let problems = admit(task).unwrap_err();
        assert_eq!(problems[0].to_string(), "spec.run.comand is an unknown field; did you mean command?");
    }

    #[test]
    fn distance_counts_letters() {
        assert_eq!(distance("comand", "command"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(nearest("xyz", &["command", "script"]), None);
    }
}
