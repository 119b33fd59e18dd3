//! Why a command could not be started.

use std::error::Error;

use sentinel_protocol::exit::ClockEnd;
use sentinel_protocol::outcome::StartFailure;
use sentinel_protocol::refusal::Refusal;
use serde::{Deserialize, Serialize};

use super::limits::LimitError;
use crate::shortage;

/// Why no command was started.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum NotStarted {
    TooLate(ClockEnd),
    Cancelled,
    Failed(StartError),
    Refused(Refusal),
}

impl NotStarted {
    /// The node's journal has failed, which its agent reports.
    pub(super) fn unrecorded(what: &str) -> Self {
        let message = format!("{what}: the journal of the node has failed");
        Self::Failed(StartError::new(StartFailure::OutOfResources, message))
    }

    /// A limit cannot be held.
    pub(super) fn of_limit(error: &LimitError) -> Self {
        Self::Failed(StartError::new(StartFailure::Other, error.to_string()))
    }
}

/// The node lacks what is needed to start anything.
pub(super) fn failed<E: Error + 'static>(doing: &'static str) -> impl FnOnce(E) -> NotStarted {
    move |error| NotStarted::Failed(StartError::out_of_resources(doing, &error))
}

/// Why a command could not be started, as the Outcome reports it.
#[derive(Debug, Serialize, Deserialize)]
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
