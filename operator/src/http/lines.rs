//! Lines of the output of one Execution: a window of them as JSON, or each as it is written as server-sent events:
//!
//! * `lines`: lines that are new or have changed. The id of the event is the position from which another reader receives
//!   what this one has not received; browsers send it back as `Last-Event-ID`;
//! * `end`: the log has ended, and all of it was sent.

use std::num::NonZeroU64;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt as _};
use sentinel_api::view::{LinesEventView, LinesView};
use sentinel_protocol::log::Stream as OutputStream;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, BodyError};
use super::api::Api;
use super::error::ApiError;
use super::executions::{self, unable};
use super::line_view::view;
use super::logs::{LogEnd, attempt, attempt_number, end, never_begins, since};
use super::request::{Query, Request};
use crate::logs::{LinesFrom, LinesParams, LinesUpdate, ReadError};

/// Most lines of an answer.
pub(super) const MAX_LINES: usize = 1000;

/// Lines of an answer without `count`.
const DEFAULT_LINES: usize = 500;

/// Interval of comments on an idle stream, by which a reader knows that it is connected.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);

pub(super) async fn read(api: &Api, parts: &[String], query: &Query) -> Result<Answer, ApiError> {
    let (task, run, node) = executions::id(parts)?;
    let params = LinesParams {
        from: from(api, query)?,
        count: count_of(query, "count", DEFAULT_LINES)?,
        stream: stream(query)?,
    };
    let number = attempt_number(query)?;
    let attempt = attempt(api, &task, run, &node, number).await?;
    let known_end = end(api, &attempt).await?;
    let found = api.logs.lines(&attempt, params).await.map_err(|error| unable(&error.source))?;
    let ended = match known_end {
        LogEnd::At(end) => found.end >= end,
        LogEnd::Unknown => true,
        LogEnd::NotBegun | LogEnd::Open => false,
    };
    Answer::json(&LinesView {
        attempt: attempt.attempt,
        lines: found.items.into_iter().map(view).collect(),
        next: found.next,
        total_lines: found.total,
        end: found.end,
        ended,
    })
}

pub(super) async fn follow(
    api: &Api,
    parts: &[String],
    query: &Query,
    request: &Request,
) -> Result<Answer, ApiError> {
    let (task, run, node) = executions::id(parts)?;
    let number = attempt_number(query)?;
    let from = resumed_at(request)?.or(query.read("from", "a position: 0 to 18446744073709551615")?);
    let attempt = attempt(api, &task, run, &node, number).await?;
    let updates = api.logs.follow_lines(&attempt, from.unwrap_or(0), stream(query)?).await;
    let events = LineEvents {
        updates: Box::pin(updates.map_err(|error| unable(&error.source))?),
        never: Some(never_begins(api, attempt)),
        over: false,
        stop: api.stop.clone(),
    };
    let stream = unfold(events, |mut events| async move { events.next().await.map(|item| (item, events)) });
    Ok(Answer::stream("text/event-stream", stream))
}

fn from(api: &Api, query: &Query) -> Result<LinesFrom, ApiError> {
    query.only_one(&["line", "position", "tail", "since"])?;
    let line = query.read::<NonZeroU64>("line", "the number of a line, 1 or more")?;
    let position = query.read::<u64>("position", "a position: 0 to 18446744073709551615")?;
    let tail = query.read::<u64>("tail", "a number of lines")?;
    let since = since(api, query)?;
    let given = [
        line.map(|line| LinesFrom::Line(line.get())),
        position.map(LinesFrom::Position),
        tail.map(LinesFrom::Tail),
        since.map(LinesFrom::Since),
    ];
    Ok(given.into_iter().flatten().next().unwrap_or(LinesFrom::Line(1)))
}

/// The number of lines that a parameter has.
pub(super) fn count_of(query: &Query, name: &str, default: usize) -> Result<usize, ApiError> {
    let allowed = format!("a number of lines, 1 to {MAX_LINES}");
    match query.read::<usize>(name, &allowed)? {
        None => Ok(default),
        Some(count) if (1..=MAX_LINES).contains(&count) => Ok(count),
        Some(count) => Err(ApiError::query(name, &count.to_string(), allowed)),
    }
}

pub(super) fn stream(query: &Query) -> Result<Option<OutputStream>, ApiError> {
    query.one_of("stream", &[("stdout", OutputStream::Stdout), ("stderr", OutputStream::Stderr)])
}

/// Where a reader was that reconnects.
fn resumed_at(request: &Request) -> Result<Option<u64>, ApiError> {
    let Some(value) = request.headers.get("last-event-id") else { return Ok(None) };
    let text = value.to_str().unwrap_or("?");
    let invalid = |_| ApiError::query("last-event-id", text, "the id of an event of this stream");
    text.parse().map(Some).map_err(invalid)
}

/// One reader of events.
struct LineEvents {
    updates: Pin<Box<dyn Stream<Item = Result<LinesUpdate, ReadError>> + Send>>,
    /// Completes when the log will never begin; `None` once it has.
    never: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    over: bool,
    stop: CancellationToken,
}

impl LineEvents {
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        if self.over {
            return None;
        }
        let update = tokio::select! {
            update = self.updates.next() => update,
            () = pending(self.never.as_mut()) => None,
            () = tokio::time::sleep(KEEP_ALIVE) => return Some(Ok(Bytes::from_static(b": alive\n\n"))),
            // The reader connects again, to the next leader.
            () = self.stop.cancelled() => {
                self.over = true;
                return None;
            }
        };
        match update {
            Some(Ok(update)) => {
                self.never = None;
                let lines = update.items.into_iter().map(view).collect();
                let data = serde_json::to_string(&LinesEventView { lines }).map_err(BodyError::from);
                let next = update.next;
                Some(data.map(|data| Bytes::from(format!("id: {next}\nevent: lines\ndata: {data}\n\n"))))
            }
            Some(Err(error)) => {
                self.over = true;
                tracing::warn!(%error, "failed to read a log; the stream of its lines ends");
                Some(Err(error.into()))
            }
            None => {
                self.over = true;
                Some(Ok(Bytes::from_static(b"event: end\ndata: {}\n\n")))
            }
        }
    }
}

/// Completes with the future; never without one.
async fn pending(future: Option<&mut Pin<Box<dyn Future<Output = ()> + Send>>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
