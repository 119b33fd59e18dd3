//! Joins the lines of several logs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use sentinel_core::stream::cursor::{MAX_LOGS, MergeCursor, Reached};
use sentinel_core::stream::merge::{Merge, Now, Wait};
use sentinel_core::stream::tail::Follow;
use sentinel_core::stream::window::{ITEM_COST, LineState, WindowItem};
use sentinel_protocol::log::LogRecord;

use super::memory::MemoryShare;
use super::source::{Made, Records, Source, Take, Unsent};
use super::{LogName, MergedExtent, MergedItem, MergedLog, MergedStart, REORDER_WINDOW};
use crate::clock::Clock;
use crate::logs::reader::{LogReader, ReadError};

/// Bytes of records that are made lines at once: a line takes much more memory than an empty one has bytes.
const LINES_AT_ONCE: (usize, usize) = (128, 16 << 10);

/// Logs that are opened at once.
const OPENED_AT_ONCE: usize = 16;

/// Least bytes that are read of a log at a time.
const LEAST_READ: usize = 4 << 10;

/// What was read of a log; nothing at its end.
type ReadDone = (usize, Records, Option<Vec<Result<LogRecord, ReadError>>>);

/// A reader of several logs.
pub struct Merging {
    reader: LogReader,
    clock: Clock,
    start: MergedStart,
    memory: MemoryShare,
    merge: Merge<LogName, Unsent>,
    sources: Vec<Source>,
    /// Which of the sources each log is.
    known: BTreeMap<LogName, usize>,
    /// How many of them were read to their end.
    logs_ended: usize,
    reads: FuturesUnordered<BoxFuture<'static, ReadDone>>,
    /// Bytes of lines of a log that are held.
    share: usize,
}

impl std::fmt::Debug for Merging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merging").field("logs", &self.known.keys()).finish_non_exhaustive()
    }
}

impl Merging {
    /// A reader without logs.
    pub fn new(reader: LogReader, clock: Clock, start: MergedStart) -> Self {
        let wait = match start.extent {
            MergedExtent::Now => Wait::ForAll,
            MergedExtent::Follow => Wait::AtMost(REORDER_WINDOW),
        };
        let memory = reader.merge_memory().share();
        Self {
            reader,
            clock,
            share: memory.bytes() / 2,
            memory,
            merge: Merge::new(wait, start.cursor.sent),
            start,
            sources: Vec::new(),
            known: BTreeMap::new(),
            logs_ended: 0,
            reads: FuturesUnordered::new(),
        }
    }

