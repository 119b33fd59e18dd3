//! A command must not run twice because of what this program prints. So the server is asked for what following needs before
//! anything is started; and a failure after that states what was started, by its name, and how to follow and cancel it.

use sentinel_protocol::ids::TaskName;

use super::flags::context_flags;
use crate::client::{Client, ClientError};
use crate::exit::Failure;

/// Asks the server for the events of a Task, as following it does. The Task may not exist yet.
///
/// # Errors
/// The caller could not follow it: with a message that nothing was started.
pub(super) async fn ask_first(client: &Client, namespace: &str, name: &str) -> Result<(), Failure> {
    // The refusal to create such a Task names the field.
    if name.parse::<TaskName>().is_err() {
        return Ok(());
    }
    match client.task_events(namespace, name).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_absence() => Ok(()),
        Err(error) => {
            Err(also(error.into(), "Nothing was started, because this program could not follow it."))
        }
    }
}

/// The failure to create a Task, which may exist all the same if the answer was lost.
pub(super) fn not_created(client: &Client, namespace: &str, name: &str, error: ClientError) -> Failure {
    let is_known = is_not_done(&error);
    let failure = Failure::from(error);
    if is_known {
        return failure;
    }
    let flags = context_flags(client, namespace);
    also(
        failure,
        &format!(
            "Task {namespace}/{name} may have been created, and then its command runs. Before you start it again: sentinel get task {name}{flags}"
        ),
    )
}

/// Whether a request that failed so did nothing: it was not sent, or was refused.
pub(super) fn is_not_done(error: &ClientError) -> bool {
    match error {
        ClientError::InvalidRequest { .. }
        | ClientError::Unreachable { .. }
        | ClientError::Untrusted { .. }
        | ClientError::Cluster { .. } => true,
        ClientError::Refused { .. } | ClientError::Foreign { .. } => {
            error.status().is_some_and(|status| (400..500).contains(&status))
        }
        ClientError::Disconnected { .. }
        | ClientError::TimedOut { .. }
        | ClientError::NotJson { .. }
        | ClientError::Shape { .. }
        | ClientError::LineTooLong { .. } => false,
    }
}

/// What was started before a failure.
#[derive(Debug, Clone, Copy)]
pub(super) enum Started<'a> {
    /// A Task was created.
    Task,
    /// A rerun was requested with this token.
    Rerun(&'a str),
}

/// The failure to follow what was started.
pub(super) fn not_followed(
    client: &Client,
    namespace: &str,
    name: &str,
    started: Started<'_>,
    failure: Failure,
) -> Failure {
    let flags = context_flags(client, namespace);
    let what = match started {
        Started::Task => format!("Task {namespace}/{name} was created"),
        Started::Rerun(token) => {
            format!("A rerun of Task {namespace}/{name} was requested (token {token})")
        }
    };
    also(
        failure,
        &format!(
            "{what}. Do not start it again: its command has begun, or will begin.\n  follow it:  sentinel logs -f {name}{flags}\n  cancel it:  sentinel cancel {name}{flags}\n  cancel it without the operator, and delete it:  sentinel delete {name}{flags}"
        ),
    )
}

/// Adds to what a failure advises.
fn also(failure: Failure, text: &str) -> Failure {
    let hint = match &failure.hint {
        Some(hint) => format!("{hint}\n{text}"),
        None => text.to_owned(),
    };
    failure.hint(hint)
}
