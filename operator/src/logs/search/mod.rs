//! Searches a log for lines that match a regular expression: [`line_search`] matches, and this reads what it matches.

mod line_search;

use std::ops::Range;

use futures_util::stream::{BoxStream, iter, unfold};
use futures_util::{Stream, StreamExt as _};
use regex::bytes::Regex;
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::{LogRecord, Stream as OutputStream};
use tokio_util::task::AbortOnDropHandle;

pub use self::line_search::Hit;
use self::line_search::{Added, LineSearch};
use super::lines::KnownLines;
use super::reader::{LogReader, ReadError};
use crate::history::error::HistoryError;

/// Output that is read at a time, while what precedes it is searched, bytes.
const READ: usize = 1 << 20;

/// Parts of that size that are read at the same time.
const AT_ONCE: usize = 2;

/// Largest such part, bytes; where the checkpoints of a log are further apart, it is read piece by piece.
const MAX_PART: u64 = 4 << 20;

/// What a part of a search found.
#[derive(Debug)]
pub struct SearchUpdate {
    /// Hits, in the order in which their lines begin.
    pub hits: Vec<Hit>,
    /// Every line that begins before this position was searched; another search can continue here. At the end of a log that
    /// grows, it is where the first line begins that has not ended: that one was searched as it is, and so were those behind
    /// it. Only the rest of a line that ends more than 16 MiB behind its beginning is not found by another search.
    pub position: u64,
}

impl LogReader {
    /// Searches a log from a position on, as far as it exists now. Each item is a part of it, with its hits. An error is the
    /// last item. Only some searches run at a time; others wait.
    ///
    /// # Errors
    /// Those of reading, before the first part.
    pub async fn search(
        &self,
        attempt: &AttemptId,
        from: u64,
        stream: Option<OutputStream>,
        pattern: Regex,
    ) -> Result<BoxStream<'static, Result<SearchUpdate, ReadError>>, ReadError> {
        let KnownLines { mark, position } = self.lines_known_before(attempt, from).await?;
        let (reader, attempt) = (self.clone(), attempt.clone());
        let search = Some(LineSearch::new(pattern, stream, mark));
        Ok(unfold((search, position), move |(search, position)| {
            let (reader, attempt) = (reader.clone(), attempt.clone());
            async move {
                let search = search?;
                let part = async move { reader.search_part(attempt, search, position).await };
                // A task of its own: a search whose client does not read holds no permit.
                let part = AbortOnDropHandle::new(tokio::spawn(part)).await;
                // The runtime is shutting down, or an invariant is broken; either way there is nothing to send.
                match part.ok().flatten()? {
                    Ok(mut part) => {
                        part.update.hits.retain(|hit| hit.position >= from);
                        Some((Ok(part.update), (part.more, part.position)))
                    }
                    Err(error) => Some((Err(error), (None, position))),
                }
            }
        })
        .boxed())
    }

    /// Searches some output from a position on. Nothing of it is held when this returns, however long the next part is not
    /// asked for.
    async fn search_part(
        &self,
        attempt: AttemptId,
        mut search: LineSearch,
        from: u64,
    ) -> Option<Result<SearchPart, ReadError>> {
        // Before anything is read: those that wait hold nothing.
        let permit = self.search_permit().await;
        let search_bytes = search.batch;
        let of = attempt.clone();
        let mut records = match self.read_ahead(attempt, from, search_bytes as u64).await {
            Ok(records) => records.fuse(),
            Err(error) => return Some(Err(error)),
        };
        let (mut position, mut bytes) = (from, 0);
        let mut read = read_some(&mut records).await;
        let (unsearched, is_last) = loop {
            let batch = match read {
                Ok(batch) if batch.is_empty() => break (batch, true),
                Ok(batch) => batch,
                Err(error) => return Some(Err(error)),
            };
            bytes += batch.iter().map(|record| record.data.len()).sum::<usize>();
            let searching =
                tokio::task::spawn_blocking(move || (search.add_all(&batch, position), batch, search));
            let wants_more = bytes < search_bytes;
            let more = async { if wants_more { read_some(&mut records).await } else { Ok(Vec::new()) } };
            // What follows is read while this is searched.
            let (searched, more) = tokio::join!(searching, more);
            // The runtime is shutting down, or an invariant is broken; either way there is nothing to send.
            let (reached, batch, returned) = searched.ok()?;
            (position, search) = (reached, returned);
            if search.is_full() || !wants_more {
                break match more {
                    Ok(more) => (batch.into_iter().chain(more).collect(), false),
                    Err(error) => return Some(Err(error)),
                };
            }
            read = more;
        };
        let added = search.end_part(from, position, &unsearched, is_last);
        if !added.is_last
            && let Err(error) = search.read_rest(records).await
        {
            return Some(Err(error));
        }
        drop(permit);
        let Added { mut position, is_last } = added;
        if is_last
            && let Some(unended) = search.unended(position)
            && !self.is_whole(&of, position).await
        {
            position = unended;
        }
        let update = SearchUpdate { hits: search.take_hits(), position };
        Some(Ok(SearchPart { update, more: (!is_last).then_some(search), position }))
    }
}

impl LogReader {
    /// The records of a log as it is now, from a position on. Of so many bytes, some parts are read at the same time: to unpack
    /// the archive takes longer than to search it.
    async fn read_ahead(
        &self,
        attempt: AttemptId,
        from: u64,
        bytes: u64,
    ) -> Result<BoxStream<'static, Result<LogRecord, ReadError>>, ReadError> {
        let index = self.line_index(&attempt).await?;
        let (mut parts, mut end) = (Vec::new(), from);
        while end - from < bytes
            && let Some(next) = index.within(end, READ as u64).filter(|next| next - end <= MAX_PART)
        {
            parts.push(end..next);
            end = next;
        }
        let rest = self.open_briefly(attempt.clone(), end, READ as u64);
        let reader = self.clone();
        let read = move |part: Range<u64>| {
            let (reader, attempt, position) = (reader.clone(), attempt.clone(), part.start);
            let of = attempt.clone();
            let reading = tokio::spawn(async move { reader.read_part(of, part).await });
            let reading = AbortOnDropHandle::new(reading);
            async move {
                let source = HistoryError::Panicked { action: "read output" };
                reading.await.unwrap_or_else(|_| vec![Err(ReadError { attempt, position, source })])
            }
        };
        Ok(iter(parts).map(read).buffered(AT_ONCE).flat_map(iter).chain(rest).boxed())
    }

    async fn read_part(&self, attempt: AttemptId, part: Range<u64>) -> Vec<Result<LogRecord, ReadError>> {
        let mut records = Box::pin(self.open_briefly(attempt, part.start, part.end - part.start));
        let (mut read, mut at) = (Vec::new(), part.start);
        while at < part.end
            && let Some(record) = records.next().await
        {
            at = record.as_ref().map_or(part.end, LogRecord::end);
            // One that is not archived may reach into the next part.
            read.extend(record.map(|record| record.until_position(part.end)).transpose());
        }
        read
    }
}

/// Records of about [`READ`] bytes; none at the end of the log.
async fn read_some(
    records: &mut (impl Stream<Item = Result<LogRecord, ReadError>> + Unpin),
) -> Result<Vec<LogRecord>, ReadError> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while bytes < READ
        && let Some(record) = records.next().await.transpose()?
    {
        bytes += record.data.len();
        batch.push(record);
    }
    Ok(batch)
}

/// A part of a search, and how it continues.
struct SearchPart {
    update: SearchUpdate,
    /// `None` at the end.
    more: Option<LineSearch>,
    /// Where to read on.
    position: u64,
}
