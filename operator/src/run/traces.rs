//! Traces, where they are configured.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::error::RunError;
use crate::metrics::Registry;
use crate::traces::Traces;

/// The task that sends traces; none where they are off.
#[derive(Debug, Default)]
pub(super) struct Sending(Option<(JoinHandle<()>, CancellationToken)>);

impl Sending {
    /// Sends what is queued, for a short time, and ends.
    pub(super) async fn stop(self) {
        let Some((task, stop)) = self.0 else { return };
        stop.cancel();
        // It logs its failures.
        let _ = task.await;
    }
}

/// Starts to send traces to this collector, if there is one.
///
/// # Errors
/// [`RunError::Traces`] when the URL is of no use, or this operator was built without them.
#[cfg(feature = "otlp")]
pub(super) fn start(
    endpoint: Option<&str>,
    instance: Option<String>,
    metrics: &Registry,
) -> Result<(Traces, Sending), RunError> {
    let Some(endpoint) = endpoint else { return Ok((Traces::off(), Sending::default())) };
    let (traces, otlp) = crate::traces::Otlp::new(endpoint, instance, metrics)
        .map_err(|error| RunError::Traces(error.into()))?;
    let stop = CancellationToken::new();
    let task = tokio::spawn(otlp.run(stop.clone()));
    Ok((traces, Sending(Some((task, stop)))))
}

/// The same without the feature.
#[cfg(not(feature = "otlp"))]
pub(super) fn start(
    endpoint: Option<&str>,
    _instance: Option<String>,
    _metrics: &Registry,
) -> Result<(Traces, Sending), RunError> {
    match endpoint {
        None => Ok((Traces::off(), Sending::default())),
        Some(_) => Err(RunError::Traces("this operator was built without the feature otlp".into())),
    }
}
