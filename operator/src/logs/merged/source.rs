//! The lines of one of the logs that are merged.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{Fuse, ReadyChunks};
use futures_util::{Stream, StreamExt as _};
use sentinel_core::stream::cursor::Reached;
use sentinel_core::stream::lines::LineMark;
use sentinel_core::stream::tail::Follow;
use sentinel_core::stream::window::{FirstLine, LineState, LineWindow, WindowItem};
use sentinel_protocol::log::{LogRecord, Stream as OutputStream};

use super::MergedLog;
use crate::logs::reader::{LogReader, ReadError};

/// Most records that are taken at once.
const RECORDS: usize = 64;

/// The records of a log, some at a time.
pub(super) type Records = Pin<Box<ReadyChunks<Fuse<RecordStream>>>>;
type RecordStream = Pin<Box<dyn Stream<Item = Result<LogRecord, ReadError>> + Send>>;

/// A line or a gap that was not sent yet.
#[derive(Debug)]
pub(super) struct Unsent {
    pub(super) item: WindowItem,
    /// Whether the line was taken before, when it had not ended.
    pub(super) is_update: bool,
}

/// How lines are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// As they are.
    Changed,
    /// Once they have ended, as far as that needs no more than so many bytes.
    Settled(usize),
}

/// What records had for lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// Some, or a part of one.
    Lines,
    /// Nothing: more has to be read.
    Nothing,
    /// Nothing, and nothing more follows.
    All,
}

/// One of the logs.
pub(super) struct Source {
    pub(super) log: Arc<MergedLog>,
    window: LineWindow,
    /// Records that were read, and that no lines were made of yet.
    unused: VecDeque<LogRecord>,
    /// Whether the last record was read.
    is_read: bool,
    /// Position behind the last record that lines were made of.
    position: u64,
    /// Lines and gaps that begin before it were taken.
    seen: u64,
    /// Lines and gaps that begin here or behind it are not wanted.
    until: u64,
    /// Of each stream, where the line begins that was sent before it has ended.
    open: [Option<u64>; 2],
    /// Of each stream, where the line begins that was taken before it has ended.
    taken: [Option<u64>; 2],
    /// Its records, while none are being read.
    pub(super) parked: Option<Records>,
    /// Whether nothing more is read of it.
    pub(super) is_over: bool,
}

impl Source {
    /// Begins where a reader was.
    pub(super) async fn open(
        reader: &LogReader,
        log: Arc<MergedLog>,
        reached: Reached,
        until: u64,
        (stream, follow, bytes): (Option<OutputStream>, Follow, usize),
    ) -> Result<Self, ReadError> {
        let (start, mark) = match reached.start() {
            0 => (0, LineMark::default()),
            start => {
                let known = reader.lines_known_before(&log.attempt, start).await?;
                (known.position, known.mark)
            }
        };
        let first = FirstLine::Number(mark.lines(None) + 1);
        let records: RecordStream = Box::pin(reader.open_within(log.attempt.clone(), start, follow, bytes));
        Ok(Self {
            log,
            window: LineWindow::unbounded(first, stream, mark),
            unused: VecDeque::new(),
            is_read: false,
            position: start,
            seen: reached.position,
            until,
            open: reached.open,
            taken: [None; 2],
            parked: Some(Box::pin(records.fuse().ready_chunks(RECORDS))),
            is_over: false,
        })
    }

    /// Adds what a read of its records has returned: nothing at the end. The error is for all of it.
    pub(super) fn on_read(
        &mut self,
        read: Option<Vec<Result<LogRecord, ReadError>>>,
        records: Records,
    ) -> Result<(), Box<ReadError>> {
        let Some(read) = read else {
            self.is_read = true;
            return Ok(());
        };
        self.unused.extend(read.into_iter().collect::<Result<Vec<_>, _>>().map_err(Box::new)?);
        self.parked = Some(records);
        Ok(())
    }

    /// Makes lines of the next records, of at most so many bytes.
    pub(super) fn make_lines(&mut self, bytes: usize) -> Made {
        let Some(next) = self.unused.pop_front() else {
            return if self.is_read { Made::All } else { Made::Nothing };
        };
        let (record, rest) = next.split(bytes as u64);
        if let Some(rest) = rest {
            self.unused.push_front(rest);
        }
        self.position = record.end();
        self.window.add(&record);
        Made::Lines
    }

    /// Whether all that is wanted was read.
    pub(super) fn is_beyond(&self, within: usize) -> bool {
        let is_open = self.window.first_open().is_some_and(|open| open < self.until);
        self.position >= self.until && (!is_open || self.position - self.until > within as u64)
    }

    /// Lines and gaps that are new or have changed.
    pub(super) fn take(&mut self, take: Take) -> Vec<Unsent> {
        let taken = match take {
            Take::Settled(within) if self.window.cost() <= within => self.window.take_settled(),
            _ => self.window.take_changed(),
        };
        taken.into_iter().filter_map(|item| self.unsent(item)).collect()
    }

    fn unsent(&mut self, mut item: WindowItem) -> Option<Unsent> {
        let begin = item.position();
        if begin >= self.until {
            return None;
        }
        let is_update = begin < self.seen;
        match &mut item {
            WindowItem::Line(line) => {
                let slot = slot(line.stream);
                if is_update && self.open[slot] != Some(begin) && self.taken[slot] != Some(begin) {
                    return None;
                }
                self.taken[slot] = (line.state == LineState::Open).then_some(begin);
                self.seen = self.seen.max(begin + 1);
            }
            WindowItem::Gap { position, len, .. } => {
                let end = begin.saturating_add(*len);
                if end <= self.seen {
                    return None;
                }
                // A part of it may have been sent before, when it was shorter.
                *position = begin.max(self.seen);
                *len = end - *position;
                self.seen = end;
                return Some(Unsent { item, is_update: false });
            }
        }
        Some(Unsent { item, is_update })
    }

    /// A line or gap was sent.
    pub(super) fn note_sent(&mut self, item: &WindowItem) {
        let WindowItem::Line(line) = item else { return };
        let open = &mut self.open[slot(line.stream)];
        if line.state == LineState::Open {
            *open = Some(line.position);
        } else if *open == Some(line.position) {
            *open = None;
        }
    }

    /// How far a reader is that was sent everything but these.
    pub(super) fn reached<'a>(&self, mut unsent: impl Iterator<Item = &'a Unsent>) -> Reached {
        let first = unsent.find(|unsent| !unsent.is_update).map(|unsent| unsent.item.position());
        let first = first.or_else(|| self.window.first_from(self.seen)).unwrap_or(self.position);
        Reached { position: first.min(self.until), open: self.open }
    }
}

fn slot(stream: OutputStream) -> usize {
    usize::from(stream == OutputStream::Stderr)
}
