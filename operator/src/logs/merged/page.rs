//! A number of lines of several logs, as they are now.

use std::collections::{HashMap, VecDeque};

use futures_util::{StreamExt as _, TryStreamExt as _};
use sentinel_core::stream::cursor::{MergeCursor, Reached};
use sentinel_core::stream::tail::Follow;
use sentinel_core::stream::window::{FirstLine, LineWindow, WindowItem};
use sentinel_protocol::log::Stream as OutputStream;

use super::merging::Merging;
use super::{MergedExtent, MergedItem, MergedLog, MergedStart};
use crate::clock::Clock;
use crate::logs::reader::{LogReader, ReadError};

/// Most bytes of the text of all lines of a page; one with more has fewer lines.
const MAX_TEXT: usize = 4 << 20;

/// Logs that are read at once.
const READ_AT_ONCE: usize = 8;

/// Bytes of a log that are read at a time to find its last lines.
const READ: usize = 256 << 10;

/// Where merged lines begin.
#[derive(Debug, Clone)]
pub enum MergedFrom {
    /// Where a reader was.
    Cursor(MergeCursor),
    /// So that they end where a reader began.
    Before(MergeCursor),
    /// At the first line of each log that was written at or after a time, microseconds since the Unix epoch.
    Since(i64),
    /// At the last lines of all logs together.
    Tail,
}

/// Which merged lines to read.
#[derive(Debug, Clone)]
pub struct MergedParams {
    /// Where they begin.
    pub from: MergedFrom,
    /// Most lines.
    pub count: usize,
    /// Only lines of this stream.
    pub stream: Option<OutputStream>,
    /// Only what was written up to this time, microseconds since the Unix epoch.
    pub until: Option<i64>,
}

/// Lines of several logs as they are now.
#[derive(Debug)]
pub struct MergedLines {
    /// The lines, and the gaps between them, by time.
    pub items: Vec<MergedItem>,
    /// Where they begin.
    pub before: MergeCursor,
    /// From where a reader receives every line that is not here, or not complete here.
    pub next: MergeCursor,
    /// How far each log was read, if nothing more of them exists.
    pub ends: Option<Vec<LogEnding>>,
}

/// How far a log was read.
#[derive(Debug, Clone, Copy)]
pub struct LogEnding {
    /// Position behind what was read.
    pub position: u64,
    /// Whether the log has output that is later than what was asked for, so that nothing more will be.
    pub is_passed: bool,
}

/// Where a log ends for a reader.
#[derive(Debug, Clone, Copy)]
struct Limit {
    position: u64,
    /// Whether the log has something behind it.
    is_passed: bool,
}

/// What a page has of one log.
#[derive(Debug, Clone, Copy)]
struct Extent {
    start: u64,
    until: u64,
}

/// A line at the end of a log.
#[derive(Debug, Clone, Copy)]
struct LastLine {
    at: i64,
    position: u64,
    size: usize,
}

/// The last lines of a log before a position.
#[derive(Debug)]
struct LastLines {
    lines: VecDeque<LastLine>,
    /// Whether it has none before them.
    are_all: bool,
    until: u64,
    /// How far it was read.
    reached: u64,
}

