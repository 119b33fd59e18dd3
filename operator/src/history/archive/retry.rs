//! One write, tried until History takes it or says that it never will.

use std::future::Future;
use std::time::Duration;

use super::archiver::ArchiverOptions;
use super::status::{Change, Status};
use crate::history::error::{HistoryError, Retry};

/// Tries `write` until it succeeds.
///
/// # Errors
/// The error of a write that can never succeed.
pub(super) async fn until_stored<F: Future<Output = Result<(), HistoryError>>>(
    status: &Status,
    options: &ArchiverOptions,
    mut write: impl FnMut() -> F,
) -> Result<(), HistoryError> {
    let mut pause = options.retry_first;
    loop {
        match write().await {
            Ok(()) => {
                if status.succeeded() == Change::Turned {
                    tracing::info!("history is back");
                }
                return Ok(());
            }
            Err(error) if error.retry() == Retry::Never => return Err(error),
            Err(error) => {
                if status.failed(error.to_string()) == Change::Turned {
                    tracing::warn!(%error, category = error.category(), "history is away; what is to be stored waits");
                }
                tokio::time::sleep(pause).await;
                pause = next_pause(pause, options.retry_most);
            }
        }
    }
}

fn next_pause(pause: Duration, most: Duration) -> Duration {
    pause.saturating_mul(2).min(most)
}
