//! Messages and records. What is decoded and encoded again is the same: a relay changes nothing.

use std::fmt::Debug;

use bytes::Bytes;
use sentinel_protocol::codec::{
    CodecError, decode_record, decode_text, encode_record, encode_text, is_unknown_kind,
};
use sentinel_protocol::limits::MAX_CONTROL_FRAME;
use sentinel_protocol::log::LogControl;
use sentinel_protocol::to_agent::{Start, ToAgent};
use sentinel_protocol::to_operator::{ReportedState, ToOperator};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(data).ok()?;
    is_unknown_kind(text, &["Start", "Report"]);
    let message: T = decode_text(text).ok()?;
    assert!(text.len() <= MAX_CONTROL_FRAME);
    match encode_text(&message) {
        Ok(again) => assert_eq!(decode_text::<T>(&again).as_ref(), Ok(&message), "{again}"),
        // A number may take more bytes than it was sent in.
        Err(CodecError::TooLarge { .. }) => assert!(text.len() > MAX_CONTROL_FRAME / 8),
        Err(error) => panic!("{message:?} was decoded and cannot be encoded: {error}"),
    }
    Some(message)
}

/// A message to an agent.
pub fn to_agent(data: &[u8]) {
    if let Some(ToAgent::Start(start)) = round_trip(data) {
        needs(&start);
    }
}

/// The version that a request needs has all that it uses.
fn needs(start: &Start) {
    assert!(start.unknown_to(start.needs()).is_empty());
    assert_eq!(start.request.needs_secrets(), start.request.secrets().next().is_some());
    let id = &start.attempt;
    assert_eq!(id.to_string().parse().as_ref(), Ok(id));
    let directory = id.directory_name();
    assert!(!directory.contains('/') && !directory.starts_with('.') && directory.len() < 255, "{directory}");
}

/// A message to the operator.
pub fn to_operator(data: &[u8]) {
    match round_trip(data) {
        Some(ToOperator::Report(report)) => {
            if let ReportedState::Ended(ended) = &report.state {
                assert!(ended.message().len() < 64 << 10);
                ended.exit_code();
            }
        }
        Some(ToOperator::Refused(refused)) => assert!(refused.refusal.to_string().len() < 64 << 10),
        _ => {}
    }
}

/// A text frame of a log socket.
pub fn log_control(data: &[u8]) {
    round_trip::<LogControl>(data);
}

/// A binary frame of a log socket.
pub fn log_record(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    let Ok((attempt, record)) = decode_record(&frame) else { return };
    assert!(record.end() > record.head.position);
    let again = encode_record(&attempt, &record).expect("what was decoded");
    assert_eq!(decode_record(&again), Ok((attempt, record.clone())));
    // However it is cut, its parts are the whole.
    let middle = record.head.position + record.head.len / 2;
    let before = record.clone().until_position(middle).map_or(0, |part| part.head.len);
    let after = record.clone().from_position(middle).map_or(0, |part| part.head.len);
    assert_eq!(before + after, record.head.len);
    let (first, rest) = record.clone().split(record.head.len / 3);
    assert_eq!(first.head.len + rest.map_or(0, |rest| rest.head.len), record.head.len);
}
