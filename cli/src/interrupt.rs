//! Ctrl-C: the first one detaches, a second one soon after cancels.

use std::future::Future;
use std::time::Duration;

use crate::exit::Failure;

/// How long after the first Ctrl-C a second one cancels.
pub(crate) const SECOND_WITHIN: Duration = Duration::from_secs(2);

/// How interruptible work ended.
#[derive(Debug)]
pub(crate) enum Interruptible<T> {
    /// It completed.
    Done(T),
    /// Ctrl-C came first.
    Interrupted,
}

/// Runs the work until it completes or Ctrl-C is pressed.
pub(crate) async fn until_interrupted<T>(work: impl Future<Output = T>) -> Result<Interruptible<T>, Failure> {
    tokio::select! {
        done = work => Ok(Interruptible::Done(done)),
        pressed = ctrl_c() => pressed.map(|()| Interruptible::Interrupted),
    }
}

/// Waits for the next Ctrl-C.
async fn ctrl_c() -> Result<(), Failure> {
    tokio::signal::ctrl_c()
        .await
        .map_err(|error| Failure::new(format!("failed to listen for Ctrl-C: {error}")))
}

/// Whether Ctrl-C is pressed again within [`SECOND_WITHIN`].
pub(crate) async fn pressed_again() -> Result<bool, Failure> {
    match tokio::time::timeout(SECOND_WITHIN, ctrl_c()).await {
        Ok(pressed) => pressed.map(|()| true),
        Err(_) => Ok(false),
    }
}
