//! Answers show nothing that a power cut could undo: each waits until what it may have read is durable.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::unfold;

use super::answer::{Answer, Body, BodyError, Chunks};
use super::error::ApiError;
use super::table::Operation;
use crate::cluster::TaskStore;

/// The answer, once all that it may show is durable, and each chunk of a stream likewise.
///
/// # Errors
/// 503 when it cannot become durable.
pub(super) async fn settled(
    store: &Arc<dyn TaskStore>,
    operation: Operation,
    answer: Answer,
) -> Result<Answer, ApiError> {
    if matches!(operation, Operation::Health | Operation::Ready | Operation::Metrics) {
        return Ok(answer);
    }
    if let Some(all) = store.unsettled() {
        all.await.map_err(|error| ApiError::unavailable(error.to_string()))?;
    }
    let Body::Stream(chunks) = answer.body else { return Ok(answer) };
    let reader = (chunks, store.clone());
    let chunks = unfold(reader, |(mut chunks, store)| async move {
        let chunk = chunks.next().await?;
        let all = match store.unsettled() {
            Some(all) => all.await.map_err(BodyError::from),
            None => Ok(()),
        };
        Some((all.and(chunk), (chunks, store)))
    });
    Ok(Answer { body: Body::Stream(Chunks::new(chunks)), ..answer })
}
