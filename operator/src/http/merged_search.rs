//! Searches the output of a Run: one log after the other, by node and Attempt, within the time and the number of hits of one
//! search; beyond them the reader continues at a cursor.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, unfold};
use regex::bytes::Regex;
use sentinel_api::view::RunSearchLineView;
use sentinel_core::stream::cursor::{MergeCursor, Reached};
use sentinel_protocol::log::Stream as OutputStream;
use tokio::time::{Instant, timeout_at};

use super::answer::{Answer, BodyError};
use super::api::Api;
use super::error::ApiError;
use super::executions::unable;
use super::lines::stream;
use super::merged::{cursor, text_of};
use super::request::Query;
use super::run_logs::{FoundLogs, READ_AT_ONCE, RunKey, RunLogs};
use super::search::{NDJSON, WITHIN, limit, line, pattern, texts};
use crate::logs::merged::MergedLog;
use crate::logs::{Hit, LogReader, ReadError, SearchUpdate};

pub(super) async fn read(api: &Api, parts: &[String], query: &Query) -> Result<Answer, ApiError> {
    let (pattern, limit) = (pattern(query)?, limit(query)?);
    let only = stream(query)?;
    let run = RunLogs::of(api, parts, query)?;
    let from = query.text("from").map(|text| cursor("from", text, run.key())).transpose()?;
    let FoundLogs { logs, .. } = run.find().await?;
    let search = RunSearch {
        reader: api.logs.clone(),
        run: run.key(),
        size: size(api, &logs).await?,
        searched: 0,
        logs: logs.into(),
        current: None,
        cursor: from.unwrap_or_default(),
        pattern,
        only,
        left: limit,
        until: Instant::now() + WITHIN,
        over: false,
    };
    let stream = unfold(search, |mut search| async move { search.next().await.map(|item| (item, search)) });
    Ok(Answer::stream(NDJSON, stream))
}

/// Bytes of all logs as they are now.
async fn size(api: &Api, logs: &[MergedLog]) -> Result<u64, ApiError> {
    let ends = futures_util::stream::iter(logs.to_vec())
        .map(|log| async move { api.logs.end_of(&log.attempt).await })
        .buffer_unordered(READ_AT_ONCE);
    let ends: Vec<Result<u64, ReadError>> = ends.collect().await;
    ends.into_iter().try_fold(0u64, |sum, end| {
        end.map(|end| sum.saturating_add(end)).map_err(|error| unable(&error.source))
    })
}

/// A log that is being searched.
struct Searched {
    log: MergedLog,
    updates: BoxStream<'static, Result<SearchUpdate, ReadError>>,
    /// Every line that begins before it was searched.
    position: u64,
}

/// A search that is being answered.
struct RunSearch {
    reader: LogReader,
    run: RunKey,
    /// Bytes of all logs when it began.
    size: u64,
    /// Bytes of the logs that it has searched, and of those that earlier ones have.
    searched: u64,
    /// Those that follow.
    logs: VecDeque<MergedLog>,
    current: Option<Searched>,
    cursor: MergeCursor,
    pattern: Regex,
    only: Option<OutputStream>,
    /// Hits that may still be sent.
    left: usize,
    until: Instant,
    over: bool,
}

impl RunSearch {
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        if self.over {
            return None;
        }
        let step = timeout_at(self.until, self.step()).await;
        match step {
            Ok(Ok(Some(bytes))) => Some(Ok(bytes)),
            Ok(Ok(None)) => Some(Ok(self.finish(true))),
            Ok(Err(error)) => {
                self.over = true;
                tracing::warn!(%error, "failed to search the logs of a Run; their reader receives an incomplete answer");
                Some(Err(error.into()))
            }
            Err(_) => Some(Ok(self.finish(false))),
        }
    }

    /// The next hits; `None` behind the last log. Cancel safe: a part of a search is searched again.
    async fn step(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            if self.current.is_none() && !self.open_next().await? {
                return Ok(None);
            }
            let Some(current) = &mut self.current else { continue };
            match current.updates.next().await.transpose()? {
                Some(update) => return Ok(Some(self.found(update))),
                None => self.close(),
            }
        }
    }

    /// Begins with the next log, where an earlier search has ended.
    async fn open_next(&mut self) -> Result<bool, ReadError> {
        let Some(log) = self.logs.front() else { return Ok(false) };
        let position = self.cursor.logs.get(&log.key()).map_or(0, |reached| reached.position);
        let updates = self.reader.search(&log.attempt, position, self.only, self.pattern.clone()).await?;
        if let Some(log) = self.logs.pop_front() {
            self.current = Some(Searched { log, updates, position });
        }
        Ok(true)
    }

    fn close(&mut self) {
        if let Some(done) = self.current.take() {
            self.searched = self.searched.saturating_add(done.position);
        }
    }

    fn found(&mut self, update: SearchUpdate) -> Bytes {
        let mut text = Vec::new();
        let Some(current) = &mut self.current else { return Bytes::new() };
        let is_cut = update.hits.len() > self.left;
        for hit in update.hits.into_iter().take(self.left) {
            self.left -= 1;
            current.position = current.position.max(hit.position + 1);
            line(&mut text, &view(&current.log, &hit));
        }
        if !is_cut {
            current.position = update.position;
        }
        if current.position > 0 {
            self.cursor.logs.insert(current.log.key(), Reached::at(current.position));
        }
        if is_cut {
            text.extend_from_slice(&self.finish(false));
            return text.into();
        }
        let searched = self.searched.saturating_add(current.position);
        let node = current.log.attempt.node.to_string();
        line(&mut text, &RunSearchLineView::Progress { node, searched, size: self.size.max(searched) });
        text.into()
    }

    fn finish(&mut self, complete: bool) -> Bytes {
        self.over = true;
        let mut text = Vec::new();
        let next = text_of(&self.cursor, self.run);
        line(&mut text, &RunSearchLineView::End { next, complete });
        text.into()
    }
}

fn view(log: &MergedLog, hit: &Hit) -> RunSearchLineView {
    let at_micros = if hit.at_micros == 0 { 0 } else { log.adjusted(hit.at_micros) };
    RunSearchLineView::Hit {
        node: log.attempt.node.to_string(),
        attempt: log.attempt.attempt,
        line: hit.line,
        position: hit.position,
        stream: hit.stream,
        at_micros,
        text: texts(hit),
    }
}
