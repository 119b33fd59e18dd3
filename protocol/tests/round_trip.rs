//! The codec never panics, decodes exactly what it encoded, and rejects oversized messages on both sides.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use bytes::Bytes;
use proptest::prelude::*;
use sentinel_protocol::codec::{CodecError, decode_record, decode_text, encode_record, encode_text};
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, RunNumber, SpecHash, TaskUid};
use sentinel_protocol::limits::{
    MAX_ATTEMPT, MAX_CONTROL_FRAME, MAX_LOG_FRAME, MAX_POSITION, MAX_RECORD_DATA,
};
use sentinel_protocol::log::{DropReason, LogControl, LogRecord, RecordHead, Stream};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Forget, ToAgent};
use sentinel_protocol::to_operator::ToOperator;

fn attempt() -> impl Strategy<Value = AttemptId> {
    ("[0-9a-zA-Z-]{1,64}", 1..=u32::MAX, "[a-z0-9]{1,20}(\\.[a-z0-9]{1,20}){0,3}", 1..=MAX_ATTEMPT).prop_map(
        |(task, run, node, attempt)| AttemptId {
            task: TaskUid::new(task).unwrap(),
            run: RunNumber(run),
            node: NodeName::new(node).unwrap(),
            attempt,
        },
    )
}

fn reason() -> impl Strategy<Value = Option<DropReason>> {
    prop_oneof![
        4 => Just(None),
        1 => Just(Some(DropReason::SpoolFull)),
        1 => Just(Some(DropReason::LimitReached)),
        1 => Just(Some(DropReason::DiskFull)),
        1 => Just(Some(DropReason::Unreadable)),
    ]
}

