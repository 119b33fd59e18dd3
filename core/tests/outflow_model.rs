//! The log socket's brain against an operator and a disk that are plain values: whatever is lost on the way, every
//! byte arrives once and in order, and none goes beyond what was granted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use bytes_of::{record, written};
use proptest::prelude::*;
use sentinel_core::stream::outflow::{Outflow, OutputRead, before};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogControl;

mod bytes_of {
    use sentinel_protocol::log::{DropReason, LogRecord, RecordHead, Stream};

    /// The byte at a position of an Attempt's log.
    pub(crate) fn written(attempt: usize, position: u64) -> u8 {
        (position as u8).wrapping_mul(31).wrapping_add(attempt as u8)
    }

    /// Every fifth block is a hole.
    pub(crate) fn record(attempt: usize, position: u64, len: u64) -> LogRecord {
        let dropped = ((position / 7) % 5 == 4).then_some(DropReason::SpoolFull);
        let bytes: Vec<u8> = (position..position + len).map(|at| written(attempt, at)).collect();
        LogRecord {
            head: RecordHead {
                stream: Stream::Stdout,
                position,
                offset: position,
                len,
                at_micros: 0,
                dropped,
            },
            data: if dropped.is_some() { Vec::new().into() } else { bytes.into() },
        }
    }
}

const ATTEMPTS: usize = 3;

fn id(n: usize) -> AttemptId {
    format!("task/{}/node/1", n + 1).parse().unwrap()
}

/// The operator's side of one Attempt.
#[derive(Default, Clone)]
struct Received {
    granted: u64,
    /// Bytes before this position were received in this connection or are archived.
    upto: u64,
    archived: u64,
    opened: bool,
}

#[derive(Debug, Clone)]
enum Op {
    Write { n: usize, len: u64 },
    End { n: usize },
    Send { count: usize },
    Credit { n: usize, more: u64 },
    Archive { n: usize },
    Read,
    Cut,
    OperatorRestart,
}

fn op() -> impl Strategy<Value = Op> {
    let n = 0..ATTEMPTS;
    prop_oneof![
        5 => (n.clone(), 1..40u64).prop_map(|(n, len)| Op::Write { n, len }),
        1 => n.clone().prop_map(|n| Op::End { n }),
        8 => (1..5usize).prop_map(|count| Op::Send { count }),
        4 => (n.clone(), 0..30u64).prop_map(|(n, more)| Op::Credit { n, more }),
        3 => n.prop_map(|n| Op::Archive { n }),
        2 => Just(Op::Read),
        1 => Just(Op::Cut),
        1 => Just(Op::OperatorRestart),
    ]
}

struct Model {
    outflow: Outflow,
    disk: [u64; ATTEMPTS],
    ended: [bool; ATTEMPTS],
    received: [Received; ATTEMPTS],
    /// A read that is under way.
    reading: Option<OutputRead>,
}

impl Model {
    fn new() -> Self {
        let mut outflow = Outflow::new();
        (0..ATTEMPTS).for_each(|n| outflow.begin(id(n), 10));
        let received = std::array::from_fn(|_| Received { granted: 10, ..Received::default() });
        Self { outflow, disk: [0; ATTEMPTS], ended: [false; ATTEMPTS], received, reading: None }
    }

    fn credit(&mut self, n: usize) {
        let r = &self.received[n];
        self.outflow.credit(&id(n), r.granted, r.archived);
    }

    fn send(&mut self) {
        for opening in self.outflow.openings() {
            let LogControl::Open { attempt, oldest } = opening else { panic!("{opening:?}") };
            let n = attempt.run.0 as usize - 1;
            assert!(oldest <= self.received[n].archived, "bytes left the node before they were archived");
            self.received[n].opened = true;
            self.credit(n);
        }
        let read = self.reading.take().or_else(|| self.outflow.next_read());
        let Some(read) = read else { return };
        let n = read.attempt.run.0 as usize - 1;
        let len = (self.disk[n].saturating_sub(read.from)).min(7 - read.from % 7);
        if len == 0 {
            return self.outflow.note_empty(&read);
        }
        let record = before(record(n, read.from, len), read.until).unwrap();
        let end = record.end();
        if !self.outflow.send(&read, end) {
            return;
        }
        let r = &mut self.received[n];
        assert!(r.opened, "a record before its Open");
        assert!(end <= r.granted, "{end} is beyond the granted {}", r.granted);
        assert!(record.head.position <= r.upto, "an undeclared gap");
        for (at, byte) in (record.head.position..).zip(record.data.iter()) {
            assert_eq!(*byte, written(n, at));
        }
        if record.head.dropped.is_none() {
            assert_eq!(record.data.len() as u64, record.head.len);
        }
        r.upto = r.upto.max(end);
    }

    fn cut(&mut self) {
        self.outflow.disconnected();
        self.received.iter_mut().for_each(|r| r.opened = false);
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Write { n, len } if !self.ended[n] => {
                self.disk[n] += len;
                self.outflow.wrote(&id(n));
            }
            Op::End { n } => {
                self.ended[n] = true;
                self.outflow.ended(&id(n), self.disk[n]);
            }
            Op::Send { count } => (0..count).for_each(|_| self.send()),
            Op::Credit { n, more } => {
                self.received[n].granted += more;
                self.credit(n);
            }
            Op::Archive { n } => {
                self.received[n].archived = self.received[n].upto;
                self.credit(n);
            }
            Op::Read => self.reading = self.reading.take().or_else(|| self.outflow.next_read()),
            Op::Cut => self.cut(),
            Op::OperatorRestart => {
                self.cut();
                for r in &mut self.received {
                    r.upto = r.archived;
                    r.granted = r.archived + 5;
                }
            }
            Op::Write { .. } => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_arrives_in_order_and_none_beyond_the_credit(ops in prop::collection::vec(op(), 1..120)) {
        let mut model = Model::new();
        for op in &ops {
            model.apply(op);
        }
        model.cut();
        for n in 0..ATTEMPTS {
            model.apply(&Op::End { n });
            model.received[n].granted = u64::MAX;
        }
        let mut steps = 0;
        while model.outflow.has_work() {
            model.send();
            (0..ATTEMPTS).for_each(|n| model.apply(&Op::Archive { n }));
            steps += 1;
            prop_assert!(steps < 10_000, "output is left and nothing is sent");
        }
        for n in 0..ATTEMPTS {
            prop_assert_eq!(model.received[n].archived, model.disk[n]);
        }
    }
}
