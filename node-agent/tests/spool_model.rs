//! The Spool against a naive model: whatever is written, dropped, released and read in any order, every requested
//! position is returned once, in order, as the same bytes or as a hole of the right stream and offset.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may panic")]

use std::path::Path;

use proptest::prelude::*;
use sentinel_node_agent::journal::AttemptDir;
use sentinel_node_agent::spool::{Reader, Room, Writer};
use sentinel_protocol::log::{DropReason, LogRecord, Stream};
use sentinel_protocol::request::OutputRules;

#[derive(Debug, Clone)]
enum Step {
    Write { stream: Stream, len: usize },
    Read { max: usize },
    Release { percent: u64 },
    Reopen,
    Pass { ms: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let stream = prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)];
    let len = prop_oneof![1usize..40, 1usize..5_000, Just(150_000)];
    let step = prop_oneof![
        6 => (stream, len).prop_map(|(stream, len)| Step::Write { stream, len }),
        2 => (1usize..20_000).prop_map(|max| Step::Read { max }),
        1 => (0u64..101).prop_map(|percent| Step::Release { percent }),
        1 => Just(Step::Reopen),
        1 => (0u64..300).prop_map(|ms| Step::Pass { ms }),
    ];
    prop::collection::vec(step, 1..120)
}

/// All that was written, in order.
#[derive(Default)]
struct Model {
    bytes: Vec<(Stream, u8)>,
    /// Offset of each byte in its stream.
    offsets: Vec<u64>,
    lens: [u64; 2],
}

impl Model {
    fn write(&mut self, stream: Stream, data: &[u8]) {
        for byte in data {
            self.bytes.push((stream, *byte));
            let len = &mut self.lens[usize::from(stream == Stream::Stderr)];
            self.offsets.push(*len);
            *len += 1;
        }
    }

    /// Checks records that were read from `from`; returns the position after them.
    fn check(&self, from: u64, records: &[LogRecord], dropped: &mut [u64; 2]) -> u64 {
        let mut at = from;
        for record in records {
            let head = record.head;
            assert_eq!(head.position, at, "a gap or a repeat at {at}");
            assert!(head.len > 0);
            if head.dropped.is_none() {
                assert_eq!(head.len, record.data.len() as u64);
                for (i, byte) in record.data.iter().enumerate() {
                    let position = usize::try_from(head.position).unwrap() + i;
                    assert_eq!(self.bytes[position], (head.stream, *byte), "position {position}");
                    assert_eq!(self.offsets[position], head.offset + i as u64);
                }
            } else {
                assert!(record.data.is_empty());
                dropped[usize::from(head.stream == Stream::Stderr)] += head.len;
                if head.dropped == Some(DropReason::SpoolFull) {
                    let first = usize::try_from(head.position).unwrap();
                    assert_eq!((self.bytes[first].0, self.offsets[first]), (head.stream, head.offset));
                }
            }
            at = record.end();
        }
        at
    }
}

fn data(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 31 + seed * 17) % 251).unwrap()).collect()
}

fn spool(root: &Path, rules: OutputRules) -> (AttemptDir, Writer) {
    let attempt = AttemptDir::at(root);
    std::fs::create_dir(attempt.log()).unwrap();
    let writer = Writer::create(&attempt.log(), rules).unwrap();
    (attempt, writer)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn every_position_is_read_once_as_data_or_hole(steps in steps()) {
        let root = tempfile::tempdir().unwrap();
        let rules = OutputRules { limit: u64::MAX, spool: 64 << 10, max_block_ms: 100, merge: false, mask: true };
        let (attempt, mut writer) = spool(root.path(), rules);
        let mut reader = Reader::open(&attempt).unwrap();
        let mut model = Model::default();
        let (mut now, mut cursor) = (0, 0);
        let mut holes = [0; 2];
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write { stream, len } => {
                    if let Room::Blocked { until_ms } = writer.room(now, 0) {
                        prop_assert!(until_ms > now);
                        // Half of the time output is released, the other half time runs out.
                        if at % 2 == 0 {
                            reader.release(cursor).unwrap();
                            writer.detect_released(now);
                        }
                        if matches!(writer.room(now, 0), Room::Blocked { .. }) {
                            now = until_ms;
                            prop_assert_eq!(writer.room(now, 0), Room::Open);
                        }
                    }
                    let data = data(at, len);
                    writer.append(stream, &data, 7);
                    model.write(stream, &data);
                }
                Step::Read { max } => {
                    let records = reader.read(cursor, max).unwrap();
                    cursor = model.check(cursor, &records, &mut holes);
                }
                Step::Release { percent } => {
                    reader.release(cursor * percent / 100).unwrap();
                    writer.detect_released(now);
                    prop_assert!(reader.oldest().unwrap() <= cursor);
                }
                Step::Reopen => reader = Reader::open(&attempt).unwrap(),
                Step::Pass { ms } => now += ms,
            }
        }
        let written = writer.finish(now);
        prop_assert_eq!(written.bytes, model.lens);
        prop_assert_eq!(written.end, model.bytes.len() as u64);
        loop {
            let records = reader.read(cursor, 10_000).unwrap();
            if records.is_empty() { break; }
            cursor = model.check(cursor, &records, &mut holes);
        }
        prop_assert_eq!(cursor, written.end, "the reader must reach the end");
        // What was read before it was dropped is not a hole for this reader.
        prop_assert!(holes[0] <= written.dropped[0] && holes[1] <= written.dropped[1]);
    }
}

