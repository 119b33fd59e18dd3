//! The output of one Execution: what exists so far, or until its end.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt as _};
use http::{HeaderMap, StatusCode};
use sentinel_api::records;
use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, TaskUid};
use sentinel_protocol::log::{LogRecord, Stream as OutputStream};
use sentinel_protocol::stage::Stage;
use sentinel_protocol::to_operator::ReportedState;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::accept::prefers_records;
use super::answer::{Answer, BodyError};
use super::api::Api;
use super::error::{ApiError, Reason};
use super::executions::{self, unable};
use super::file_name::file_name;
use super::log_lines::LineWriter;
use super::log_text::{Format, RecordWriter, Timestamps, bytes};
use super::request::Query;
use crate::gateway::Registry;
use crate::history::RecordSource;
use crate::logs::{Follow, LogParams, ReadError};
use crate::records::{ExecutionStatus, Records};

/// How long a reader of a finished Attempt waits for the next output that its node still holds.
const REST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a hole may grow before it is written: consecutive ones are one.
const HOLE_GROWS: Duration = Duration::from_secs(1);

/// How often a follower of an Attempt that has not begun checks whether it still can.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Records of a log, in order.
type RecordStream = Pin<Box<dyn Stream<Item = Result<LogRecord, ReadError>> + Send>>;

/// The log; `headers` choose between the two forms of records.
pub(super) async fn read(
    api: &Api,
    parts: &[String],
    query: &Query,
    headers: &HeaderMap,
) -> Result<Answer, ApiError> {
    let (task, run, node) = executions::id(parts)?;
    let follow = if query.is_set("follow")? { Follow::Yes } else { Follow::No };
    let from = query.read::<u64>("from", "a position: 0 to 18446744073709551615")?.unwrap_or(0);
    let only =
        query.one_of("stream", &[("stdout", OutputStream::Stdout), ("stderr", OutputStream::Stderr)])?;
    let format = format(query, headers)?;
    let number = attempt_number(query)?;
    let params = LogParams { from, stream: only, tail: tail(query)?, since_micros: since(api, query)? };

    let attempt = attempt(api, &task, run, &node, number).await?;
    let end = end(api, &attempt).await?;
    if let LogEnd::At(end) = end
        && from > end
    {
        let message = format!("position {from} is after the end of the log, {end}");
        return Err(ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, Reason::PositionOutOfRange, message)
            .at("from", &from.to_string(), format!("0 to {end}")));
    }
    let from = api.logs.start_position(&attempt, params).await.map_err(|error| unable(&error.source))?;
    let (writer, start) = writer(api, &attempt, format, (from, only, follow)).await?;
    // The agent reports the end of a command on one socket and sends its output on another: the rest may still arrive.
    let rest = match end {
        LogEnd::At(end) if follow == Follow::No && api.registry.report(&attempt).is_some() => Some(end),
        _ => None,
    };
    let records: RecordStream = match rest {
        Some(end) => Box::pin(api.logs.open_to(attempt.clone(), start, end)),
        None => Box::pin(api.logs.open(attempt.clone(), start, follow)),
    };
    let body = LogBody {
        records,
        rest: None,
        writer,
        format,
        position: from,
        follow,
        end,
        attempt: attempt.clone(),
        registry: api.registry.clone(),
        rest_timeout: rest.map(|_| REST_TIMEOUT),
        begun: end != LogEnd::NotBegun,
        never: (follow == Follow::Yes).then(|| never_begins(api, attempt.clone())),
        over: false,
        stop: api.stop.clone(),
    };
    let stream = unfold(body, |mut body| async move { body.next().await.map(|item| (item, body)) });
    let (content_type, extension) = format.names();
    let mut answer = Answer::stream(content_type, stream)
        .with("sentinel-attempt", &attempt)
        .with("sentinel-log-from", from);
    if let LogEnd::At(end) = end {
        answer = answer.with("sentinel-log-end", end);
    }
    if follow == Follow::No {
        answer = answer.saved_as(&file_name(&log_name(api, &attempt), query, extension));
    }
    Ok(answer)
}

fn format(query: &Query, headers: &HeaderMap) -> Result<Format, ApiError> {
    let timestamps = if query.is_set("timestamps")? { Timestamps::Shown } else { Timestamps::Hidden };
    let text = Format::Text(timestamps);
    let records = if prefers_records(headers) { Format::Records } else { Format::Json };
    let formats = [("text", text), ("json", records), ("jsonl", Format::Lines)];
    Ok(query.one_of("format", &formats)?.unwrap_or(text))
}

/// What writes the records, and the position of the first one that it needs.
async fn writer(
    api: &Api,
    attempt: &AttemptId,
    format: Format,
    (from, only, follow): (u64, Option<OutputStream>, Follow),
) -> Result<(RecordWriter, u64), ApiError> {
    if format != Format::Lines {
        return Ok((RecordWriter::new(format, only), from));
    }
    let known = api.logs.lines_known_before(attempt, from).await.map_err(|error| unable(&error.source))?;
    let lines = LineWriter::new(known, from, only, follow == Follow::Yes);
    Ok((RecordWriter::of_lines(lines), known.position))
}

