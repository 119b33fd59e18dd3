//! The structure of a value: the part of an OpenAPI schema that an API server enforces before it evaluates rules. The schema is read
//! once, into what is checked; reading its keywords for each value took longer than the rest of an admission.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display, Formatter};

use regex::Regex;
use serde_json::{Map, Value};

use super::invalid::Problems;

/// What a value may be, and what it is when it is absent.
#[derive(Debug)]
pub(super) struct Structure {
    default: Option<Value>,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    Anything,
    IntOrText(Range, TextRules),
    Object { properties: BTreeMap<String, Structure>, required: Vec<String> },
    Map { values: Box<Structure>, most: u64 },
    List { items: Box<Structure>, least: u64, most: u64, unique: Unique },
    Text(TextRules),
    Integer(Range),
    Boolean,
}

#[derive(Debug)]
struct Range {
    least: i64,
    most: i64,
}

#[derive(Debug)]
struct TextRules {
    least: u64,
    most: u64,
    names: Option<Vec<String>>,
    pattern: Option<(String, Regex)>,
}

/// Which items of a list must differ.
#[derive(Debug)]
enum Unique {
    No,
    Items,
    /// This field of them.
    Field(String),
}

impl Structure {
    /// What this schema allows. A keyword that is not known here is not enforced.
    pub(super) fn of(schema: &Value) -> Self {
        Self { default: schema.get("default").cloned(), shape: Shape::of(schema) }
    }

    /// Validates a value at this field, and fills in defaults.
    pub(super) fn check(&self, value: &mut Value, field: &str, problems: &mut Problems) {
        self.check_at(value, &Path::of(field), problems);
    }

    fn check_at(&self, value: &mut Value, path: &Path<'_>, problems: &mut Problems) {
        let wanted = match (&self.shape, &mut *value) {
            (Shape::Anything, _) | (Shape::Boolean, Value::Bool(_)) => return,
            (Shape::Object { properties, required }, Value::Object(object)) => {
                return check_object(object, properties, required, path, problems);
            }
            (Shape::Map { values, most }, Value::Object(object)) => {
                return check_map(object, values, *most, path, problems);
            }
            (Shape::List { items, least, most, unique }, Value::Array(list)) => {
                return check_list(list, items, (*least, *most), unique, path, problems);
            }
            (Shape::Text(rules) | Shape::IntOrText(_, rules), Value::String(text)) => {
                return rules.check(text, path, problems);
            }
            (Shape::Integer(range) | Shape::IntOrText(range, _), Value::Number(number))
                if number.is_i64() || number.is_u64() =>
            {
                return range.check(number.as_i64(), path, problems);
            }
            (Shape::Object { .. } | Shape::Map { .. }, _) => "an object",
            (Shape::List { .. }, _) => "a list",
            (Shape::Text(_), _) => "a string (quote numbers, and words such as yes)",
            (Shape::Integer(_), _) => "a whole number",
            (Shape::IntOrText(..), _) => "a whole number or a string",
            (Shape::Boolean, _) => "true or false",
        };
        problems.json(&path.to_string(), value, format!("must be {wanted}"));
    }
}

impl Shape {
    fn of(schema: &Value) -> Self {
        let amount = |keyword: &str, otherwise: u64| schema[keyword].as_u64().unwrap_or(otherwise);
        if schema["x-kubernetes-int-or-string"] == Value::Bool(true) {
            return Self::IntOrText(Range::of(schema), TextRules::of(schema));
        }
        match schema["type"].as_str() {
            Some("object") => match (schema.get("additionalProperties"), schema["properties"].as_object()) {
                (Some(values), _) if values.is_object() => Self::Map {
                    values: Box::new(Structure::of(values)),
                    most: amount("maxProperties", u64::MAX),
                },
                (_, Some(properties)) => Self::Object {
                    properties: properties
                        .iter()
                        .map(|(name, of)| (name.clone(), Structure::of(of)))
                        .collect(),
                    required: texts(&schema["required"]).unwrap_or_default(),
                },
                _ => Self::Map { values: Box::new(Structure::of(&Value::Null)), most: u64::MAX },
            },
            Some("array") => Self::List {
                items: Box::new(Structure::of(&schema["items"])),
                least: amount("minItems", 0),
                most: amount("maxItems", u64::MAX),
                unique: Unique::of(schema),
            },
            Some("string") => Self::Text(TextRules::of(schema)),
            Some("integer") => Self::Integer(Range::of(schema)),
            Some("boolean") => Self::Boolean,
            _ => Self::Anything,
        }
    }
}

impl Unique {
    /// A list of type set has no duplicate items, and one of type map no duplicate keys.
    fn of(schema: &Value) -> Self {
        match (schema["x-kubernetes-list-type"].as_str(), schema["x-kubernetes-list-map-keys"][0].as_str()) {
            (Some("set"), _) => Self::Items,
            (Some("map"), Some(key)) => Self::Field(key.to_owned()),
            _ => Self::No,
        }
    }

