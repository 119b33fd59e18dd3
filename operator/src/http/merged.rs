//! Lines of the output of a Run, of all its nodes by time: some of them as JSON, or each as it is written as server-sent
//! events:
//!
//! * `lines`: lines that are new or have changed. The id of the event is a cursor from which another reader receives what
//!   this one has not received; browsers send it back as `Last-Event-ID`;
//! * `end`: all logs have ended, and all of them was sent.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::unfold;
use http::StatusCode;
use sentinel_api::view::{MergedEventView, MergedLinesView, MergedNodeView};
use sentinel_core::stream::cursor::MergeCursor;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, BodyError};
use super::api::Api;
use super::error::{ApiError, Reason};
use super::executions::unable;
use super::line_view::item_view;
use super::lines::{KEEP_ALIVE, MAX_LINES, count_of, stream};
use super::listings::Listing;
use super::logs::{LogEnd, end, since};
use super::request::{Query, Request};
use super::run_logs::{FoundLogs, RunKey, RunLogs};
use crate::logs::merged::{
    LogEnding, MergedExtent, MergedFrom, MergedItem, MergedLog, MergedParams, MergedStart, Merging,
};
use crate::server::{Client, Share, Shares};

/// Lines of an answer without `count`.
const DEFAULT_LINES: usize = 200;

/// Longest text of a cursor, bytes.
const MAX_CURSOR: usize = 12 << 10;

/// Bytes of text of an event.
const EVENT_TEXT: usize = 256 << 10;

/// How often logs that begin later are listed.
const LIST_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn read(
    api: &Api,
    parts: &[String],
    query: &Query,
    client: Client,
) -> Result<Answer, ApiError> {
    let run = RunLogs::of(api, parts, query)?;
    let (from, count) = from(api, query, run.key())?;
    let params = MergedParams { from, count, stream: stream(query)?, until: until(query)? };
    let FoundLogs { logs, are_all, .. } = run.find().await?;
    let _places = places(&api.merged, client, logs.len())?;
    let found = api.logs.merged_lines(&api.clock, &logs, params).await;
    let found = found.map_err(|error| unable(&error.source))?;
    let ended = match &found.ends {
        Some(ends) if are_all => have_ended(api, &logs, ends).await?,
        _ => false,
    };
    Answer::json(&MergedLinesView {
        lines: found.items.into_iter().map(item_view).collect(),
        before: text_of(&found.before, run.key()),
        next: text_of(&found.next, run.key()),
        ended,
        nodes: logs.iter().map(node_view).collect(),
    })
}

pub(super) async fn follow(
    api: &Api,
    parts: &[String],
    query: &Query,
    request: &Request,
) -> Result<Answer, ApiError> {
    let logs = RunLogs::of(api, parts, query)?;
    let run = logs.key();
    let resumed = match request.headers.get("last-event-id") {
        Some(value) => Some(cursor("last-event-id", value.to_str().unwrap_or("?"), run)?),
        None => query.text("from").map(|text| cursor("from", text, run)).transpose()?,
    };
    let listing = api.listings.of(logs.name());
    let found = listing.find(logs.find()).await?;
    let start = MergedStart {
        cursor: resumed.unwrap_or(MergeCursor { sent: i64::MIN, ..MergeCursor::default() }),
        stream: stream(query)?,
        extent: MergedExtent::Follow,
    };
    let merging = Merging::new(api.logs.clone(), api.clock.clone(), start);
    let mut followed = Followed::new(logs, listing, merging, (api.merged.clone(), request.client));
    followed.add(found).await?;
    let events = MergedEvents { followed, over: false, stop: api.stop.clone() };
    let stream = unfold(events, |mut events| async move { events.next().await.map(|item| (item, events)) });
    Ok(Answer::stream("text/event-stream", stream))
}

/// Places for a reader of so many more logs, until they are dropped.
pub(super) fn places(merged: &Shares, client: Client, logs: usize) -> Result<Share, ApiError> {
    merged.take(client, logs).ok_or_else(|| {
        let message = format!(
            "too many logs are being merged for {logs} more: the limit for one client is {}; choose fewer nodes, or try again",
            merged.each()
        );
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, Reason::TooManyStreams, message)
    })
}

