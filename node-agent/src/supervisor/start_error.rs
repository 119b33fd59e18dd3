//! Why a command could not be started.

use sentinel_protocol::outcome::StartFailure;

use crate::shortage;

/// Why a command could not be started, as the Outcome reports it.
#[derive(Debug)]
pub(super) struct StartError {
    pub(super) reason: StartFailure,
    pub(super) message: String,
}

impl StartError {
    pub(super) fn new(reason: StartFailure, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// The node has run out of something.
    pub(super) fn out_of_resources(doing: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(StartFailure::OutOfResources, format!("{doing}: {}", shortage::describe(error)))
    }
}