    fn check(&self, items: &[Value], path: &Path<'_>, problems: &mut Problems) {
        let mut seen = HashMap::new();
        for (index, item) in items.iter().enumerate() {
            let (field, value) = match self {
                Self::No => return,
                Self::Items => (String::new(), item),
                Self::Field(key) => (format!(".{key}"), &item[key.as_str()]),
            };
            if let Some(first) = seen.insert(value, index) {
                let allowed = format!("must be unique; {path}[{first}] is the same");
                problems.json(&format!("{path}[{index}]{field}"), value, allowed);
            }
        }
    }
}

impl Range {
    fn of(schema: &Value) -> Self {
        let bound = |keyword: &str| schema[keyword].as_f64().map(|bound| bound as i64);
        let widest = match schema["format"].as_str() {
            Some("int32") => i64::from(i32::MAX),
            _ => i64::MAX,
        };
        Self {
            least: bound("minimum").unwrap_or(i64::MIN),
            most: bound("maximum").unwrap_or(i64::MAX).min(widest),
        }
    }

    fn check(&self, number: Option<i64>, path: &Path<'_>, problems: &mut Problems) {
        if number.is_none_or(|number| number < self.least || number > self.most) {
            let seen = number.map_or_else(|| "a number out of range".to_owned(), |number| number.to_string());
            problems.value(path.to_string(), &seen, format!("must be {} to {}", self.least, self.most));
        }
    }
}

impl TextRules {
    fn of(schema: &Value) -> Self {
        let pattern = schema["pattern"].as_str();
        Self {
            least: schema["minLength"].as_u64().unwrap_or(0),
            most: schema["maxLength"].as_u64().unwrap_or(u64::MAX),
            names: texts(&schema["enum"]),
            // A test holds that each is supported.
            pattern: pattern.and_then(|pattern| Some((pattern.to_owned(), Regex::new(pattern).ok()?))),
        }
    }

    fn check(&self, text: &str, path: &Path<'_>, problems: &mut Problems) {
        let length = text.chars().count() as u64;
        if length < self.least || length > self.most {
            let range = range(self.least, self.most);
            problems.value(path.to_string(), text, format!("must be {range} characters long"));
            return;
        }
        if let Some(names) = &self.names
            && !names.iter().any(|name| name == text)
        {
            problems.value(path.to_string(), text, format!("must be {}", names.join(" or ")));
        }
        if let Some((pattern, regex)) = &self.pattern
            && !regex.is_match(text)
        {
            problems.value(path.to_string(), text, pattern_message(pattern));
        }
    }
}

/// The strings of a list; `None` where it is none.
fn texts(list: &Value) -> Option<Vec<String>> {
    Some(list.as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

fn check_map(
    object: &mut Map<String, Value>,
    values: &Structure,
    most: u64,
    path: &Path<'_>,
    problems: &mut Problems,
) {
    if object.len() as u64 > most {
        let entries = format!("{} entries", object.len());
        problems.value(path.to_string(), &entries, format!("must be at most {most}"));
    }
    for (key, value) in object {
        values.check_at(value, &path.then(Step::Key(key)), problems);
    }
}

fn check_object(
    object: &mut Map<String, Value>,
    properties: &BTreeMap<String, Structure>,
    required: &[String],
    path: &Path<'_>,
    problems: &mut Problems,
) {
    if object.keys().any(|name| !properties.contains_key(name)) {
        let known: Vec<&str> = properties.keys().map(String::as_str).collect();
        unknown(object, &known, &path.to_string(), problems);
    }
    for (name, property) in properties {
        // As in an API server: null counts as absent where there is a default.
        if let Some(default) = &property.default
            && object.get(name).is_none_or(Value::is_null)
        {
            object.insert(name.clone(), default.clone());
        }
    }
    for name in required {
        if !object.contains_key(name) {
            problems.field(join(&path.to_string(), name), "is required");
        }
    }
    for (name, value) in object {
        if let Some(property) = properties.get(name) {
            property.check_at(value, &path.then(Step::Field(name)), problems);
        }
    }
}

fn check_list(
    list: &mut [Value],
    items: &Structure,
    (least, most): (u64, u64),
    unique: &Unique,
    path: &Path<'_>,
    problems: &mut Problems,
) {
    let count = list.len() as u64;
    if count < least || count > most {
        let allowed = format!("must be {}", range(least, most));
        problems.value(path.to_string(), &format!("{count} items"), allowed);
        return;
    }
    for (index, item) in list.iter_mut().enumerate() {
        items.check_at(item, &path.then(Step::Item(index)), problems);
    }
    unique.check(list, path, problems);
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

/// The message about a pattern that does not match.
pub(super) fn pattern_message(pattern: &str) -> String {
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

/// Adds a problem for each field that is not one of these.
pub(super) fn unknown(object: &Map<String, Value>, known: &[&str], path: &str, problems: &mut Problems) {
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
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("comand", "command"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(nearest("xyz", &["command", "script"]), None);
    }
}