impl LogReader {
    /// Lines of several logs as they are now, by time.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn merged_lines(
        &self,
        clock: &Clock,
        logs: &[MergedLog],
        params: MergedParams,
    ) -> Result<MergedLines, ReadError> {
        let MergedParams { from, count, stream, until } = params;
        let limits = self.limits(logs, until).await?;
        let untils: Vec<u64> = limits.iter().map(|limit| limit.position).collect();
        let (cursor, extents) = match &from {
            MergedFrom::Cursor(cursor) => {
                (cursor.clone(), untils.iter().map(|until| Extent { start: 0, until: *until }).collect())
            }
            MergedFrom::Since(micros) => {
                let starts = self.starts(logs, *micros).await?;
                let of = |(start, until): (u64, &u64)| Extent { start, until: *until };
                begin(logs, starts.into_iter().zip(&untils).map(of).collect())
            }
            MergedFrom::Before(cursor) => {
                let end = |log: &MergedLog| cursor.logs.get(&log.key()).map_or(0, |reached| reached.position);
                let ends: Vec<u64> =
                    logs.iter().zip(&untils).map(|(log, until)| end(log).min(*until)).collect();
                begin(logs, self.last(logs, &ends, count, stream).await?)
            }
            MergedFrom::Tail => begin(logs, self.last(logs, &untils, count, stream).await?),
        };
        let start = MergedStart { cursor: cursor.clone(), stream, extent: MergedExtent::Now };
        let mut merging = Merging::new(self.clone(), clock.clone(), start);
        merging.add(logs.iter().cloned().zip(extents.iter().map(|extent: &Extent| extent.until))).await?;
        let is_chosen = matches!(from, MergedFrom::Before(_) | MergedFrom::Tail);
        let most = if is_chosen { (usize::MAX, usize::MAX) } else { (count, MAX_TEXT) };
        let items = collect(&mut merging, most).await?;
        let is_end = !matches!(from, MergedFrom::Before(_)) && !merging.has_next().await?;
        let ending = |(log, limit): (&MergedLog, &Limit)| LogEnding {
            position: merging.position(log).unwrap_or_default(),
            is_passed: limit.is_passed,
        };
        let ends = is_end.then(|| logs.iter().zip(&limits).map(ending).collect());
        let next = match from {
            MergedFrom::Before(cursor) if until.is_none() => cursor,
            _ => merging.cursor(),
        };
        Ok(MergedLines { items, before: cursor, next, ends })
    }

    /// What several logs have now of a time: everything without one, microseconds since the Unix epoch. And of each log,
    /// whether it has output behind that.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn merged_range(
        &self,
        clock: &Clock,
        logs: &[MergedLog],
        stream: Option<OutputStream>,
        (since, until): (Option<i64>, Option<i64>),
    ) -> Result<(Merging, Vec<bool>), ReadError> {
        let limits = self.limits(logs, until).await?;
        let untils: Vec<u64> = limits.iter().map(|limit| limit.position).collect();
        let starts = match since {
            Some(micros) => self.starts(logs, micros).await?,
            None => vec![0; logs.len()],
        };
        let of = |(start, until): (u64, &u64)| Extent { start, until: *until };
        let (cursor, _) = begin(logs, starts.into_iter().zip(&untils).map(of).collect());
        let start = MergedStart { cursor, stream, extent: MergedExtent::Now };
        let mut merging = Merging::new(self.clone(), clock.clone(), start);
        merging.add(logs.iter().cloned().zip(untils)).await?;
        Ok((merging, limits.iter().map(|limit| limit.is_passed).collect()))
    }

    /// Where each log ends for a reader of what was written up to a time.
    async fn limits(&self, logs: &[MergedLog], until: Option<i64>) -> Result<Vec<Limit>, ReadError> {
        let limit = |(position, is_passed)| Limit { position, is_passed };
        match until {
            Some(micros) => {
                Ok(self.times(logs, micros.saturating_add(1)).await?.into_iter().map(limit).collect())
            }
            None => Ok(vec![limit((u64::MAX, false)); logs.len()]),
        }
    }

    async fn starts(&self, logs: &[MergedLog], micros: i64) -> Result<Vec<u64>, ReadError> {
        Ok(self.times(logs, micros).await?.into_iter().map(|(position, _)| position).collect())
    }

    /// Where each log has what was written at a time or later, and whether it has something of it.
    async fn times(&self, logs: &[MergedLog], micros: i64) -> Result<Vec<(u64, bool)>, ReadError> {
        let found = futures_util::stream::iter(logs.to_vec())
            .map(|log| async move { self.position_since(&log.attempt, log.on_node(micros)).await });
        found.buffered(READ_AT_ONCE).try_collect().await
    }

    /// The last lines of all logs together, as what each of them has of these.
    async fn last(
        &self,
        logs: &[MergedLog],
        ends: &[u64],
        count: usize,
        stream: Option<OutputStream>,
    ) -> Result<Vec<Extent>, ReadError> {
        let each = futures_util::stream::iter(logs.iter().cloned().zip(ends.to_vec()))
            .map(|(log, end)| async move { self.last_of(&log, end, count, stream).await });
        let each: Vec<LastLines> = each.buffered(READ_AT_ONCE).try_collect().await?;
        Ok(choose(&each, count))
    }

    async fn last_of(
        &self,
        log: &MergedLog,
        end: u64,
        count: usize,
        stream: Option<OutputStream>,
    ) -> Result<LastLines, ReadError> {
        let mut found = LastLines { lines: VecDeque::new(), are_all: true, until: end, reached: 0 };
        if end == 0 {
            return Ok(found);
        }
        let (begun, from) = self.before_last(&log.attempt, end, count as u64, stream).await?;
        found.are_all = begun <= count as u64;
        found.reached = from.position.min(end);
        let first = begun.saturating_sub(count as u64) + 1;
        let first = if stream.is_some() { FirstLine::OfStream(first) } else { FirstLine::Number(first) };
        let mut window = LineWindow::unbounded(first, stream, from.mark);
        let mut records = Box::pin(self.open_within(log.attempt.clone(), from.position, Follow::No, READ));
        let mut at = i64::MIN;
        while let Some(record) = records.next().await {
            let record = record?;
            if record.head.position >= end {
                break;
            }
            found.reached = record.end().min(end);
            window.add(&record);
            for item in window.take_changed() {
                let WindowItem::Line(line) = item else { continue };
                if line.at_micros != 0 {
                    at = at.max(log.adjusted(line.at_micros));
                }
                let size = line.text.len();
                match found.lines.iter_mut().rev().find(|known| known.position <= line.position) {
                    Some(known) if known.position == line.position => known.size = size,
                    _ if line.position < end => {
                        found.lines.push_back(LastLine { at, position: line.position, size });
                        if found.lines.len() > count {
                            found.lines.pop_front();
                            found.are_all = false;
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(found)
    }
}

/// A cursor at the beginning of what a page has of each log.
fn begin(logs: &[MergedLog], extents: Vec<Extent>) -> (MergeCursor, Vec<Extent>) {
    let begun = logs.iter().zip(&extents).filter(|(_, extent)| extent.start > 0);
    let reached = begun.map(|(log, extent)| (log.key(), Reached::at(extent.start))).collect();
    (MergeCursor { sent: i64::MIN, logs: reached }, extents)
}

/// The last lines of all logs, whose names are in order, as what each of them has of these.
fn choose(each: &[LastLines], count: usize) -> Vec<Extent> {
    let mut left: Vec<usize> = each.iter().map(|log| log.lines.len()).collect();
    let (mut lines, mut text) = (0, 0);
    let last = |left: &[usize], log: usize| Some((each[log].lines.get(left[log].checked_sub(1)?)?.at, log));
    let mut heap: std::collections::BinaryHeap<(i64, usize)> =
        (0..each.len()).filter_map(|log| last(&left, log)).collect();
    while lines < count
        && text < MAX_TEXT
        && let Some((_, log)) = heap.pop()
    {
        left[log] -= 1;
        lines += 1;
        text += each[log].lines[left[log]].size;
        heap.extend(last(&left, log));
    }
    let extent = |(log, left): (&LastLines, usize)| {
        // Gaps before the first line of a log belong to it.
        let is_whole = left == 0 && log.are_all;
        let first = log.lines.get(left).map_or(log.reached, |line| line.position);
        Extent { start: if is_whole { 0 } else { first }, until: log.until }
    };
    each.iter().zip(left).map(extent).collect()
}

/// The next lines, at most so many and about so many bytes of them. A line that was open is in it once, in its last form.
async fn collect(merging: &mut Merging, (count, text): (usize, usize)) -> Result<Vec<MergedItem>, ReadError> {
    let mut items: Vec<MergedItem> = Vec::new();
    let mut open: HashMap<(String, u32, u64), usize> = HashMap::new();
    let (mut lines, mut bytes) = (0, 0);
    while lines < count
        && bytes < text
        && let Some(item) = merging.next().await?
    {
        bytes += item.item.size();
        let Some((node, attempt, number)) = item.line() else {
            items.push(item);
            continue;
        };
        let is_open = matches!(&item.item, WindowItem::Line(line) if line.state == sentinel_core::stream::window::LineState::Open);
        let key = (node.to_string(), attempt, number);
        if let Some(at) = if is_open { open.get(&key).copied() } else { open.remove(&key) } {
            items[at] = item;
            continue;
        }
        if is_open {
            open.insert(key, items.len());
        }
        lines += 1;
        items.push(item);
    }
    Ok(items)
}