fn record() -> impl Strategy<Value = LogRecord> {
    let data = prop::collection::vec(any::<u8>(), 1..2000);
    let half = MAX_POSITION / 2;
    (data, prop::bool::ANY, 0..half, 0..half, 0..=UnixMillis::LAST.0 * 1000, reason(), 1..half).prop_map(
        |(data, stdout, position, offset, at_micros, dropped, missing)| LogRecord {
            head: RecordHead {
                stream: if stdout { Stream::Stdout } else { Stream::Stderr },
                position,
                offset,
                len: if dropped.is_some() { missing } else { data.len() as u64 },
                at_micros,
                dropped,
            },
            data: if dropped.is_some() { Bytes::new() } else { data.into() },
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn records_round_trip(attempt in attempt(), record in record()) {
        let frame = encode_record(&attempt, &record).unwrap();
        prop_assert!(frame.len() <= MAX_LOG_FRAME);
        prop_assert_eq!(decode_record(&frame).unwrap(), (attempt, record));
    }

    #[test]
    fn decoding_arbitrary_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_record(&bytes.into());
    }

    #[test]
    fn rejects_truncated_records_and_survives_damaged_ones(
        record in record(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let id: AttemptId = "u/1/n/1".parse().unwrap();
        let frame = encode_record(&id, &record).unwrap();
        let mut damaged = frame.to_vec();
        let index = at.index(damaged.len());
        damaged[index] = byte;
        let _ = decode_record(&damaged.into());
        prop_assert!(decode_record(&frame.slice(..at.index(frame.len()))).is_err());
    }

    #[test]
    fn decoding_arbitrary_text_never_panics(text in any::<String>()) {
        let _ = decode_text::<ToAgent>(&text);
        let _ = decode_text::<ToOperator>(&text);
        let _ = decode_text::<LogControl>(&text);
    }

    #[test]
    fn text_messages_round_trip(attempt in attempt(), epoch in 0..=Epoch::MAX.get()) {
        let message = ToAgent::Forget(Forget { attempt, epoch: Epoch::new(epoch).unwrap() });
        prop_assert_eq!(decode_text::<ToAgent>(&encode_text(&message).unwrap()).unwrap(), message);
    }

    #[test]
    fn attempt_ids_round_trip_through_text(attempt in attempt()) {
        prop_assert_eq!(attempt.to_string().parse::<AttemptId>().unwrap(), attempt);
    }

    #[test]
    fn trimming_a_record_keeps_all_later_bytes(record in record(), at in any::<u64>()) {
        let (first, end) = (record.head.position, record.end());
        match record.clone().from_position(at) {
            None => prop_assert!(at >= end),
            Some(cut) => {
                prop_assert_eq!(cut.head.position, at.max(first));
                prop_assert_eq!(cut.end(), end);
                prop_assert_eq!(cut.head.offset - record.head.offset, cut.head.position - first);
                if record.head.dropped.is_none() {
                    let skipped = usize::try_from(cut.head.position - first).unwrap();
                    prop_assert_eq!(&cut.data[..], &record.data[skipped..]);
                }
            }
        }
    }
}

fn of_len(len: u64, data: Vec<u8>, position: u64, dropped: Option<DropReason>) -> LogRecord {
    let stream = Stream::Stdout;
    LogRecord {
        head: RecordHead { stream, position, offset: 0, len, at_micros: 0, dropped },
        data: data.into(),
    }
}

#[test]
fn largest_record_fits_a_frame_and_a_larger_one_is_rejected() {
    let id: AttemptId = format!("{}/4294967295/{}/99999", "u".repeat(64), "n".repeat(253)).parse().unwrap();
    let largest = of_len(MAX_RECORD_DATA as u64, vec![0; MAX_RECORD_DATA], MAX_POSITION / 2, None);
    let frame = encode_record(&id, &largest).unwrap();
    assert!(frame.len() <= MAX_LOG_FRAME, "{} bytes", frame.len());
    assert_eq!(decode_record(&frame).unwrap().1, largest);
    let larger = of_len(MAX_RECORD_DATA as u64 + 1, vec![0; MAX_RECORD_DATA + 1], 0, None);
    assert!(matches!(encode_record(&id, &larger), Err(CodecError::TooLarge { .. })));
}

#[test]
fn rejects_inconsistent_records() {
    let id: AttemptId = "u/1/n/1".parse().unwrap();
    for (why, record) in [
        ("more bytes than its length", of_len(1, vec![0; 2], 0, None)),
        ("fewer bytes than its length", of_len(3, vec![0; 2], 0, None)),
        ("an empty record", of_len(0, vec![], 0, None)),
        ("an empty gap", of_len(0, vec![], 0, Some(DropReason::DiskFull))),
        ("a gap with data", of_len(1, vec![0], 0, Some(DropReason::DiskFull))),
        ("a position that overflows", of_len(2, vec![0; 2], u64::MAX - 1, None)),
        ("a position out of range", of_len(2, vec![0; 2], MAX_POSITION - 1, None)),
    ] {
        assert!(matches!(encode_record(&id, &record), Err(CodecError::Record(_))), "{why} was accepted");
    }
}

#[test]
fn rejects_oversized_messages_on_both_sides() {
    let text = format!("\"{}\"", "a".repeat(MAX_CONTROL_FRAME));
    assert!(matches!(encode_text(&text), Err(CodecError::TooLarge { .. })));
    assert!(matches!(decode_text::<String>(&text), Err(CodecError::TooLarge { .. })));
}

#[test]
fn deep_nesting_is_an_error_not_a_stack_overflow() {
    let text = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    assert!(decode_text::<ToAgent>(&text).is_err());
    let text = format!("{{\"kind\":\"Ack\",\"x\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    assert!(decode_text::<ToAgent>(&text).is_err());
}

#[test]
fn spec_hash_has_exactly_64_hexadecimal_digits() {
    for bad in ["", "ab", &"A".repeat(64), &"g".repeat(64), &"a".repeat(65)] {
        assert!(SpecHash::new(bad).is_err(), "{bad:?} was accepted");
    }
    assert!(SpecHash::new("a".repeat(64)).is_ok());
}