/// The name of a log as a file.
fn log_name(api: &Api, attempt: &AttemptId) -> String {
    let AttemptId { task, run, node, .. } = attempt;
    let name = api.feed.by_uid(task).and_then(|known| known.metadata.name.clone());
    format!("{}-{run}-{node}", name.unwrap_or_else(|| task.to_string()))
}

/// Largest number of last lines.
const MAX_TAIL: usize = 100_000;

fn tail(query: &Query) -> Result<Option<usize>, ApiError> {
    let allowed = format!("a number of lines, 0 to {MAX_TAIL}");
    match query.read::<usize>("tail", &allowed)? {
        Some(lines) if lines > MAX_TAIL => Err(ApiError::query("tail", &lines.to_string(), allowed)),
        lines => Ok(lines),
    }
}

/// The `since` of the query, microseconds since the Unix epoch.
pub(super) fn since(api: &Api, query: &Query) -> Result<Option<i64>, ApiError> {
    let Some(text) = query.text("since") else { return Ok(None) };
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        // Rounded up: a microsecond that begins before the given time is not after it.
        let micros = (time.as_nanosecond() + 999).div_euclid(1000);
        return Ok(Some(i64::try_from(micros).unwrap_or(i64::MAX)));
    }
    let ago = sentinel_protocol::duration::parse(text).map_err(|_| {
        ApiError::query("since", text, "a time in RFC 3339, or a duration before now such as 90s or 1h30m")
    })?;
    let micros = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
    Ok(Some(api.clock.now().0.saturating_mul(1000).saturating_sub(micros)))
}

/// The number of the Attempt that a query names.
pub(super) fn attempt_number(query: &Query) -> Result<Option<u32>, ApiError> {
    let number = query.read::<NonZeroU32>("attempt", "the number of an Attempt, 1 or more")?;
    Ok(number.map(NonZeroU32::get))
}

/// The Attempt whose log is read: the one with the number, or the latest that is known.
pub(super) async fn attempt(
    api: &Api,
    task: &TaskUid,
    run: RunNumber,
    node: &NodeName,
    number: Option<u32>,
) -> Result<AttemptId, ApiError> {
    let known = number.or_else(|| api.registry.latest_attempt(task, run, node));
    let attempt = AttemptId { task: task.clone(), run, node: node.clone(), attempt: known.unwrap_or(1) };
    if api.registry.report(&attempt).is_some() {
        return Ok(attempt);
    }
    match executions::find(api, task, run, node).await? {
        Some(known) => {
            let wanted = number.unwrap_or(known.record.attempt).max(1);
            if let Some(last) = final_attempt(&known)
                && wanted > last
            {
                return Err(no_such_attempt(&attempt, wanted, last));
            }
            Ok(AttemptId { attempt: wanted, ..attempt })
        }
        None => Err(ApiError::not_found(format!("no Execution {task}/{run}/{node}"))),
    }
}

/// The number of the last Attempt of a finished Execution.
fn final_attempt(execution: &ExecutionStatus) -> Option<u32> {
    execution.outcome().map(|_| execution.record.attempt.max(1))
}

fn no_such_attempt(of: &AttemptId, wanted: u32, last: u32) -> ApiError {
    let AttemptId { task, run, node, .. } = of;
    let message = format!(
        "no log of Attempt {wanted} of Execution {task}/{run}/{node}: the Execution has ended with Attempt {last}"
    );
    let allowed = if last == 1 { "1".to_owned() } else { format!("1 to {last}") };
    ApiError::not_found(message).at("attempt", &wanted.to_string(), allowed)
}

/// What is known about the end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogEnd {
    /// The Attempt has not begun.
    NotBegun,
    /// It is active.
    Open,
    /// It is finished, with this length.
    At(u64),
    /// It is finished, with an unknown length.
    Unknown,
}

pub(super) async fn end(api: &Api, attempt: &AttemptId) -> Result<LogEnd, ApiError> {
    if let Some(report) = api.registry.report(attempt) {
        return Ok(match report.state {
            ReportedState::Ended(ended) => LogEnd::At(ended.output.end),
            _ => LogEnd::Open,
        });
    }
    let record = api.records.attempt(attempt).await.map_err(|error| unable(&error))?;
    Ok(match record {
        None => LogEnd::NotBegun,
        Some(record) if record.stage < Stage::Ended => LogEnd::Open,
        Some(record) if record.source == RecordSource::Agent => LogEnd::At(record.output.end),
        Some(_) => LogEnd::Unknown,
    })
}

/// Completes when the Execution has ended without its command (`NotStarted`, `StartTimedOut`, `Skipped`), or with a
/// previous Attempt: then this log never begins.
pub(super) fn never_begins(api: &Api, attempt: AttemptId) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let (records, feed) = (api.records.clone(), api.feed.clone());
    Box::pin(async move {
        loop {
            tokio::time::sleep(CHECK_EVERY).await;
            if ended_without(&records, &attempt).await {
                return;
            }
            // A deleted Task starts nothing more.
            if feed.by_uid(&attempt.task).is_none() {
                return;
            }
        }
    })
}

