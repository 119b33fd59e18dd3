//! What the API says when it cannot do what was asked.

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use crate::telemetry::steers;

/// Largest part of somebody's input that is repeated to them.
const SHOWN: usize = 64;

/// A refusal or failure, as it leaves the API: `{"reason", "message", "field", "value", "allowed", "problems"}`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", .body.message)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body.
    pub body: Box<ErrorBody>,
    /// The methods that the path has, when the method was the problem.
    pub allow: Option<String>,
}

/// The body of every answer that is no success.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// One word of a closed set, for programs.
    pub reason: Reason,
    /// One sentence, for people.
    pub message: String,
    /// The field, query parameter or header in question, for example `spec.run.command[0]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What was found there, cut to 64 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What would have been accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// Every problem, when there is more than one; the first is also in the fields above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Where it is.
    pub field: String,
    /// What was found there, cut to 64 characters.
    pub value: String,
    /// What would have been accepted: the end of a sentence that begins with the field.
    pub allowed: String,
}

/// Why the API did not do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
pub enum Reason {
    /// The path is none of this API's.
    UnknownPath,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// The path cannot be read: bad escape, `..`, too long.
    InvalidPath,
    /// A query parameter is unknown, repeated or out of range.
    InvalidQuery,
    /// The body is not of the media type this path takes.
    UnsupportedMediaType,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The body did not arrive in full.
    BodyIncomplete,
    /// The body is not JSON.
    InvalidJson,
    /// The body is JSON, but not the object this path takes.
    InvalidTask,
    /// No such thing.
    NotFound,
    /// One of that name exists.
    AlreadyExists,
    /// It was changed by somebody else meanwhile; read it again.
    Conflict,
    /// The position lies outside the log.
    PositionOutOfRange,
    /// The API asks for its owner's token.
    Unauthorized,
    /// The request names another host than this one.
    ForeignHost,
    /// The request was made by a page of another site, or lacks the header that tells it from one.
    ForeignOrigin,
    /// As many streams as this server holds are open.
    TooManyStreams,
    /// A part that is needed for the answer cannot be reached; trying again later helps.
    Unavailable,
    /// A fault of ours.
    Internal,
}

impl ApiError {
    /// An error with a reason and a sentence.
    pub fn new(status: StatusCode, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            status,
            body: Box::new(ErrorBody {
                reason,
                message: message.into(),
                field: None,
                value: None,
                allowed: None,
                problems: Vec::new(),
            }),
            allow: None,
        }
    }

    /// The same, saying where the problem is, what was found there and what is allowed.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>, value: &str, allowed: impl Into<String>) -> Self {
        self.body.field = Some(field.into());
        self.body.value = Some(shown(value));
        self.body.allowed = Some(allowed.into());
        self
    }

    /// No such thing: 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, Reason::NotFound, message)
    }

    /// A query parameter that cannot be taken: 400.
    pub fn query(name: &str, value: &str, allowed: impl Into<String>) -> Self {
        let allowed = allowed.into();
        let message = format!("query parameter {name} cannot be {:?}; allowed: {allowed}", shown(value));
        Self::new(StatusCode::BAD_REQUEST, Reason::InvalidQuery, message).at(name, value, allowed)
    }

    /// A part that is needed cannot be reached: 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Reason::Unavailable, message)
    }

    /// A fault of ours: 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Reason::Internal, message)
    }

    /// A body whose content is wrong, with every problem found: 422.
    pub fn invalid(what: &str, problems: Vec<Problem>) -> Self {
        let sentences: Vec<String> = problems.iter().map(Problem::sentence).collect();
        let message = format!("{what} is not valid: {}", sentences.join("; "));
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, Reason::InvalidTask, message);
        if let Some(first) = problems.first() {
            error = error.at(first.field.clone(), &first.value, first.allowed.clone());
        }
        if problems.len() > 1 {
            error.body.problems = problems;
        }
        error
    }
}

impl Problem {
    /// The problem in one sentence.
    pub fn sentence(&self) -> String {
        if self.value.is_empty() {
            format!("{} {}", self.field, self.allowed)
        } else {
            format!("{} is {}; it {}", self.field, self.value, self.allowed)
        }
    }
}

/// The beginning of an input, on one line and without what steers a terminal. Quotes and backslashes stay as they are:
/// a value that is quoted already is not quoted twice.
pub fn shown(value: &str) -> String {
    let mut shown = String::new();
    for c in value.chars().take(SHOWN) {
        if steers(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    if value.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_field_value_and_what_is_allowed() {
        let error = ApiError::query("limit", "0", "1 to 500");
        let json = serde_json::to_value(&*error.body).unwrap();
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
        assert_eq!(json["reason"], "InvalidQuery");
        assert_eq!(
            (&json["field"], &json["value"], &json["allowed"]),
            (&"limit".into(), &"0".into(), &"1 to 500".into())
        );
        assert!(json.get("problems").is_none());
    }

    #[test]
    fn input_is_repeated_cut_and_without_control_characters() {
        assert_eq!(shown("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\n");
        assert_eq!(shown("\u{9b}31m\u{202e}"), "\\u{9b}31m\\u{202e}");
        assert_eq!(shown(&"x".repeat(100)).chars().count(), 65);
    }

    #[test]
    fn the_first_problem_has_the_same_value_at_the_top_as_in_the_list() {
        let problem = || Problem {
            field: "spec.timeouts.start".to_owned(),
            value: "\"5 minutes\"".to_owned(),
            allowed: "must be a span of time".to_owned(),
        };
        let json =
            serde_json::to_value(&*ApiError::invalid("Task", vec![problem(), problem()]).body).unwrap();
        assert_eq!(json["value"], "\"5 minutes\"");
        assert_eq!(json["value"], json["problems"][0]["value"]);
    }

    #[test]
    fn several_problems_are_all_listed() {
        let problem =
            |field: &str| Problem { field: field.into(), value: "1".into(), allowed: "must be 2".into() };
        let error = ApiError::invalid("Task a/b", vec![problem("x"), problem("y")]);
        assert_eq!(error.body.problems.len(), 2);
        assert!(error.body.message.contains("x is 1; it must be 2; y is 1"), "{}", error.body.message);
    }
}
