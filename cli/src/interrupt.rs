//! Ctrl-C: the first one detaches, a second one soon after cancels.

use std::future::Future;
use std::time::Duration;

use crate::exit::Failure;

/// How long after the first Ctrl-C the second one still counts.
pub(crate) const SECOND_WITHIN: Duration = Duration::from_secs(2);

/// How something that could be interrupted ended.
#[derive(Debug)]
pub(crate) enum Came<T> {
    /// To its end.
    Through(T),
    /// Ctrl-C was pressed first.
    Interrupted,
}

/// Carries on until done, or until Ctrl-C.
pub(crate) async fn or_interrupt<T>(work: impl Future<Output = T>) -> Result<Came<T>, Failure> {
    tokio::select! {
        done = work => Ok(Came::Through(done)),
        pressed = pressed() => pressed.map(|()| Came::Interrupted),
    }
}

/// Waits for the next Ctrl-C.
pub(crate) async fn pressed() -> Result<(), Failure> {
    tokio::signal::ctrl_c()
        .await
        .map_err(|error| Failure::new(format!("failed to listen for Ctrl-C: {error}")))
}

/// Whether Ctrl-C is pressed once more, soon.
pub(crate) async fn pressed_again() -> Result<bool, Failure> {
    match tokio::time::timeout(SECOND_WITHIN, pressed()).await {
        Ok(pressed) => pressed.map(|()| true),
        Err(_) => Ok(false),
    }
}