fn from(api: &Api, query: &Query, run: RunKey) -> Result<(MergedFrom, usize), ApiError> {
    query.only_one(&["from", "to", "since", "tail"])?;
    query.only_one(&["count", "tail"])?;
    let count = count_of(query, "count", DEFAULT_LINES)?;
    let tail = tail(query)?;
    let from = query.text("from").map(|text| cursor("from", text, run)).transpose()?;
    let to = query.text("to").map(|text| cursor("to", text, run)).transpose()?;
    let since = since(api, query)?;
    let given = [
        from.map(MergedFrom::Cursor),
        to.map(MergedFrom::Before),
        since.map(MergedFrom::Since),
        tail.map(|_| MergedFrom::Tail),
    ];
    let from = given.into_iter().flatten().next().unwrap_or(MergedFrom::Tail);
    Ok((from, tail.unwrap_or(count)))
}

fn tail(query: &Query) -> Result<Option<usize>, ApiError> {
    let allowed = format!("a number of lines, 0 to {MAX_LINES}");
    match query.read::<usize>("tail", &allowed)? {
        Some(count) if count > MAX_LINES => Err(ApiError::query("tail", &count.to_string(), allowed)),
        count => Ok(count),
    }
}

/// The `until` of the query, microseconds since the Unix epoch.
pub(super) fn until(query: &Query) -> Result<Option<i64>, ApiError> {
    let until = query.read::<jiff::Timestamp>("until", "a time in RFC 3339")?;
    Ok(until.map(jiff::Timestamp::as_microsecond))
}

/// A cursor with the Run that it is of: in another one, it would skip lines.
pub(super) fn text_of(cursor: &MergeCursor, run: RunKey) -> String {
    URL_SAFE_NO_PAD.encode([&run[..], &cursor.encode()].concat())
}

pub(super) fn cursor(name: &str, text: &str, run: RunKey) -> Result<MergeCursor, ApiError> {
    let bytes = (text.len() <= MAX_CURSOR).then(|| URL_SAFE_NO_PAD.decode(text).ok()).flatten();
    bytes
        .and_then(|bytes| MergeCursor::decode(bytes.strip_prefix(&run)?))
        .ok_or_else(|| ApiError::query(name, text, "a cursor of an earlier answer for this Run"))
}

/// Whether these positions are the ends of the logs.
async fn have_ended(api: &Api, logs: &[MergedLog], ends: &[LogEnding]) -> Result<bool, ApiError> {
    for (log, ending) in logs.iter().zip(ends).filter(|(_, ending)| !ending.is_passed) {
        match end(api, &log.attempt).await? {
            LogEnd::At(end) if ending.position < end => return Ok(false),
            LogEnd::Open => return Ok(false),
            LogEnd::At(_) | LogEnd::Unknown | LogEnd::NotBegun => {}
        }
    }
    Ok(true)
}

fn node_view(log: &MergedLog) -> MergedNodeView {
    MergedNodeView {
        node: log.attempt.node.to_string(),
        attempt: log.attempt.attempt,
        offset_millis: log.offset_micros.map(|micros| micros / 1000),
    }
}

/// The logs of a Run that are followed, those that begin later too.
pub(super) struct Followed {
    logs: RunLogs,
    listing: Arc<Listing>,
    pub(super) merging: Merging,
    are_all: bool,
    list_at: Instant,
    /// A list of the logs that is being made.
    finding: Option<BoxFuture<'static, Result<FoundLogs, ApiError>>>,
    /// Whether all that the known logs have was read, and more may begin.
    has_read_all: bool,
    /// Its places are taken of these, for this client.
    merged: (Shares, Client),
    places: Vec<Share>,
    /// Logs that have a place.
    placed: usize,
}

/// What a follower has next.
pub(super) enum FollowedStep {
    /// A line or gap.
    Item(Box<MergedItem>),
    /// All logs have ended, and all of them was sent.
    End,
}

impl Followed {
    pub(super) fn new(
        logs: RunLogs,
        listing: Arc<Listing>,
        merging: Merging,
        merged: (Shares, Client),
    ) -> Self {
        Self {
            logs,
            listing,
            merging,
            are_all: false,
            list_at: Instant::now(),
            finding: None,
            has_read_all: false,
            merged,
            places: Vec::new(),
            placed: 0,
        }
    }