/// Whether the Execution is finished and the Attempt did not run.
async fn ended_without(records: &Records, attempt: &AttemptId) -> bool {
    let found = records.execution(&attempt.task, attempt.run, &attempt.node).await;
    found.is_ok_and(|found| {
        found.is_some_and(|execution| {
            let record = &execution.record;
            let unstarted = record.source == RecordSource::Operator && record.started_at.is_none();
            let is_beyond = final_attempt(&execution).is_some_and(|last| attempt.attempt > last);
            execution.outcome().is_some() && (record.attempt == 0 || unstarted || is_beyond)
        })
    })
}

/// What stands at the end of a text that is not whole.
pub(super) fn not_arrived(missing: u64) -> String {
    let have = if missing == 1 { "has" } else { "have" };
    format!("[sentinel: {} {have} not arrived from the node yet]", bytes(missing))
}

/// A log that is being sent.
struct LogBody {
    records: RecordStream,
    /// What is left of a record that is being written.
    rest: Option<LogRecord>,
    writer: RecordWriter,
    format: Format,
    position: u64,
    follow: Follow,
    /// What was known about its end when it was requested.
    end: LogEnd,
    attempt: AttemptId,
    registry: Registry,
    /// How long the next record may take, where the end is known.
    rest_timeout: Option<Duration>,
    /// Whether the Attempt has begun.
    begun: bool,
    /// Completes when it never will.
    never: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    over: bool,
    stop: CancellationToken,
}

impl LogBody {
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        if let Some(behind) = self.writer.behind() {
            return Some(Ok(behind));
        }
        while !self.over {
            let stop = self.stop.clone();
            let is_holding = self.writer.is_holding();
            let record = tokio::select! {
                record = self.record() => record,
                () = tokio::time::sleep(HOLE_GROWS), if is_holding => return Some(Ok(self.writer.flush())),
                () = stop.cancelled() => {
                    self.over = true;
                    // An error, so that it is not mistaken for the end of the log.
                    return Some(Err("the operator is shutting down".into()));
                }
            };
            match record {
                Some(Ok(record)) => {
                    self.begun = true;
                    self.position = record.end();
                    let bytes = self.writer.write(&record);
                    if !bytes.is_empty() {
                        return Some(Ok(bytes));
                    }
                }
                Some(Err(error)) => {
                    self.over = true;
                    tracing::warn!(%error, "failed to read a log; its reader receives an incomplete answer");
                    return Some(Err(error.into()));
                }
                None => {
                    self.over = true;
                    let rest = [self.writer.flush(), self.last_line().unwrap_or_default()].concat();
                    return (!rest.is_empty()).then(|| Ok(rest.into()));
                }
            }
        }
        None
    }

    /// The next record, or a part of one that is written at once; `None` at the end, or when there never will be one. Cancel
    /// safe.
    async fn record(&mut self) -> Option<Result<LogRecord, ReadError>> {
        let record = match self.rest.take() {
            Some(rest) => rest,
            None => match self.next_record().await? {
                Ok(record) => record,
                Err(error) => return Some(Err(error)),
            },
        };
        let (first, rest) = record.split(self.format.at_once());
        self.rest = rest;
        Some(Ok(first))
    }

    async fn next_record(&mut self) -> Option<Result<LogRecord, ReadError>> {
        if let Some(limit) = self.rest_timeout {
            return tokio::time::timeout(limit, self.records.next()).await.ok().flatten();
        }
        match &mut self.never {
            Some(never) if !self.begun => tokio::select! {
                record = self.records.next() => record,
                () = never => None,
            },
            _ => self.records.next().await,
        }
    }

    /// Bytes that the node still holds, or held, and that have not arrived.
    fn missing(&self) -> u64 {
        match self.end {
            LogEnd::At(end) if self.follow == Follow::No && !self.registry.is_released(&self.attempt) => {
                end.saturating_sub(self.position)
            }
            _ => 0,
        }
    }

    /// Distinguishes the end of the log from a broken connection, and from output that has not arrived. Text has a line for
    /// the latter only.
    fn last_line(&mut self) -> Option<Bytes> {
        let missing = self.missing();
        if matches!(self.format, Format::Text(_)) {
            return (missing > 0).then(|| self.writer.remark(&not_arrived(missing)));
        }
        let known = self.follow == Follow::Yes || matches!(self.end, LogEnd::At(_) | LogEnd::Unknown);
        let mut line = json!({"kind": "end", "position": self.position, "ended": known && missing == 0});
        if missing > 0 {
            line["missing"] = json!(missing);
        }
        let line = line.to_string();
        Some(match self.format {
            Format::Records => records::frame(line.as_bytes(), 0).unwrap_or_default().into(),
            _ => Bytes::from(line + "\n"),
        })
    }
}
