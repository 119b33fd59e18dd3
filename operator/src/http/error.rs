//! An answer of the API that is not a success.

use http::StatusCode;
pub use sentinel_api::reason::{ErrorBody, Problem, Reason};
use sentinel_telemetry::steers;

/// Longest part of a value that an error repeats, characters.
const SHOWN: usize = 64;

/// An error as it leaves the API: an HTTP status and an [`ErrorBody`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", .body.message)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body.
    pub body: Box<ErrorBody>,
    /// The methods of the path, when the method was the problem.
    pub allow: Option<String>,
}

impl ApiError {
    /// The kind of error, as a label of metrics and logs; see [`Reason::category`].
    pub fn category(&self) -> &'static str {
        self.body.reason.category()
    }

    /// Whether the same request may succeed later; see [`Reason::is_retryable`].
    pub fn is_retryable(&self) -> bool {
        self.body.reason.is_retryable()
    }

    /// An error with a reason and a sentence.
    ///
    /// Its category, and whether the request may be retried, are those of the [`Reason`].
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

    /// The same with the field in question, the value found there and what is allowed.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>, value: &str, allowed: impl Into<String>) -> Self {
        self.body.field = Some(field.into());
        self.body.value = Some(shown(value));
        self.body.allowed = Some(allowed.into());
        self
    }

    /// The object does not exist: 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, Reason::NotFound, message)
    }

    /// An invalid value of a query parameter: 400.
    pub fn query(name: &str, value: &str, allowed: impl Into<String>) -> Self {
        let allowed = allowed.into();
        let message = format!("query parameter {name} cannot be {:?}; allowed: {allowed}", shown(value));
        Self::new(StatusCode::BAD_REQUEST, Reason::InvalidQuery, message).at(name, value, allowed)
    }

    /// A component that the answer needs is unavailable: 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Reason::Unavailable, message)
    }

    /// An internal error: 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Reason::Internal, message)
    }

    /// A body with invalid content, with every problem found: 422.
    pub fn invalid(what: &str, problems: Vec<Problem>) -> Self {
        let sentences: Vec<String> = problems.iter().map(ToString::to_string).collect();
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

/// The beginning of a value, on one line and without control sequences. Quotes and backslashes stay as they are: a value
/// that is quoted already is not quoted twice.
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
    fn error_names_field_value_and_what_is_allowed() {
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
    fn values_are_cut_and_without_control_characters() {
        assert_eq!(shown("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\n");
        assert_eq!(shown("\u{9b}31m\u{202e}"), "\\u{9b}31m\\u{202e}");
        assert_eq!(shown(&"x".repeat(100)).chars().count(), 65);
    }

    #[test]
    fn first_problem_has_the_same_value_at_the_top_and_in_the_list() {
        let problem = || Problem {
            field: "spec.timeouts.start".to_owned(),
            value: "\"5 minutes\"".to_owned(),
            allowed: "must be a duration".to_owned(),
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
