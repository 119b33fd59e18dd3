//! The output of an Execution, or of all nodes of a Run by time, line by line: as it is now, or as it is written.

use http::Method;
use sentinel_protocol::log::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Client;
use super::error::ClientError;
use super::event_stream::EventStream;
use super::lines::Lines;
use super::log::{LogQuery, Since, begins_at};
use crate::decode::{self, ShapeError};
use crate::path::{self, Query};
use crate::view::{MergedItemView, MergedLinesView};

/// Some lines of a Run, of all nodes or some.
#[derive(Debug, Clone, Copy)]
pub struct LineSource<'a> {
    /// Uid of the Task.
    pub task_uid: &'a str,
    /// Number of the Run.
    pub run: u32,
    /// Only these nodes; all if empty.
    pub nodes: &'a [String],
    /// Only this stream.
    pub stream: Option<Stream>,
}

/// The end of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    /// `end`.
    pub kind: String,
    /// Position of the end, in the log of one Execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Whether nothing follows.
    #[serde(default)]
    pub ended: bool,
    /// Bytes that the node still holds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missing: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A part of an answer.
#[derive(Debug)]
pub enum LineLogItem {
    /// A line or a gap.
    Line(Box<MergedItemView>),
    /// The last part.
    End(LogEnd),
}

/// Lines as they are now.
#[derive(Debug)]
pub struct LineLog {
    lines: Lines,
    /// The Attempt that wrote them, where they are of one.
    pub attempt: Option<LineAttempt>,
    /// The position that the log of one Attempt is read from.
    pub begins_at: Option<u64>,
}

/// The Attempt whose lines do not name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineAttempt {
    /// Its node.
    pub node: String,
    /// Its number.
    pub attempt: u32,
}

/// Lines as they are written.
#[derive(Debug)]
pub struct LineEvents {
    stream: EventStream,
    attempt: Option<LineAttempt>,
}

/// An event of lines.
#[derive(Debug)]
pub enum LineEvent {
    /// Lines that are new or have changed, and new gaps.
    Lines {
        /// What [`Client::run_line_events`] and [`Client::line_events`] continue behind.
        id: String,
        /// A line with a known node, Attempt and number replaces the earlier one.
        lines: Vec<MergedItemView>,
    },
    /// The log has ended.
    End,
}

impl LineSource<'_> {
    fn path(&self, below: &str) -> String {
        format!("/api/v1/runs/{}/{}/{below}", path::escape(self.task_uid), self.run)
    }

    fn query(&self) -> Query {
        let mut query = Query::default();
        query.maybe("nodes", (!self.nodes.is_empty()).then(|| self.nodes.join(",")));
        query.maybe("stream", self.stream.map(Stream::as_str));
        query
    }
}

impl Client {
    /// The lines of a Run as they are now, by time.
    ///
    /// # Errors
    /// [`ClientError`], as every method of this client.
    pub async fn run_lines(&self, of: &LineSource<'_>, since: Option<Since>) -> Result<LineLog, ClientError> {
        let mut query = of.query();
        query.add("format", "jsonl");
        query.maybe("since", since);
        self.open_lines(&query.of(&of.path("log"))).await
    }

    /// The lines of the log at a path, as an Execution names it, as they are now.
    ///
    /// # Errors
    /// As [`Self::run_lines`].
    pub async fn log_lines(&self, path: &str, wanted: LogQuery) -> Result<LineLog, ClientError> {
        self.open_lines(&wanted.query("jsonl").of(path)).await
    }

    async fn open_lines(&self, path: &str) -> Result<LineLog, ClientError> {
        let response = self.send(Method::GET, path, None).await?;
        let named = response.headers().get("sentinel-attempt").and_then(|value| value.to_str().ok());
        let (attempt, begins_at) = (named.and_then(LineAttempt::named), begins_at(&response));
        Ok(LineLog { lines: Lines::new(self.server().clone(), response.into_body()), attempt, begins_at })
    }

    /// The id from which [`Self::run_line_events`] sends what was written since.
    ///
    /// # Errors
    /// As [`Self::run_lines`].
    pub async fn run_lines_since(&self, of: &LineSource<'_>, since: Since) -> Result<String, ClientError> {
        let mut query = of.query();
        query.add("since", since);
        query.add("count", 1);
        let window: MergedLinesView = self.get_as(&query.of(&of.path("lines"))).await?;
        Ok(window.before)
    }

    /// The lines of a Run as they are written: all, or those behind an event.
    ///
    /// # Errors
    /// As [`Self::run_lines`].
    pub async fn run_line_events(
        &self,
        of: &LineSource<'_>,
        after: Option<&str>,
    ) -> Result<LineEvents, ClientError> {
        self.open_events(&of.query().of(&of.path("lines/events")), None, after).await
    }

    /// The lines of an Execution at a path as they are written, of one Attempt: all, or those behind an event or a
    /// position, which is an id too.
    ///
    /// # Errors
    /// As [`Self::run_lines`].
    pub async fn line_events(
        &self,
        path: &str,
        attempt: &LineAttempt,
        stream: Option<Stream>,
        after: Option<&str>,
    ) -> Result<LineEvents, ClientError> {
        let mut query = Query::default();
        query.add("attempt", attempt.attempt);
        query.maybe("stream", stream.map(Stream::as_str));
        self.open_events(&query.of(&format!("{path}/lines/events")), Some(attempt.clone()), after).await
    }

