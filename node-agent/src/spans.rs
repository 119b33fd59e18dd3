//! The spans that log lines are written in: one for each Session and each Attempt. They are at level ERROR, so that
//! every filter that lets a line through lets its fields through.

use sentinel_protocol::ids::AttemptId;
use tracing::Span;
use tracing::field::Empty;

/// The span of an Attempt. It has no parent: an Attempt outlives the Session that brought it.
pub(crate) fn attempt_span(id: &AttemptId) -> Span {
    tracing::error_span!(
        parent: None,
        "attempt",
        task = %id.task,
        run = id.run.0,
        node = %id.node,
        attempt = id.attempt
    )
}

/// The span of a Session on the control socket; `session` is recorded when the operator has named it.
pub(crate) fn session_span(node: &str) -> Span {
    tracing::error_span!("session", node, session = Empty)
}

/// The span of a log socket, which belongs to a Session.
pub(crate) fn log_socket_span(node: &str, session: &str) -> Span {
    tracing::error_span!("log_socket", node, session)
}