    /// Cancel safe: what was not added is listed again.
    pub(super) async fn add(&mut self, found: FoundLogs) -> Result<(), ApiError> {
        if let Some(more @ 1..) = found.logs.len().checked_sub(self.placed) {
            self.places.push(places(&self.merged.0, self.merged.1, more)?);
            self.placed = found.logs.len();
        }
        let logs = found.logs.iter().cloned().map(|log| (log, u64::MAX));
        self.merging.add(logs).await.map_err(|error| unable(&error.source))?;
        self.are_all = found.are_all;
        if self.are_all {
            self.merging.retain(&found.logs);
        }
        self.has_read_all = false;
        self.list_at = Instant::now() + LIST_EVERY;
        Ok(())
    }

    /// Cancel safe. Lines do not wait for a list of the logs.
    pub(super) async fn next(&mut self) -> Result<FollowedStep, BodyError> {
        loop {
            if self.finding.is_none() && !self.are_all && Instant::now() >= self.list_at {
                let (listing, logs) = (self.listing.clone(), self.logs.clone());
                self.finding = Some(Box::pin(async move { listing.find(logs.find()).await }));
            }
            let (finding, list_at) = (self.finding.as_mut(), self.list_at);
            let is_finding = finding.is_some();
            let found = OptionFuture::from(finding);
            tokio::select! {
                biased;
                found = found, if is_finding => {
                    self.finding = None;
                    match found {
                        Some(Ok(found)) => self.add(found).await?,
                        // While History is unavailable, what is known is followed.
                        Some(Err(error)) if error.is_retryable() => self.list_at = Instant::now() + LIST_EVERY,
                        Some(Err(error)) => return Err(error.into()),
                        None => {}
                    }
                }
                () = tokio::time::sleep_until(list_at), if !is_finding && !self.are_all => {}
                step = self.merging.next(), if !self.has_read_all => match step? {
                    Some(item) => return Ok(FollowedStep::Item(Box::new(item))),
                    None if self.are_all => return Ok(FollowedStep::End),
                    None => self.has_read_all = true,
                },
                else => return Ok(FollowedStep::End),
            }
        }
    }
}

/// One reader of events.
struct MergedEvents {
    followed: Followed,
    over: bool,
    stop: CancellationToken,
}

impl MergedEvents {
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        if self.over {
            return None;
        }
        let step = tokio::select! {
            step = self.followed.next() => step,
            () = tokio::time::sleep(KEEP_ALIVE) => return Some(Ok(Bytes::from_static(b": alive\n\n"))),
            // The reader connects again, to the next leader.
            () = self.stop.cancelled() => {
                self.over = true;
                return None;
            }
        };
        let event = match step {
            Ok(FollowedStep::Item(first)) => self.event(*first),
            Ok(FollowedStep::End) => {
                self.over = true;
                Ok(Bytes::from_static(b"event: end\ndata: {}\n\n"))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &event {
            self.over = true;
            tracing::warn!(%error, "failed to read the logs of a Run; the stream of their lines ends");
        }
        Some(event)
    }

    fn event(&mut self, first: MergedItem) -> Result<Bytes, BodyError> {
        let mut text = first.item.size();
        let mut lines = vec![item_view(first)];
        while text < EVENT_TEXT
            && let Some(item) = self.followed.merging.next_now()?
        {
            text += item.item.size() + 128;
            lines.push(item_view(item));
        }
        let id = text_of(&self.followed.merging.cursor(), self.followed.logs.key());
        let data = serde_json::to_string(&MergedEventView { lines })?;
        Ok(Bytes::from(format!("id: {id}\nevent: lines\ndata: {data}\n\n")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_of_too_many_logs_are_asked_to_try_again() {
        let merged = Shares::new(10, 6);
        let first = places(&merged, Client::Local, 4).unwrap();
        let refused = places(&merged, Client::Local, 4).map(drop).unwrap_err();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.to_string().contains("choose fewer nodes"), "{refused}");
        drop(first);
        assert!(places(&merged, Client::Local, 4).is_ok());
    }
}
