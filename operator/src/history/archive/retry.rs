//! One write, retried until History takes it or rejects it for good.

use std::future::Future;

use backon::{BackoffBuilder as _, ExponentialBuilder};

use super::options::ArchiverOptions;
use super::status::{Totals, Transition};
use crate::history::error::HistoryError;

/// Why a write was given up.
#[derive(Debug)]
pub(super) enum WriteFailure {
    /// It can never succeed.
    Rejected(HistoryError),
    /// The store has ended.
    Closed(HistoryError),
}

/// The archiver cannot continue.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiverStopped {
    /// The receiver of [`Archived`](super::Archived) was dropped.
    #[error("the receiver of its notifications was dropped")]
    Unobserved,
    /// The store has ended.
    #[error(transparent)]
    HistoryClosed(HistoryError),
}

/// Repeats `write` with growing pauses until it succeeds.
///
/// # Errors
/// [`WriteFailure`] when repeating it is pointless.
pub(super) async fn until_stored<F: Future<Output = Result<(), HistoryError>>>(
    totals: &Totals,
    options: &ArchiverOptions,
    mut write: impl FnMut() -> F,
) -> Result<(), WriteFailure> {
    let mut pauses = ExponentialBuilder::new()
        .with_min_delay(options.retry_min)
        .with_max_delay(options.retry_max)
        .without_max_times()
        .build();
    loop {
        let error = match write().await {
            Ok(()) => {
                if totals.succeeded() == Transition::Changed {
                    tracing::info!("History is available again");
                }
                return Ok(());
            }
            Err(error) => error,
        };
        if matches!(error, HistoryError::Closed { .. }) {
            totals.failed(&error);
            return Err(WriteFailure::Closed(error));
        }
        if !error.is_retryable() {
            return Err(WriteFailure::Rejected(error));
        }
        if totals.failed(&error) == Transition::Changed {
            let category = error.category();
            tracing::warn!(%error, category, "History is unavailable; records and output are queued");
        }
        tokio::time::sleep(pauses.next().unwrap_or(options.retry_max)).await;
    }
}