    async fn open_events(
        &self,
        path: &str,
        attempt: Option<LineAttempt>,
        after: Option<&str>,
    ) -> Result<LineEvents, ClientError> {
        let response = self.send_resuming(path, after).await?;
        let lines = Lines::new(self.server().clone(), response.into_body());
        Ok(LineEvents { stream: EventStream::new(lines), attempt })
    }
}

impl LineAttempt {
    /// As the server names it: `TASK/RUN/NODE/ATTEMPT`.
    fn named(text: &str) -> Option<Self> {
        let mut parts = text.rsplit('/');
        let attempt = parts.next()?.parse().ok()?;
        Some(Self { attempt, node: parts.next()?.to_owned() })
    }
}

impl LineLog {
    /// The next parts, as far as they have arrived; none when the answer broke off before its end.
    ///
    /// # Errors
    /// [`ClientError`] when the answer breaks, or a part is not of the expected shape.
    pub async fn next(&mut self) -> Result<Vec<LineLogItem>, ClientError> {
        let mut items = Vec::new();
        while items.is_empty() || self.lines.has_line() {
            let Some(text) = self.lines.next().await? else { break };
            let item = item(&text, self.attempt.as_ref()).map_err(|shape| ClientError::Shape {
                server: self.lines.server().clone(),
                what: "a line of a log".to_owned(),
                shape: Box::new(shape),
            })?;
            items.extend(item);
        }
        Ok(items)
    }
}

impl LineEvents {
    /// The next event; `None` when the server ended the stream. Cancel safe.
    ///
    /// # Errors
    /// [`ClientError`] when the stream breaks, or an event is not of the expected shape.
    pub async fn next(&mut self) -> Result<Option<LineEvent>, ClientError> {
        while let Some(raw) = self.stream.next().await? {
            match raw.kind.as_str() {
                "lines" => {
                    let lines = lines(&raw.data, self.attempt.as_ref());
                    let lines = lines.map_err(|shape| ClientError::Shape {
                        server: self.stream.server().clone(),
                        what: "an event of lines".to_owned(),
                        shape: Box::new(shape),
                    })?;
                    return Ok(Some(LineEvent::Lines { id: raw.id, lines }));
                }
                "end" => return Ok(Some(LineEvent::End)),
                // Of a newer server.
                _ => {}
            }
        }
        Ok(None)
    }
}

/// The part of an answer in a line; `None` for a kind of a newer server.
fn item(text: &str, attempt: Option<&LineAttempt>) -> Result<Option<LineLogItem>, ShapeError> {
    let value: Value = decode::slice(text.as_bytes())?;
    match value["kind"].as_str() {
        Some("end") => decode::value(&value).map(|end| Some(LineLogItem::End(end))),
        Some(_) => Ok(None),
        None => line(value, attempt).map(|line| Some(LineLogItem::Line(Box::new(line)))),
    }
}

fn lines(text: &str, attempt: Option<&LineAttempt>) -> Result<Vec<MergedItemView>, ShapeError> {
    #[derive(Deserialize)]
    struct Data {
        lines: Vec<Value>,
    }
    let data: Data = decode::slice(text.as_bytes())?;
    data.lines.into_iter().map(|value| line(value, attempt)).collect()
}

/// A line or a gap, which names its node and Attempt only among those of other nodes.
fn line(mut value: Value, attempt: Option<&LineAttempt>) -> Result<MergedItemView, ShapeError> {
    if let (Some(object), Some(of)) = (value.as_object_mut(), attempt) {
        object.insert("node".to_owned(), json!(of.node));
        object.insert("attempt".to_owned(), json!(of.attempt));
    }
    decode::value(&value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::LineItemView;

    #[test]
    fn line_of_one_log_gets_the_node_and_attempt_of_the_answer() {
        let attempt = LineAttempt::named("uid/3/web-1.example/2").unwrap();
        assert_eq!((attempt.node.as_str(), attempt.attempt), ("web-1.example", 2));
        let text = r#"{"line": 1, "position": 0, "stream": "stdout", "atMicros": 7, "text": "a", "new": 1}"#;
        let Some(LineLogItem::Line(line)) = item(text, Some(&attempt)).unwrap() else { panic!("not a line") };
        assert_eq!((line.node.as_str(), line.attempt), ("web-1.example", 2));
        assert!(matches!(line.item, LineItemView::Line(_)));
        assert!(item(text, None).is_err(), "it names no node");
    }

    #[test]
    fn end_differs_from_a_kind_of_a_newer_server() {
        let text = r#"{"ended": false, "kind": "end", "missing": 3}"#;
        let Some(LineLogItem::End(end)) = item(text, None).unwrap() else { panic!("not an end") };
        assert_eq!((end.ended, end.missing, end.position), (false, 3, None));
        assert!(item(r#"{"kind": "weather"}"#, None).unwrap().is_none());
    }
}
