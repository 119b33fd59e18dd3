//! Why a client has no answer, or one that is not a success.

use std::time::Duration;

use super::peer;
use super::server::Server;
use crate::decode::ShapeError;
use crate::reason::{ErrorBody, Reason};

/// Why a request was not answered with success.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The request cannot be sent as it is.
    #[error("cannot request {path:?}: {message}")]
    InvalidRequest {
        /// Its path.
        path: String,
        /// What is wrong with it.
        message: String,
    },
    /// No server listens at the address.
    #[error("no server answers at {server}: {cause}")]
    Unreachable {
        /// The server.
        server: Server,
        /// The innermost cause.
        cause: String,
    },
    /// A server listens at the address, and is not one to send anything to.
    #[error("refused to use {server}: {cause}")]
    Untrusted {
        /// The server.
        server: Server,
        /// Why.
        cause: String,
    },
    /// The connection was lost before the answer was complete.
    #[error("the connection to {server} broke: {cause}")]
    Disconnected {
        /// The server.
        server: Server,
        /// The innermost cause.
        cause: String,
    },
    /// The server did not begin to answer in time.
    #[error("{server} did not answer within {} s", .within.as_secs())]
    TimedOut {
        /// The server.
        server: Server,
        /// The time that it had.
        within: Duration,
    },
    /// The server cannot be reached by way of a cluster, for a reason that a person must know.
    #[error("{message}")]
    Cluster {
        /// What was attempted, at which server, and why it failed.
        message: String,
        /// What to do.
        advice: String,
        /// Whether the same request may succeed later.
        is_retryable: bool,
    },
    /// The server answered with an error of this API.
    #[error("{}", sentence(.error))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The body of the answer.
        error: Box<ErrorBody>,
    },
    /// The server answered with an error, and without the body that this API has for errors.
    #[error("{server} answered {status}")]
    Foreign {
        /// The server.
        server: Server,
        /// The HTTP status, with its phrase.
        status: http::StatusCode,
    },
    /// The answer is not JSON.
    #[error("{server} did not answer with JSON: {cause}")]
    NotJson {
        /// The server.
        server: Server,
        /// What the parser reported.
        cause: String,
    },
    /// The answer is JSON, and not of the shape that this API has.
    #[error("unexpected answer of {server} about {what}: {shape}")]
    Shape {
        /// The server.
        server: Server,
        /// What was requested.
        what: String,
        /// The field, and what was found there.
        shape: Box<ShapeError>,
    },
    /// The server sent a line that is longer than any of this API.
    #[error("{server} sent a line of more than {most} bytes")]
    LineTooLong {
        /// The server.
        server: Server,
        /// The bound, bytes.
        most: usize,
    },
}

impl ClientError {
    /// The reason of the server's answer, where it gave one.
    pub fn reason(&self) -> Option<Reason> {
        self.body().map(|body| body.reason)
    }

    /// Whether the server answered that the object does not exist.
    pub fn is_absence(&self) -> bool {
        self.body().is_some_and(ErrorBody::is_absence)
    }

    /// The body of the server's answer, where it is an error of this API.
    pub fn body(&self) -> Option<&ErrorBody> {
        match self {
            Self::Refused { error, .. } => Some(error),
            _ => None,
        }
    }

    /// The HTTP status, where the server answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Foreign { status, .. } => Some(status.as_u16()),
            _ => None,
        }
    }

    /// The kind of error, as a label of metrics and logs: `connection`, `answer`, or the category of the server's
    /// [`Reason`].
    pub fn category(&self) -> &'static str {
        match self {
            Self::InvalidRequest { .. } => "request",
            Self::Unreachable { .. } | Self::Disconnected { .. } | Self::TimedOut { .. } => "connection",
            Self::Untrusted { .. } => "access",
            Self::Cluster { .. } => "connection",
            Self::Refused { error, .. } => error.reason.category(),
            Self::Foreign { .. } | Self::NotJson { .. } | Self::Shape { .. } | Self::LineTooLong { .. } => {
                "answer"
            }
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Disconnected { .. } | Self::TimedOut { .. } => true,
            Self::Refused { error, .. } => error.reason.is_retryable(),
            Self::Foreign { status, .. } => status.is_server_error(),
            Self::Cluster { is_retryable, .. } => *is_retryable,
            Self::InvalidRequest { .. }
            | Self::Untrusted { .. }
            | Self::NotJson { .. }
            | Self::Shape { .. }
            | Self::LineTooLong { .. } => false,
        }
    }

    /// As the connection pool reports a request that got no answer.
    pub(super) fn of_pool(server: &Server, error: &hyper_util::client::legacy::Error) -> Self {
        let (server, cause) = (server.clone(), root_cause(error));
        if is_untrusted(error) {
            Self::Untrusted { server, cause }
        } else if error.is_connect() {
            Self::Unreachable { server, cause }
        } else {
            Self::Disconnected { server, cause }
        }
    }

    /// As the body of an answer reports that it broke.
    pub(super) fn of_body(server: &Server, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Disconnected { server: server.clone(), cause: root_cause(error) }
    }
}

/// The message; with several problems a line for each.
fn sentence(error: &ErrorBody) -> String {
    if error.problems.is_empty() {
        return error.message.clone();
    }
    let subject = if error.reason == Reason::InvalidTask { "the Task" } else { "the request" };
    let lines: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
    format!("{subject} has {} problems:\n  {}", lines.len(), lines.join("\n  "))
}

/// Whether the connector refused the server.
fn is_untrusted(error: &hyper_util::client::legacy::Error) -> bool {
    let first = std::error::Error::source(error);
    std::iter::successors(first, |error| error.source()).any(|error| {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<peer::Untrusted>)
    })
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Problem;

    #[test]
    fn several_problems_are_a_line_each() {
        let problem = |field: &str| Problem {
            field: field.to_owned(),
            value: String::new(),
            allowed: "is required".to_owned(),
        };
        let error = ErrorBody {
            reason: Reason::InvalidTask,
            message: "whatever the server sent".to_owned(),
            field: None,
            value: None,
            allowed: None,
            problems: vec![problem("spec.run"), problem("spec.targets")],
        };
        let error = ClientError::Refused { status: 422, error: Box::new(error) };
        assert_eq!(
            error.to_string(),
            "the Task has 2 problems:\n  spec.run is required\n  spec.targets is required"
        );
        assert_eq!((error.category(), error.is_retryable()), ("request", false));
    }
}
