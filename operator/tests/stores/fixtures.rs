//! Records and output to store.

use bytes::Bytes;
use sentinel_operator::history::{
    AttemptRecord, History, HistoryRecord, OutcomeName, OutputSegment, RecordSource, RunCounts, RunRecord,
    RunVerdict,
};
use sentinel_protocol::exit::{Clock, ExitDetails, Fate, LeftBehind, LeftProcess};
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, RunNumber, SpecHash, TaskUid};
use sentinel_protocol::log::{DropReason, LogRecord, RecordHead, Stream};
use sentinel_protocol::outcome::{LostReason, Outcome};
use sentinel_protocol::request::Environment;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{OutputSummary, Usage};

pub(crate) const T0: i64 = 1_700_000_000_000;

pub(crate) fn uid(text: &str) -> TaskUid {
    text.parse().unwrap()
}

pub(crate) fn node(text: &str) -> NodeName {
    text.parse().unwrap()
}

pub(crate) fn spec_hash() -> SpecHash {
    "ab".repeat(32).parse().unwrap()
}

pub(crate) fn attempt_id(task: &str, run: u32, on: &str) -> AttemptId {
    AttemptId { task: uid(task), run: RunNumber(run), node: node(on), attempt: 1 }
}

/// An Attempt that was accepted.
pub(crate) fn accepted(id: &AttemptId) -> AttemptRecord {
    AttemptRecord {
        attempt: id.clone(),
        namespace: "ops".to_owned(),
        name: "disk-report".to_owned(),
        run_started_at: UnixMillis(T0 + i64::from(id.run.0) * 1000),
        trigger: Some("SpecChange".to_owned()),
        spec_hash: spec_hash(),
        command: "df -h".to_owned(),
        environment: Environment::Host,
        stage: Stage::Accepted,
        started_at: None,
        ended_at: None,
        outcome: None,
        usage: Usage::default(),
        output: OutputSummary::default(),
        exit: sentinel_protocol::exit::ExitDetails::default(),
        source: RecordSource::Agent,
        epoch: Epoch::from(1),
    }
}

pub(crate) fn running(id: &AttemptId) -> AttemptRecord {
    AttemptRecord { stage: Stage::Running, started_at: Some(UnixMillis(T0 + 5000)), ..accepted(id) }
}

pub(crate) fn ended(id: &AttemptId, outcome: Outcome) -> AttemptRecord {
    AttemptRecord {
        stage: Stage::Ended,
        ended_at: Some(UnixMillis(T0 + 9000)),
        outcome: Some(outcome),
        usage: Usage { user_ms: 12, system_ms: 3, max_rss: 5 << 20 },
        output: OutputSummary { end: 42, ..OutputSummary::default() },
        exit: exit(),
        ..running(id)
    }
}

/// Every detail about the end of a command.
fn exit() -> ExitDetails {
    let process = LeftProcess { pid: 4711, name: "nginx".to_owned() };
    ExitDetails {
        signal: Some(15),
        killed: true,
        left: Some(LeftBehind { count: 9, fate: Fate::Kept, processes: vec![process] }),
        output_held_ms: Some(5_003),
        ..ExitDetails::clock(Clock::Total, 600_000)
    }
}

pub(crate) fn lost(id: &AttemptId) -> AttemptRecord {
    AttemptRecord {
        source: RecordSource::Operator,
        ..ended(id, Outcome::Lost { reason: LostReason::NodeUnreachable })
    }
}

pub(crate) fn history_record(record: &AttemptRecord) -> HistoryRecord {
    HistoryRecord::Attempt(Box::new(record.clone()))
}

pub(crate) fn run_record(task: &str, run: u32) -> RunRecord {
    RunRecord {
        task_uid: uid(task),
        namespace: "ops".to_owned(),
        name: "disk-report".to_owned(),
        run: RunNumber(run),
        trigger: "SpecChange".to_owned(),
        spec_hash: spec_hash(),
        rerun_token: String::new(),
        rerun: None,
        requested_by: None,
        cancelled_by: None,
        approved_by: None,
        command: "df -h".to_owned(),
        started_at: UnixMillis(T0 + i64::from(run) * 1000),
        finished_at: None,
        verdict: None,
        reason: None,
        counts: RunCounts { targets: 3, ..RunCounts::default() },
        epoch: Epoch::from(1),
    }
}

pub(crate) fn finished(run: &RunRecord, verdict: RunVerdict, outcomes: &[(OutcomeName, u32)]) -> RunRecord {
    RunRecord {
        finished_at: Some(UnixMillis(run.started_at.0 + 60_000)),
        verdict: Some(verdict),
        reason: Some("3/3 targets ended".to_owned()),
        counts: RunCounts { targets: run.counts.targets, outcomes: outcomes.iter().copied().collect() },
        ..run.clone()
    }
}

/// A log of records with patterned bytes: of every seven, five are stdout, two stderr, and one of the former is dropped.
pub(crate) fn log(lengths: impl IntoIterator<Item = usize>) -> Vec<LogRecord> {
    let (mut position, mut offsets) = (0_u64, [0_u64; 2]);
    lengths
        .into_iter()
        .enumerate()
        .map(|(number, len)| {
            let stream = if number % 7 < 5 { Stream::Stdout } else { Stream::Stderr };
            let offset = &mut offsets[usize::from(stream == Stream::Stderr)];
            let dropped = (number % 7 == 3).then_some(DropReason::SpoolFull);
            let head = RecordHead {
                stream,
                position,
                offset: *offset,
                len: len as u64,
                at_micros: 1_700_000_000_000_000 + number as i64 * 137,
                dropped,
            };
            let data: Bytes = if dropped.is_some() {
                Bytes::new()
            } else {
                (position..position + len as u64)
                    .map(|at| (at * 31 + at / 251) as u8)
                    .collect::<Vec<_>>()
                    .into()
            };
            position += len as u64;
            *offset += len as u64;
            LogRecord { head, data }
        })
        .collect()
}

/// Segments of that many records each.
pub(crate) fn segments(id: &AttemptId, records: &[LogRecord], each: usize) -> Vec<OutputSegment> {
    records.chunks(each).map(|some| OutputSegment::pack(id.clone(), some).unwrap()).collect()
}

/// The part of the log at and after a position.
pub(crate) fn rest_of(records: &[LogRecord], from: u64) -> Vec<LogRecord> {
    records.iter().cloned().filter_map(|record| record.from_position(from)).collect()
}

/// One position of a log: stream, offset, time, and the byte or why it is missing. Makes logs comparable whose records
/// are divided differently.
pub(crate) type LogByte = (u64, Stream, u64, i64, Result<u8, DropReason>);

pub(crate) fn log_bytes(records: &[LogRecord]) -> Vec<LogByte> {
    records
        .iter()
        .flat_map(|LogRecord { head, data }| {
            (0..head.len).map(|n| {
                let byte = head.dropped.map_or_else(|| Ok(data[n as usize]), Err);
                (head.position + n, head.stream, head.offset + n, head.at_micros, byte)
            })
        })
        .collect()
}

/// All output from a position on, read in pieces.
pub(crate) async fn read_all(
    history: &dyn History,
    id: &AttemptId,
    from: u64,
    piece: usize,
) -> Vec<LogRecord> {
    let (mut position, mut records) = (from, Vec::new());
    loop {
        let some = history.output(id.clone(), position, piece).await.unwrap();
        let Some(last) = some.last() else { return records };
        assert!(last.end() > position, "no progress at {position}");
        position = last.end();
        records.extend(some);
    }
}