    /// Adds those of these logs that it does not have, each with the position where it ends for this reader. Cancel safe.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn add(&mut self, logs: impl IntoIterator<Item = (MergedLog, u64)>) -> Result<(), ReadError> {
        let mut new = Vec::new();
        for (log, until) in logs {
            let name: LogName = Arc::new((log.attempt.node.clone(), log.attempt.attempt));
            if self.known.len() + new.len() < MAX_LOGS && !self.known.contains_key(&name) {
                let reached = self.start.cursor.logs.get(&log.key()).copied().unwrap_or_default();
                new.push((name, Arc::new(log), reached, until));
            }
        }
        // A half is lines, and a half records that they are made of.
        self.share = self.memory.bytes() / 2 / (self.known.len() + new.len()).max(1);
        let follow = if self.start.extent == MergedExtent::Follow { Follow::Yes } else { Follow::No };
        let how = (self.start.stream, follow, self.share.max(LEAST_READ));
        let reader = &self.reader;
        let opened: Vec<(LogName, Source)> = futures_util::stream::iter(new)
            .map(|(name, log, reached, until)| async move {
                Ok((name, Source::open(reader, log, reached, until, how).await?))
            })
            .buffered(OPENED_AT_ONCE)
            .try_collect()
            .await?;
        // After the last await, so that a cancelled call has added nothing.
        for (name, source) in opened {
            let at = self.merge.add_log(name.clone(), self.now());
            self.known.insert(name, at);
            self.sources.push(source);
            self.advance(at);
        }
        Ok(())
    }

    /// Ends with what was read of logs that are not among these: they have not begun, and never will.
    pub fn retain(&mut self, logs: &[MergedLog]) {
        let kept: BTreeSet<_> = logs.iter().map(|log| (&log.attempt.node, log.attempt.attempt)).collect();
        let others = self.known.iter().filter(|(name, _)| !kept.contains(&(&name.0, name.1)));
        for at in others.map(|(_, at)| *at).collect::<Vec<_>>() {
            self.end(at);
        }
    }

    /// How many logs were read to their end.
    pub fn logs_ended(&self) -> usize {
        self.logs_ended
    }

    /// The next line or gap; `None` when each log that it has was read to its end. Cancel safe.
    ///
    /// # Errors
    /// Those of reading; the reader is of no use any more then.
    pub async fn next(&mut self) -> Result<Option<MergedItem>, ReadError> {
        loop {
            if let Some(item) = self.pop() {
                return Ok(Some(item));
            }
            if self.merge.peek().is_none() && self.sources.iter().all(|source| source.is_over) {
                return Ok(None);
            }
            let now = self.now();
            let due = self.merge.due(now).map(|due| Duration::from_micros(due.saturating_sub(now.monotonic)));
            tokio::select! {
                Some(done) = self.reads.next() => self.on_read(done)?,
                () = tokio::time::sleep(due.unwrap_or_default().max(Duration::from_millis(1))), if due.is_some() => {}
                else => return Ok(None),
            }
        }
    }

    /// The next line or gap, if that needs no waiting.
    ///
    /// # Errors
    /// As [`Self::next`].
    #[expect(clippy::result_large_err, reason = "the error of the functions that wait")]
    pub fn next_now(&mut self) -> Result<Option<MergedItem>, ReadError> {
        loop {
            if let Some(item) = self.pop() {
                return Ok(Some(item));
            }
            match self.reads.next().now_or_never() {
                Some(Some(done)) => self.on_read(done)?,
                Some(None) | None => return Ok(None),
            }
        }
    }

    /// Whether there is a next line or gap.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn has_next(&mut self) -> Result<bool, ReadError> {
        while self.merge.peek().is_none() {
            if self.sources.iter().all(|source| source.is_over) {
                return Ok(false);
            }
            match self.reads.next().await {
                Some(done) => self.on_read(done)?,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// From where another reader receives what this one has not received.
    pub fn cursor(&self) -> MergeCursor {
        let mut cursor = self.start.cursor.clone();
        cursor.sent = self.merge.sent();
        for (at, source) in self.sources.iter().enumerate() {
            let reached = source.reached(self.merge.waiting(at));
            if reached == Reached::default() {
                cursor.logs.remove(&source.log.key());
            } else {
                cursor.logs.insert(source.log.key(), reached);
            }
        }
        cursor
    }

    /// Whether a line or gap stays as it is.
    pub fn is_final(&self, item: &MergedItem) -> bool {
        let WindowItem::Line(line) = &item.item else { return true };
        if line.state != LineState::Open {
            return true;
        }
        let Some(at) = self.place(&item.log) else { return true };
        let is_it = |unsent: &Unsent| matches!(&unsent.item, WindowItem::Line(other) if other.position == line.position);
        self.sources[at].is_over && !self.merge.waiting(at).any(is_it)
    }

    /// How far it is in a log that it has.
    pub fn position(&self, log: &MergedLog) -> Option<u64> {
        let at = self.place(log)?;
        Some(self.sources[at].reached(self.merge.waiting(at)).position)
    }

    fn place(&self, log: &MergedLog) -> Option<usize> {
        self.known.get(&(log.attempt.node.clone(), log.attempt.attempt)).copied()
    }

    fn now(&self) -> Now {
        let reading = self.clock.reading();
        Now { monotonic: reading.monotonic.0.saturating_mul(1000), wall: reading.wall.0.saturating_mul(1000) }
    }

    fn pop(&mut self) -> Option<MergedItem> {
        let merged = self.merge.pop(self.now())?;
        let Unsent { item, is_update } = merged.item;
        let source = &mut self.sources[merged.log];
        source.note_sent(&item);
        let log = source.log.clone();
        self.advance(merged.log);
        let at_micros = match item.at_micros() {
            0 => 0,
            known => log.adjusted(known),
        };
        Some(MergedItem { log, item, at_micros, is_late: merged.is_late && !is_update })
    }

    #[expect(clippy::result_large_err, reason = "the error of the functions that wait")]
    fn on_read(&mut self, (log, records, read): ReadDone) -> Result<(), ReadError> {
        if !self.sources[log].is_over {
            self.sources[log].on_read(read, records).map_err(|error| *error)?;
            self.advance(log);
        }
        Ok(())
    }

    /// Makes lines of what was read of a log, and reads on, unless it has enough.
    fn advance(&mut self, log: usize) {
        let at_once = (self.share / 64).clamp(LINES_AT_ONCE.0, LINES_AT_ONCE.1);
        while !self.sources[log].is_over && self.merge.cost(log) <= self.share {
            match self.sources[log].make_lines(at_once) {
                Made::Lines if !self.sources[log].is_beyond(self.share) => self.take(log, self.take_now()),
                Made::Lines | Made::All => {
                    self.take(log, Take::Changed);
                    self.end(log);
                }
                Made::Nothing => return self.read(log),
            }
        }
    }

    /// A log has no more.
    fn end(&mut self, log: usize) {
        if !std::mem::replace(&mut self.sources[log].is_over, true) {
            self.logs_ended += 1;
        }
        self.merge.end(log);
    }

    fn take_now(&self) -> Take {
        match self.start.extent {
            MergedExtent::Now => Take::Settled(self.share),
            MergedExtent::Follow => Take::Changed,
        }
    }

    fn take(&mut self, log: usize, take: Take) {
        for unsent in self.sources[log].take(take) {
            self.queue(log, unsent);
        }
    }

    fn read(&mut self, log: usize) {
        if let Some(mut records) = self.sources[log].parked.take() {
            self.reads.push(Box::pin(async move {
                let read = records.next().await;
                (log, records, read)
            }));
        }
    }

    fn queue(&mut self, log: usize, unsent: Unsent) {
        let mut at = None;
        if let WindowItem::Line(line) = &unsent.item {
            // A line that still waits is sent once, as it is now.
            let is_it = |waiting: &&mut Unsent| matches!(&waiting.item, WindowItem::Line(other) if other.position == line.position);
            if unsent.is_update
                && let Some(waiting) = self.merge.waiting_mut(log).find(is_it)
            {
                waiting.item = unsent.item;
                return;
            }
            at = (line.at_micros != 0).then(|| self.sources[log].log.adjusted(line.at_micros));
        }
        let cost = unsent.item.size() + ITEM_COST;
        self.merge.push(log, at, unsent, cost, self.now());
    }
}
