//! The tail of an Attempt's log in the operator's memory, and where a reader continues.
//!
//! ```text
//!   0 ......... held.start ............. archived ............ held.end
//!   |  History  |  held and in History   |  held only          |  on the node
//! ```
//!
//! Two invariants of a [`Tail`]: what it holds has no gap, and everything that is not archived is held. So a reader that
//! reads first here and then in History misses nothing.

use std::collections::VecDeque;
use std::ops::Range;

use sentinel_protocol::log::LogRecord;

/// Overhead counted per record, so that many tiny records do not use more memory than is counted.
const RECORD_COST: u64 = 128;

/// The part of a log in memory.
#[derive(Debug, Clone)]
pub struct Tail {
    records: VecDeque<LogRecord>,
    start: u64,
    end: u64,
    archived: u64,
    handed: u64,
    cost: u64,
}

/// The result of accepting a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It, or its later part, was new and is held now.
    New {
        /// Growth of the memory in use, bytes.
        cost: u64,
    },
    /// All of it was known.
    Repeated,
    /// It starts after the end: records are missing in between. Nothing was accepted.
    Gap {
        /// The expected position.
        expected: u64,
    },
}

/// What a reader gets at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Records from there on, the first of them cut to begin exactly there.
    Records(Vec<LogRecord>),
    /// Older than what is held: read it from History.
    Older,
    /// The reader has everything so far.
    Empty,
}

/// Memory counted for a record, in bytes.
pub fn cost(record: &LogRecord) -> u64 {
    record.data.len() as u64 + RECORD_COST
}

impl Tail {
    /// The empty tail of a log that is archived before `from`.
    pub fn new(from: u64) -> Self {
        Self { records: VecDeque::new(), start: from, end: from, archived: from, handed: from, cost: 0 }
    }

    /// The positions held.
    pub fn held(&self) -> Range<u64> {
        self.start..self.end
    }

    /// Position up to which History has everything.
    pub fn archived(&self) -> u64 {
        self.archived
    }

    /// Memory in use, bytes.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// Accepts a record; of an overlapping one, only the new part.
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

    /// The first record that was not handed to the archiver yet, cut to start where the last one ended.
    pub fn next_unhanded(&self) -> Option<LogRecord> {
        let first = self.records.partition_point(|record| record.end() <= self.handed);
        self.records.get(first)?.clone().from_position(self.handed)
    }

    /// Everything before `position` was handed to the archiver; it stays held until it is archived.
    pub fn note_handed(&mut self, position: u64) {
        self.handed = self.handed.max(position.min(self.end));
    }

    /// Everything from `position` on must be handed to the archiver again.
    pub fn hand_back(&mut self, position: u64) {
        self.handed = self.handed.min(position).max(self.archived);
    }

    /// History has everything before `position`.
    pub fn note_archived(&mut self, position: u64) {
        self.archived = self.archived.max(position.min(self.end));
        self.handed = self.handed.max(self.archived);
    }

    /// Drops archived records, oldest first, until at most `keep` bytes of memory are in use. Returns the bytes freed.
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

    /// What a reader at `position` gets, about `max_bytes`.
    pub fn read(&self, position: u64, max_bytes: usize) -> Read {
        if position < self.start {
            return Read::Older;
        }
        let records = self.collect(position, max_bytes);
        if records.is_empty() { Read::Empty } else { Read::Records(records) }
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

/// Where a log ends, as far as known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum End {
    /// More may come.
    #[default]
    Open,
    /// Here, as recorded by its supervisor.
    At(u64),
    /// The Attempt is over and the end of its log is unknown.
    Unknown,
}

/// Whether a reader waits for new output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// It does, until the log ends.
    Yes,
    /// It takes what is there and is done.
    No,
}

/// Where a reader continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// In memory.
    Held,
    /// In History, for what lies before this position if one is given; otherwise for all it has.
    History {
        /// The first position that need not come from History.
        before: Option<u64>,
    },
    /// Nowhere: it has everything that will come, or everything there is and does not follow.
    Done,
    /// Nowhere yet.
    Wait,
}

