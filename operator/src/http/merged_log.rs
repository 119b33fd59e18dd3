//! The output of a Run as a file: the lines of all its nodes by time, as they are now.

use bytes::{BufMut as _, Bytes};
use futures_util::stream::{iter, unfold};
use futures_util::{StreamExt as _, TryStreamExt as _};
use sentinel_core::stream::window::WindowItem;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, BodyError};
use super::api::Api;
use super::error::ApiError;
use super::executions::unable;
use super::file_name::file_name;
use super::held_lines::HeldLines;
use super::line_view::item_view;
use super::lines::stream;
use super::log_text::{NDJSON, TEXT, Timestamps, dropped_here, timestamp};
use super::logs::{LogEnd, end, not_arrived, since};
use super::merged::{places, until};
use super::request::Query;
use super::run_logs::{FoundLogs, READ_AT_ONCE, RunLogs};
use crate::gateway::Registry;
use crate::logs::merged::{MergedItem, MergedLog, Merging};
use crate::server::Client;

/// Bytes that are sent at once.
const PIECE: usize = 64 << 10;

/// The form of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// The name of the node, and the line.
    Text(Timestamps),
    /// One `MergedItemView` a line.
    Json,
}

pub(super) async fn read(
    api: &Api,
    parts: &[String],
    query: &Query,
    client: Client,
) -> Result<Answer, ApiError> {
    let text = Format::Text(if query.is_set("timestamps")? { Timestamps::Shown } else { Timestamps::Hidden });
    let format = query.one_of("format", &[("text", text), ("jsonl", Format::Json)])?.unwrap_or(text);
    let (stream, times) = (stream(query)?, (since(api, query)?, until(query)?));
    let FoundLogs { task, logs, are_all } = RunLogs::of(api, parts, query)?.find().await?;
    let places = places(&api.merged, client, logs.len())?;
    let known = iter(logs.clone()).map(|log| async move { end(api, &log.attempt).await });
    let known: Vec<LogEnd> = known.buffered(READ_AT_ONCE).try_collect().await?;
    let merging = api.logs.merged_range(&api.clock, &logs, stream, times).await;
    let (merging, are_passed) = merging.map_err(|error| unable(&error.source))?;
    let end_of = |((log, end), is_passed)| (log, if is_passed { LogEnd::Unknown } else { end });
    let ends = logs.iter().cloned().zip(known).zip(are_passed).map(end_of).collect();
    let body = MergedBody {
        merging,
        held: HeldLines::default(),
        lines: LineText {
            format,
            width: logs.iter().map(|log| log.attempt.node.as_str().len()).max().unwrap_or(0),
        },
        ends,
        are_all,
        registry: api.registry.clone(),
        over: false,
        stop: api.stop.clone(),
    };
    let (content_type, extension) = match format {
        Format::Text(_) => (TEXT, "txt"),
        Format::Json => (NDJSON, "jsonl"),
    };
    let run = parts.get(1).map_or("", String::as_str);
    let stream = unfold(body, |mut body| async move { body.next().await.map(|item| (item, body)) });
    let name = file_name(&format!("{task}-{run}"), query, extension);
    Ok(Answer::stream(content_type, stream).saved_as(&name).holding(places))
}

/// The merged lines that are being sent.
struct MergedBody {
    merging: Merging,
    held: HeldLines,
    lines: LineText,
    /// What was known about the end of each log when they were requested; nothing of one that is not read to its end.
    ends: Vec<(MergedLog, LogEnd)>,
    /// Whether no other log begins.
    are_all: bool,
    registry: Registry,
    over: bool,
    stop: CancellationToken,
}

