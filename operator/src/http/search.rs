//! Searches the output of one Execution: hits as they are found, one JSON object a line, within a time and a number of hits;
//! beyond them the reader continues where the search has ended.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, unfold};
use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::Look;
use sentinel_api::view::SearchLineView;
use sentinel_protocol::log::Stream as OutputStream;
use serde::Serialize;
use tokio::time::Instant;

use super::answer::{Answer, BodyError};
use super::api::Api;
use super::error::ApiError;
use super::executions::{self, unable};
use super::lines::stream;
pub(super) use super::log_text::NDJSON;
use super::logs::{attempt, attempt_number};
use super::request::Query;
use crate::logs::{Hit, ReadError, SearchUpdate};

/// How long a search takes at most.
pub(super) const WITHIN: Duration = Duration::from_secs(30);

/// Most hits of a search.
const MAX_HITS: usize = 10_000;

/// Hits of a search without `limit`.
const DEFAULT_HITS: usize = 1_000;

/// Longest expression, bytes.
const MAX_PATTERN: usize = 1_024;

/// Memory for a compiled expression, and for its cache in each search, bytes.
const MAX_COMPILED: usize = 1 << 20;

pub(super) async fn read(api: &Api, parts: &[String], query: &Query) -> Result<Answer, ApiError> {
    let (task, run, node) = executions::id(parts)?;
    let pattern = pattern(query)?;
    let from = query.read::<u64>("from", "a position: 0 to 18446744073709551615")?.unwrap_or(0);
    let limit = limit(query)?;
    let number = attempt_number(query)?;
    let only: Option<OutputStream> = stream(query)?;
    let attempt = attempt(api, &task, run, &node, number).await?;
    let end = api.logs.end_of(&attempt).await.map_err(|error| unable(&error.source))?;
    let updates = api.logs.search(&attempt, from, only, pattern).await;
    let updates = updates.map_err(|error| unable(&error.source))?;
    let until = Instant::now() + WITHIN;
    let search = Search { updates, position: from, end, left: limit, until, over: false };
    let stream = unfold(search, |mut search| async move { search.next().await.map(|item| (item, search)) });
    Ok(Answer::stream(NDJSON, stream))
}

/// The `limit` of the query: most hits of a search.
pub(super) fn limit(query: &Query) -> Result<usize, ApiError> {
    let allowed = format!("a number of hits, 1 to {MAX_HITS}");
    match query.read::<usize>("limit", &allowed)? {
        None => Ok(DEFAULT_HITS),
        Some(limit) if (1..=MAX_HITS).contains(&limit) => Ok(limit),
        Some(limit) => Err(ApiError::query("limit", &limit.to_string(), allowed)),
    }
}

/// The expression of the query.
pub(super) fn pattern(query: &Query) -> Result<Regex, ApiError> {
    let allowed = "a regular expression of at most 1024 bytes (the syntax of Rust's regex crate)";
    let text = query.text("pattern").unwrap_or_default();
    if text.is_empty() || text.len() > MAX_PATTERN {
        return Err(ApiError::query("pattern", text, allowed));
    }
    if regards_whole_text(text) {
        let allowed = "an expression without \\A and \\z; ^ and $ match at the lines of the log";
        return Err(ApiError::query("pattern", text, allowed));
    }
    let built = RegexBuilder::new(text)
        .multi_line(true)
        .size_limit(MAX_COMPILED)
        .dfa_size_limit(MAX_COMPILED)
        .build();
    built.map_err(|error| {
        let why = error.to_string();
        let last = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        ApiError::query("pattern", text, format!("{allowed}: {last}"))
    })
}

/// Whether an expression has an assertion about the whole text, which a log that is searched part by part is not.
fn regards_whole_text(pattern: &str) -> bool {
    let parsed = regex_syntax::ParserBuilder::new().multi_line(true).utf8(false).build().parse(pattern);
    parsed.is_ok_and(|parsed| {
        let looks = parsed.properties().look_set();
        looks.contains(Look::Start) || looks.contains(Look::End)
    })
}

/// A search that is being answered.
struct Search {
    updates: BoxStream<'static, Result<SearchUpdate, ReadError>>,
    /// Every line that begins before it was searched.
    position: u64,
    end: u64,
    /// Hits that may still be sent.
    left: usize,
    until: Instant,
    over: bool,
}

impl Search {
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        if self.over {
            return None;
        }
        let update = tokio::time::timeout_at(self.until, self.updates.next()).await;
        match update {
            Ok(Some(Ok(update))) => Some(Ok(self.found(update))),
            Ok(Some(Err(error))) => {
                self.over = true;
                tracing::warn!(%error, "failed to search a log; its reader receives an incomplete answer");
                Some(Err(error.into()))
            }
            Ok(None) => Some(Ok(self.finish(true))),
            Err(_) => Some(Ok(self.finish(false))),
        }
    }

    fn found(&mut self, update: SearchUpdate) -> Bytes {
        let mut text = Vec::new();
        let is_cut = update.hits.len() > self.left;
        for hit in update.hits.into_iter().take(self.left) {
            self.left -= 1;
            self.position = self.position.max(hit.position + 1);
            line(&mut text, &view(&hit));
        }
        if is_cut {
            text.extend_from_slice(&self.finish(false));
            return text.into();
        }
        self.position = update.position;
        line(
            &mut text,
            &SearchLineView::Progress { position: self.position, end: self.end.max(self.position) },
        );
        text.into()
    }

    fn finish(&mut self, complete: bool) -> Bytes {
        self.over = true;
        let mut text = Vec::new();
        line(&mut text, &SearchLineView::End { position: self.position, complete });
        text.into()
    }
}

/// Adds a line of the answer.
pub(super) fn line(text: &mut Vec<u8>, view: &impl Serialize) {
    // Writing to memory cannot fail, and these values have a JSON form.
    let _ = serde_json::to_writer(&mut *text, view);
    text.push(b'\n');
}

fn view(hit: &Hit) -> SearchLineView {
    SearchLineView::Hit {
        line: hit.line,
        position: hit.position,
        stream: hit.stream,
        at_micros: hit.at_micros,
        text: texts(hit),
    }
}

/// The text of a hit before its match, the match, and the text behind it.
pub(super) fn texts(hit: &Hit) -> [String; 3] {
    let (start, end) = hit.matched;
    let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&hit.text[range]).into_owned();
    [text(0..start), text(start..end), text(end..hit.text.len())]
}