/// Where a reader at `position` continues. `searched` is the position at which History was last found to have
/// nothing, so that an empty answer is not asked for again without anything having happened.
pub fn next(position: u64, tail: Option<&Tail>, end: End, follow: Follow, searched: Option<u64>) -> Next {
    if matches!(end, End::At(end) if position >= end) {
        return Next::Done;
    }
    match tail {
        Some(tail) if position < tail.start => Next::History { before: Some(tail.start) },
        Some(tail) if position < tail.end => Next::Held,
        Some(_) if follow == Follow::No => Next::Done,
        Some(tail) if position == tail.end && end == End::Unknown => Next::Done,
        Some(_) => Next::Wait,
        None if searched == Some(position) && (follow == Follow::No || end == End::Unknown) => Next::Done,
        None if searched == Some(position) => Next::Wait,
        None => Next::History { before: None },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sentinel_protocol::log::{DropReason, RecordHead, Stream};

    use super::*;

    /// The byte that every honest log of these tests has at a position.
    fn byte(position: u64) -> u8 {
        (position * 31 % 251) as u8
    }

    fn record(position: u64, len: u64) -> LogRecord {
        let data: Vec<u8> = (position..position + len).map(byte).collect();
        LogRecord {
            head: RecordHead {
                stream: Stream::Stdout,
                position,
                offset: position,
                len,
                at_micros: 0,
                dropped: None,
            },
            data: data.into(),
        }
    }

    fn hole(position: u64, len: u64) -> LogRecord {
        let mut hole = record(position, 1);
        hole.data.clear();
        hole.head.len = len;
        hole.head.dropped = Some(DropReason::SpoolFull);
        hole
    }

    #[test]
    fn overlaps_are_trimmed_and_gaps_refused() {
        let mut tail = Tail::new(10);
        assert!(matches!(tail.accept(record(10, 5)), Accepted::New { .. }));
        assert_eq!(tail.accept(record(11, 3)), Accepted::Repeated);
        assert!(matches!(tail.accept(record(12, 10)), Accepted::New { .. }));
        assert_eq!(tail.accept(record(23, 1)), Accepted::Gap { expected: 22 });
        let Read::Records(read) = tail.read(13, 1000) else { panic!("nothing was read") };
        let ranges: Vec<_> = read.iter().map(|r| (r.head.position, r.end())).collect();
        assert_eq!(ranges, [(13, 15), (15, 22)]);
        assert_eq!((tail.read(9, 10), tail.read(22, 10)), (Read::Older, Read::Empty));
    }

    #[test]
    fn a_hole_takes_its_positions_and_hardly_any_memory() {
        let mut tail = Tail::new(0);
        tail.accept(hole(0, 1 << 40));
        assert_eq!((tail.held(), tail.cost()), (0..1 << 40, RECORD_COST));
    }

    #[test]
    fn nothing_is_dropped_before_it_is_archived() {
        let mut tail = Tail::new(0);
        tail.accept(record(0, 100));
        tail.accept(record(100, 100));
        assert_eq!(tail.trim(0), 0);
        tail.note_archived(150);
        assert_eq!(tail.trim(0), 100 + RECORD_COST);
        assert_eq!(tail.held(), 100..200);
        tail.note_archived(10);
        assert_eq!(tail.archived(), 150);
    }

    #[test]
    fn where_a_reader_continues() {
        let mut tail = Tail::new(50);
        tail.accept(record(50, 50));
        let after = |position, end, follow, searched| next(position, Some(&tail), end, follow, searched);
        let alone = |position, end, follow, searched| next(position, None, end, follow, searched);
        assert_eq!(after(10, End::Open, Follow::No, None), Next::History { before: Some(50) });
        assert_eq!(after(50, End::Open, Follow::Yes, None), Next::Held);
        assert_eq!(after(100, End::Open, Follow::Yes, None), Next::Wait);
        assert_eq!(after(100, End::Open, Follow::No, None), Next::Done);
        assert_eq!(after(100, End::At(100), Follow::Yes, None), Next::Done);
        assert_eq!(after(100, End::At(120), Follow::Yes, None), Next::Wait);
        assert_eq!(after(100, End::Unknown, Follow::Yes, None), Next::Done);
        assert_eq!(after(120, End::Open, Follow::Yes, None), Next::Wait);
        assert_eq!(alone(10, End::Open, Follow::Yes, None), Next::History { before: None });
        assert_eq!(alone(10, End::Open, Follow::Yes, Some(10)), Next::Wait);
        assert_eq!(alone(10, End::Open, Follow::No, Some(10)), Next::Done);
        assert_eq!(alone(10, End::At(20), Follow::Yes, Some(10)), Next::Wait);
        assert_eq!(alone(10, End::Unknown, Follow::Yes, Some(10)), Next::Done);
        assert_eq!(alone(20, End::At(20), Follow::Yes, None), Next::Done);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Accept { back: u64, len: u64 },
        Archive { share: u64 },
        HandOn,
        HandBack,
        Trim { keep: u64 },
        Read { max: usize },
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0..40_u64, 1..60_u64).prop_map(|(back, len)| Op::Accept { back, len }),
            2 => (0..=100_u64).prop_map(|share| Op::Archive { share }),
            2 => Just(Op::HandOn),
            1 => Just(Op::HandBack),
            1 => (0..600_u64).prop_map(|keep| Op::Trim { keep }),
            3 => (1..80_usize).prop_map(|max| Op::Read { max }),
        ]
    }

    proptest! {
        #[test]
        fn a_reader_gets_every_byte_once(
            start in 0..50_u64,
            ops in prop::collection::vec(op(), 1..80),
        ) {
            let mut tail = Tail::new(start);
            let mut archived = start;
            let mut handed = start;
            let mut position = 0_u64;
            for op in ops {
                match op {
                    Op::Accept { back, len } => {
                        let from = tail.held().end.saturating_sub(back).max(tail.archived().min(tail.held().end));
                        tail.accept(record(from, len));
                    }
                    Op::Archive { share } => {
                        // History only ever holds what was handed on.
                        archived = archived.max(archived + (handed - archived) * share / 100);
                        tail.note_archived(archived);
                    }
                    Op::HandOn => {
                        if let Some(next) = tail.next_unhanded() {
                            prop_assert_eq!(next.head.position, handed);
                            handed = next.end();
                            tail.note_handed(handed);
                        } else {
                            prop_assert_eq!(handed, tail.held().end);
                        }
                    }
                    Op::HandBack => {
                        tail.hand_back(archived);
                        handed = archived;
                    }
                    Op::Trim { keep } => {
                        tail.trim(keep);
                        prop_assert!(tail.cost() <= keep || tail.held().start <= archived);
                    }
                    Op::Read { max } => match next(position, Some(&tail), End::Open, Follow::Yes, None) {
                        Next::History { before } => {
                            // It is all there: History goes at least as far as the hub begins.
                            prop_assert!(before.is_some_and(|before| before <= archived));
                            position = archived.min(position + max as u64);
                        }
                        Next::Held => {
                            let Read::Records(records) = tail.read(position, max) else {
                                return Err(TestCaseError::fail("nothing was read"));
                            };
                            for record in records {
                                prop_assert_eq!(record.head.position, position);
                                for (at, seen) in (position..).zip(&record.data[..]) {
                                    prop_assert_eq!(*seen, byte(at));
                                }
                                position = record.end();
                            }
                        }
                        Next::Wait => prop_assert_eq!(position, tail.held().end),
                        Next::Done => return Err(TestCaseError::fail("an open log is never done")),
                    },
                }
                let held = tail.held();
                prop_assert!(held.start <= tail.archived() && tail.archived() <= held.end);
                prop_assert!(position <= held.end);
            }
        }
    }
}
