//! The end of an Attempt's log that is held in memory, and where a reader finds what it needs next.
//!
//! ```text
//!   0 ......... held.start ............. archived ............ held.end
//!   |  History  |  held and in History   |  held only          |  on the node
//! ```
//!
//! Two things are always true of a [`Tail`]: what it holds is one run without a hole, and whatever is not archived yet
//! is held. So a reader that looks first here and then in History can never fall between the two.

use std::collections::VecDeque;
use std::ops::Range;

use sentinel_protocol::log::LogRecord;

/// What a record costs beside its bytes, so that many tiny records cannot cost more memory than they are counted for.
const RECORD_COST: u64 = 128;

/// The part of a log that is in memory.
#[derive(Debug, Clone)]
pub struct Tail {
    records: VecDeque<LogRecord>,
    start: u64,
    end: u64,
    archived: u64,
    handed: u64,
    cost: u64,
}

/// What came of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It, or its later part, was new and is held; memory in use grew by `cost`.
    New {
        /// By how much, bytes.
        cost: u64,
    },
    /// All of it was here before.
    Repeated,
    /// It begins behind the end: something is missing between. Nothing was taken.
    Gap {
        /// The position that should have come.
        expected: u64,
    },
}

/// What a reader gets at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Records from there on, the first of them cut to begin exactly there.
    Records(Vec<LogRecord>),
    /// That is older than what is held; all of it is in History.
    Older,
    /// The reader has all there is so far.
    Nothing,
}

/// Memory that a record takes.
pub fn cost(record: &LogRecord) -> u64 {
    record.data.len() as u64 + RECORD_COST
}

impl Tail {
    /// The tail of a log of which everything before `from` is archived.
    pub fn new(from: u64) -> Self {
        Self { records: VecDeque::new(), start: from, end: from, archived: from, handed: from, cost: 0 }
    }

    /// The positions held.
    pub fn held(&self) -> Range<u64> {
        self.start..self.end
    }

    /// Position up to which History holds everything.
    pub fn archived(&self) -> u64 {
        self.archived
    }

    /// Memory in use, bytes.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// Takes a record in; of a record that overlaps, only what is new.
    pub fn accept(&mut self, record: LogRecord) -> Accepted {
        if record.head.position > self.end {
            return Accepted::Gap { expected: self.end };
        }
        let Some(record) = record.from_position(self.end) else { return Accepted::Repeated };
        let cost = cost(&record);
        self.end = record.end();
        self.cost += cost;
        self.records.push_back(record);
        Accepted::New { cost }
    }

    /// The first record that was not yet handed on for archiving, cut to begin where the last one ended.
    pub fn next_unhanded(&self) -> Option<LogRecord> {
        let first = self.records.partition_point(|record| record.end() <= self.handed);
        self.records.get(first)?.clone().from_position(self.handed)
    }

    /// Everything before `position` was handed on for archiving; it stays held until it is archived.
    pub fn note_handed(&mut self, position: u64) {
        self.handed = self.handed.max(position.min(self.end));
    }

    /// What was handed on from `position` on is to be handed on again.
    pub fn hand_back(&mut self, position: u64) {
        self.handed = self.handed.min(position).max(self.archived);
    }

    /// History holds everything before `position`.
    pub fn note_archived(&mut self, position: u64) {
        self.archived = self.archived.max(position.min(self.end));
        self.handed = self.handed.max(self.archived);
    }

    /// Lets go of archived records, the oldest first, until no more than `keep` bytes of memory are in use; gives back
    /// how many were freed.
    pub fn trim(&mut self, keep: u64) -> u64 {
        let before = self.cost;
        while self.cost > keep {
            match self.records.front() {
                Some(first) if first.end() <= self.archived => {
                    self.cost -= cost(first);
                    self.start = first.end();
                    self.records.pop_front();
                }
                _ => break,
            }
        }
        before - self.cost
    }

    /// What a reader at `position` gets, about `max_bytes` of it.
    pub fn read(&self, position: u64, max_bytes: usize) -> Read {
        if position < self.start {
            return Read::Older;
        }
        let records = self.collect(position, max_bytes);
        if records.is_empty() { Read::Nothing } else { Read::Records(records) }
    }

    fn collect(&self, position: u64, max_bytes: usize) -> Vec<LogRecord> {
        let mut bytes = 0;
        let first = self.records.partition_point(|record| record.end() <= position);
        let mut taken = Vec::new();
        for record in self.records.range(first..) {
            if !taken.is_empty() && bytes + record.data.len() > max_bytes {
                break;
            }
            bytes += record.data.len();
            taken.extend(record.clone().from_position(position));
        }
        taken
    }
}

/// What is known about where a log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum End {
    /// More may come.
    #[default]
    Open,
    /// It ends here, by the word of its supervisor.
    At(u64),
    /// The Attempt is over and nobody can say where its log ends.
    Unknown,
}

/// Whether a reader waits for what is not there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// It does, until the log ends.
    Yes,
    /// It takes what is there and is done.
    No,
}

/// Where a reader looks next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// In memory.
    Held,
    /// In History, for what lies before this position where one is given; otherwise for whatever is there.
    History {
        /// The first position that need not come from History.
        before: Option<u64>,
    },
    /// Nowhere: it has everything that will come, or everything there is and does not follow.
    Done,
    /// Nowhere yet.
    Wait,
}

/// Where a reader at `position` looks next. `searched` is the position at which History was last found to have
/// nothing, so that an empty answer is not asked for again without anything having happened.
pub fn next(position: u64, tail: Option<&Tail>, end: End, follow: Follow, searched: Option<u64>) -> Next {
    if matches!(end, End::At(end) if position >= end) {
        return Next::Done;
    }
    match tail {
        Some(tail) if position < tail.start => Next::History { before: Some(tail.start) },
        Some(tail) if position < tail.end => Next::Held,
        Some(tail) if position == tail.end && follow == Follow::No => Next::Done,
        Some(tail) if position == tail.end && end == End::Unknown => Next::Done,
        Some(_) => Next::Wait,
        None if searched == Some(position) && (follow == Follow::No || end == End::Unknown) => Next::Done,
        None if searched == Some(position) => Next::Wait,
        None => Next::History { before: None },
    }
}