impl MergedBody {
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        if self.over {
            return None;
        }
        let stop = self.stop.clone();
        let piece = tokio::select! {
            piece = self.piece() => piece,
            // An error, so that it is not mistaken for the end of the logs.
            () = stop.cancelled() => Err("the operator is shutting down".into()),
        };
        if let Err(error) = &piece {
            self.over = true;
            tracing::warn!(%error, "failed to read the logs of a Run; their reader receives an incomplete answer");
        }
        match piece {
            Ok(bytes) if bytes.is_empty() => None,
            piece => Some(piece),
        }
    }

    /// The next bytes; at the end, the last ones or none.
    async fn piece(&mut self) -> Result<Bytes, BodyError> {
        let mut bytes = Vec::new();
        while bytes.len() < PIECE {
            let next = match self.merging.next_now()? {
                None if bytes.is_empty() => self.merging.next().await?,
                // Lines do not wait for those that are not read yet.
                None => return Ok(bytes.into()),
                item => item,
            };
            let Some(item) = next else {
                self.over = true;
                self.finish(&mut bytes);
                break;
            };
            self.add(&mut bytes, item);
        }
        Ok(bytes.into())
    }

    /// Adds a line, once it has ended or never will.
    fn add(&mut self, bytes: &mut Vec<u8>, item: MergedItem) {
        let (merging, lines) = (&self.merging, &self.lines);
        let write = |item| lines.write(bytes, item);
        self.held.add(item, merging.logs_ended(), |item| merging.is_final(item), write);
    }

    fn finish(&mut self, bytes: &mut Vec<u8>) {
        for item in self.held.take() {
            self.lines.write(bytes, item);
        }
        let mut all = 0;
        for (log, end) in &self.ends {
            let missing = self.missing(log, *end);
            all += missing;
            if missing > 0 && self.lines.format != Format::Json {
                self.lines.begin(bytes, log.attempt.node.as_str(), '|', None);
                bytes.put_slice(not_arrived(missing).as_bytes());
                bytes.push(b'\n');
            }
        }
        if self.lines.format == Format::Json {
            let is_over = |(_, end): &(MergedLog, LogEnd)| *end != LogEnd::Open;
            let ended = self.are_all && all == 0 && self.ends.iter().all(is_over);
            let mut line = json!({"kind": "end", "ended": ended});
            if all > 0 {
                line["missing"] = json!(all);
            }
            bytes.put_slice(format!("{line}\n").as_bytes());
        }
    }

    /// Bytes that the node still holds, or held, and that have not arrived.
    fn missing(&self, log: &MergedLog, end: LogEnd) -> u64 {
        match end {
            LogEnd::At(end) if !self.registry.is_released(&log.attempt) => {
                end.saturating_sub(self.merging.position(log).unwrap_or_default())
            }
            _ => 0,
        }
    }
}

/// Writes lines.
struct LineText {
    format: Format,
    /// Length of the longest name of a node, which is ASCII.
    width: usize,
}

impl LineText {
    fn write(&self, bytes: &mut Vec<u8>, item: MergedItem) {
        if self.format == Format::Json {
            if let Ok(text) = serde_json::to_vec(&item_view(item)) {
                bytes.extend_from_slice(&text);
            }
        } else {
            let node = item.log.attempt.node.as_str();
            match &item.item {
                WindowItem::Line(line) => {
                    let separator = if line.continues { '+' } else { '|' };
                    self.begin(bytes, node, separator, Some(item.at_micros));
                    bytes.extend_from_slice(&line.text);
                }
                WindowItem::Gap { len, reason, .. } => {
                    self.begin(bytes, node, '|', None);
                    bytes.extend_from_slice(dropped_here(*len, *reason).as_bytes());
                }
            }
        }
        bytes.push(b'\n');
    }

    fn begin(&self, bytes: &mut Vec<u8>, node: &str, separator: char, at_micros: Option<i64>) {
        bytes.extend_from_slice(format!("{node:width$} {separator} ", width = self.width).as_bytes());
        if let (Format::Text(Timestamps::Shown), Some(at)) = (self.format, at_micros) {
            let time = if at == 0 { "? ".to_owned() } else { timestamp(at) };
            bytes.extend_from_slice(time.as_bytes());
        }
    }
}
