//! One call to the API server: a deadline, and retries of our own.
//!
//! The client's usual retries are off: they repeat any request, a POST too, up to 15 times over minutes. Here every
//! call ends within [`CALL_WITHIN`]; an idempotent request is retried within that time, any other only when the server
//! has rejected it before processing (429).

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::error::ClusterError;
use crate::backoff::Backoff;

/// Time within which every call returns.
pub(super) const CALL_WITHIN: Duration = Duration::from_secs(10);

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(2) };

/// Whether a request may be made twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// The second request finds what the first has done, or does nothing.
    Idempotent,
    /// Only when the server has not processed the first.
    Unprocessed,
}

/// Makes a request until it is answered, or its time is over.
pub(super) async fn call<T, F>(
    doing: &str,
    repeat: Repeat,
    request: impl Fn() -> F,
) -> Result<T, ClusterError>
where
    F: Future<Output = kube::Result<T>>,
{
    let deadline = Instant::now() + CALL_WITHIN;
    let mut failures = 0;
    loop {
        let Ok(answer) = timeout_at(deadline, request()).await else {
            return Err(ClusterError::TimedOut { doing: doing.to_owned(), within: CALL_WITHIN });
        };
        let error = match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        failures += 1;
        let delay = BACKOFF.after(failures);
        if !may_repeat(&error, repeat) || Instant::now() + delay >= deadline {
            return Err(cluster_error(doing, error));
        }
        tracing::debug!(doing, %error, failures, "retrying a call to the API server");
        tokio::time::sleep(delay).await;
    }
}

fn may_repeat(error: &kube::Error, repeat: Repeat) -> bool {
    match error {
        kube::Error::Api(status) if status.code == 429 => true,
        kube::Error::Api(status) => status.code >= 500 && repeat == Repeat::Idempotent,
        kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => {
            repeat == Repeat::Idempotent
        }
        _ => false,
    }
}

fn cluster_error(doing: &str, error: kube::Error) -> ClusterError {
    let doing = doing.to_owned();
    match error {
        kube::Error::Api(status) => match (status.code, status.reason.as_str()) {
            (409, "AlreadyExists") => ClusterError::Exists { doing },
            (409, _) => ClusterError::Conflict { doing },
            (404, _) => ClusterError::Gone { doing },
            (429 | 500.., _) => {
                ClusterError::Unavailable { doing, source: Box::new(kube::Error::Api(status)) }
            }
            (code, _) => ClusterError::Refused { doing, code, message: status.message },
        },
        kube::Error::SerdeError(error) => {
            ClusterError::Refused { doing, code: 500, message: format!("the answer cannot be read: {error}") }
        }
        other => ClusterError::Unavailable { doing, source: Box::new(other) },
    }
}
