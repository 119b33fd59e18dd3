//! Problems of a Task: the field, its value, and what is allowed.

use std::fmt;
use std::panic::Location;

/// Largest number of problems that are reported at once.
pub const MAX_PROBLEMS: usize = 20;

/// Longest part of a value that is shown, characters.
const MAX_SHOWN: usize = 64;

/// One thing that is wrong with a Task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Path of the field, as in `spec.run.command[0]`.
    pub field: String,
    /// Its value, escaped and cut to 64 characters; empty when the field itself is the problem.
    pub value: String,
    /// What is allowed, as the end of a sentence that begins with the field: "must be …", "is required".
    pub allowed: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.as_str() {
            "" => write!(f, "{} {}", self.field, self.allowed),
            value => write!(f, "{} is {value}; it {}", self.field, self.allowed),
        }
    }
}

impl std::error::Error for Invalid {}

/// All problems, a sentence each, separated by `; `.
pub fn describe(problems: &[Invalid]) -> String {
    let sentences: Vec<String> = problems.iter().map(ToString::to_string).collect();
    sentences.join("; ")
}

/// Collects up to [`MAX_PROBLEMS`] problems.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<Invalid>,
    raised_at: Vec<&'static Location<'static>>,
}

impl Problems {
    /// `field` has this value, which is not allowed.
    #[track_caller]
    pub(super) fn value(&mut self, field: impl Into<String>, value: &str, allowed: impl Into<String>) {
        self.push(field.into(), show(value), allowed.into());
    }

    /// `field` itself is the problem.
    #[track_caller]
    pub(super) fn field(&mut self, field: impl Into<String>, allowed: impl Into<String>) {
        self.push(field.into(), String::new(), allowed.into());
    }

    /// `field` has this JSON value, which is not allowed.
    #[track_caller]
    pub(super) fn json(&mut self, field: &str, value: &serde_json::Value, allowed: impl Into<String>) {
        let text = match value {
            serde_json::Value::String(text) => show(text),
            other => cut(&other.to_string()),
        };
        self.push(field.to_owned(), text, allowed.into());
    }

    /// Whether no problem was found so far.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The problems.
    pub(super) fn into_inner(self) -> Vec<Invalid> {
        self.found
    }

    /// For each problem the code that raised it: the rule that it breaks.
    pub(super) fn raised_at(self) -> Vec<&'static Location<'static>> {
        self.raised_at
    }

    #[track_caller]
    fn push(&mut self, field: String, value: String, allowed: String) {
        let problem = Invalid { field, value, allowed };
        if self.found.len() < MAX_PROBLEMS && !self.found.contains(&problem) {
            self.found.push(problem);
            self.raised_at.push(Location::caller());
        }
    }
}

/// A string in quotes, with control and invisible characters escaped.
pub(super) fn show(text: &str) -> String {
    let kept: String = text.chars().take(MAX_SHOWN).collect();
    if kept.len() < text.len() { format!("{kept:?}…") } else { format!("{kept:?}") }
}

fn cut(text: &str) -> String {
    let kept: String = text.chars().take(MAX_SHOWN).collect();
    if kept.len() < text.len() { format!("{kept}…") } else { kept }
}
