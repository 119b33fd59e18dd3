//! Why the API did not do what was asked: a closed set of reasons for programs, and the body that carries one.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// One of a closed set, for programs.
    pub reason: Reason,
    /// One sentence, for people.
    pub message: String,
    /// The field, query parameter or header in question, for example `spec.run.command[0]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The value found there, cut to 64 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The values that are allowed there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// Every problem, when there is more than one; the first is also in the fields above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

impl ErrorBody {
    /// Whether the object that the path names does not exist. An answer about a field of the request, such as a
    /// namespace that this operator does not serve, states nothing about the object.
    pub fn is_absence(&self) -> bool {
        self.reason == Reason::NotFound && self.field.is_none()
    }
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Path of the field.
    pub field: String,
    /// The value found there, cut to 64 characters; empty when the field itself is wrong.
    pub value: String,
    /// What is allowed: the end of a sentence that begins with the field.
    pub allowed: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, allowed } = self;
        if value.is_empty() {
            write!(f, "{field} {allowed}")
        } else {
            write!(f, "{field} is {value}; it {allowed}")
        }
    }
}

/// Why the API did not do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Reason {
    /// This API does not have the path.
    UnknownPath,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// The path cannot be read: an invalid escape, `..`, or too long.
    InvalidPath,
    /// A query parameter is unknown, repeated or out of range.
    InvalidQuery,
    /// The body is not of a media type that this path accepts.
    UnsupportedMediaType,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The body did not arrive in full.
    BodyIncomplete,
    /// The body is not JSON.
    InvalidJson,
    /// The body is JSON, but not a valid Task.
    InvalidTask,
    /// The object does not exist.
    NotFound,
    /// An object of that name exists.
    AlreadyExists,
    /// The object is not in a state that allows it, or was changed meanwhile; read it again.
    Conflict,
    /// The position lies outside the log.
    PositionOutOfRange,
    /// The token of the API is missing or wrong.
    Unauthorized,
    /// The caller may not do this.
    Forbidden,
    /// The request names another host than this one.
    ForeignHost,
    /// The request was made by a page of another site, or lacks the header that distinguishes it from one.
    ForeignOrigin,
    /// The server has as many streams open as it allows.
    TooManyStreams,
    /// A component that the answer needs is unavailable; retrying later helps.
    Unavailable,
    /// Internal error of the server.
    Internal,
    /// A reason of a newer server. Never sent.
    #[serde(other, skip_serializing)]
    #[schemars(skip)]
    Unrecognized,
}

impl Reason {
    /// The kind of reason, as a label of metrics and logs: `request` (fix the request), `state` (the object is not in a
    /// state that allows it), `access`, `server`.
    pub fn category(self) -> &'static str {
        match self {
            Self::UnknownPath
            | Self::MethodNotAllowed
            | Self::InvalidPath
            | Self::InvalidQuery
            | Self::UnsupportedMediaType
            | Self::BodyTooLarge
            | Self::BodyIncomplete
            | Self::InvalidJson
            | Self::InvalidTask
            | Self::PositionOutOfRange => "request",
            Self::NotFound | Self::AlreadyExists | Self::Conflict => "state",
            Self::Unauthorized | Self::Forbidden | Self::ForeignHost | Self::ForeignOrigin => "access",
            Self::TooManyStreams | Self::Unavailable | Self::Internal | Self::Unrecognized => "server",
        }
    }

    /// Whether the same request may succeed later, without a change of it.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::BodyIncomplete | Self::TooManyStreams | Self::Unavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ErrorBody {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn reason_of_a_newer_server_is_unrecognized() {
        assert_eq!(read(r#"{"reason": "NotFound", "message": "m"}"#).reason, Reason::NotFound);
        let newer = read(r#"{"reason": "TooTired", "message": "m", "since": 3}"#);
        assert_eq!((newer.reason, newer.reason.is_retryable()), (Reason::Unrecognized, false));
    }

    #[test]
    fn absence_is_about_the_object_and_not_about_a_field() {
        assert!(read(r#"{"reason": "NotFound", "message": "in other words"}"#).is_absence());
        assert!(!read(r#"{"reason": "NotFound", "message": "m", "field": "namespace"}"#).is_absence());
        assert!(!read(r#"{"reason": "UnknownPath", "message": "no Task"}"#).is_absence());
    }

    #[test]
    fn problem_is_one_sentence() {
        let problem = |value: &str| Problem {
            field: "spec.retry.limit".to_owned(),
            value: value.to_owned(),
            allowed: "must be 0 to 20".to_owned(),
        };
        assert_eq!(problem("99").to_string(), "spec.retry.limit is 99; it must be 0 to 20");
        assert_eq!(problem("").to_string(), "spec.retry.limit must be 0 to 20");
    }
}