#[test]
fn drops_without_a_reader_are_counted_exactly() {
    let root = tempfile::tempdir().unwrap();
    let rules = OutputRules { limit: u64::MAX, spool: 1 << 20, max_block_ms: 50, merge: false, mask: true };
    let (attempt, mut writer) = spool(root.path(), rules);
    let mut model = Model::default();
    let mut now = 0;
    let mut blocked = 0;
    for at in 0..2_000 {
        if let Room::Blocked { until_ms } = writer.room(now, 0) {
            blocked += 1;
            now = until_ms;
            assert_eq!(writer.room(now, 0), Room::Open);
        }
        let (stream, len) = if at % 3 == 0 { (Stream::Stderr, 333) } else { (Stream::Stdout, 4_000) };
        let data = data(at, len);
        writer.append(stream, &data, 0);
        model.write(stream, &data);
    }
    assert_eq!(blocked, 1, "the command is blocked once per stall");
    let written = writer.finish(now);
    assert_eq!(written.blocked_ms, 50);
    let mut holes = [0; 2];
    let mut reader = Reader::open(&attempt).unwrap();
    let mut cursor = 0;
    loop {
        let records = reader.read(cursor, 1 << 20).unwrap();
        if records.is_empty() {
            break;
        }
        cursor = model.check(cursor, &records, &mut holes);
    }
    assert_eq!(cursor, written.end);
    assert_eq!(holes, written.dropped);
    assert!(holes[0] > 4_000_000 && holes[1] > 150_000, "{holes:?}");
    let kept: u64 =
        std::fs::read_dir(attempt.log()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!(kept <= (1 << 20) + (256 << 10) + 200_000, "{kept} bytes on disk");
}

#[test]
fn output_beyond_the_limit_is_one_hole_per_stream() {
    let root = tempfile::tempdir().unwrap();
    let rules = OutputRules { limit: 1_000, spool: 1 << 20, max_block_ms: 0, merge: false, mask: true };
    let (attempt, mut writer) = spool(root.path(), rules);
    for _ in 0..10 {
        writer.append(Stream::Stdout, &[b'o'; 300], 0);
        writer.append(Stream::Stderr, &[b'e'; 50], 0);
    }
    let written = writer.finish(0);
    assert_eq!((written.bytes, written.end), ([3_000, 500], 3_500));
    let records = Reader::open(&attempt).unwrap().read(0, 1 << 20).unwrap();
    let kept: u64 = records.iter().filter(|r| r.head.dropped.is_none()).map(|r| r.head.len).sum();
    assert_eq!(kept, 1_000);
    let holes: Vec<_> =
        records.iter().filter_map(|r| r.head.dropped.map(|why| (r.head.stream, r.head.len, why))).collect();
    assert_eq!(
        holes,
        [(Stream::Stdout, 2_100, DropReason::LimitReached), (Stream::Stderr, 400, DropReason::LimitReached)]
    );
    assert_eq!(written.dropped, [2_100, 400]);
}

/// What is lost is one hole per stream; other segments are not affected.
#[test]
fn a_damaged_byte_costs_at_most_its_segment() {
    let root = tempfile::tempdir().unwrap();
    let rules =
        OutputRules { limit: u64::MAX, spool: 16 << 10, max_block_ms: u64::MAX, merge: false, mask: true };
    let (attempt, mut writer) = spool(root.path(), rules);
    let mut model = Model::default();
    for at in 0..40 {
        let stream = if at % 2 == 0 { Stream::Stdout } else { Stream::Stderr };
        let data = data(at, 200);
        writer.append(stream, &data, 0);
        model.write(stream, &data);
    }
    writer.finish(0);
    let mut segments: Vec<_> = std::fs::read_dir(attempt.log()).unwrap().map(|e| e.unwrap().path()).collect();
    segments.sort();
    assert!(segments.len() >= 2);
    let whole = std::fs::read(&segments[0]).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&segments[0], &damaged).unwrap();
        let records = Reader::open(&attempt).unwrap().read(0, 1 << 20).unwrap();
        let mut holes = [0; 2];
        assert_eq!(model.check(0, &records, &mut holes), 8_000);
        assert!(holes[0] + holes[1] > 0, "byte {at}");
        assert!(records.iter().all(|r| r.head.dropped.is_none_or(|why| why == DropReason::Unreadable)));
    }
}
