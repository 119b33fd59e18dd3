//! The output of an Execution, record by record.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use sentinel_protocol::log::{DropReason, Stream};
use serde::Deserialize;

use super::Client;
use super::error::ClientError;
use super::lines::Lines;
use crate::decode::{self, ShapeError};
use crate::path::Query;

/// Which part of a log.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogQuery {
    /// Whether to continue until the Attempt has ended.
    pub follow: bool,
    /// First position.
    pub from: u64,
    /// Only this stream.
    pub stream: Option<Stream>,
    /// Number of the Attempt; the latest by default.
    pub attempt: Option<u32>,
    /// Only the last lines, this many.
    pub tail: Option<u32>,
    /// Only what was written since.
    pub since: Option<Since>,
}

/// A time by the node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// This long before the server receives the request.
    Ago(std::time::Duration),
    /// This time.
    At(jiff::Timestamp),
}

impl std::fmt::Display for Since {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ago(ago) => write!(f, "{}ms", ago.as_millis()),
            Self::At(time) => write!(f, "{time}"),
        }
    }
}

/// A part of a log.
#[derive(Debug)]
pub enum LogItem {
    /// Bytes of output.
    Bytes {
        /// Which stream.
        stream: Stream,
        /// When they were written, by the node's clock, microseconds since the Unix epoch.
        at_micros: i64,
        /// The bytes.
        data: Vec<u8>,
        /// Position after them.
        end: u64,
    },
    /// Bytes that are missing here.
    Hole {
        /// Which stream.
        stream: Stream,
        /// Their number.
        len: u64,
        /// Why.
        why: DropReason,
        /// Position after them.
        end: u64,
    },
    /// The log is complete.
    End,
    /// The log ends here for now.
    Pause {
        /// Bytes of a finished log that its node still holds; 0 while the Attempt is active.
        missing: u64,
    },
}

/// A log being read.
#[derive(Debug)]
pub struct LogLines {
    lines: Lines,
    /// The position that it begins at, where the server names it.
    pub begins_at: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    kind: String,
    stream: Option<Stream>,
    #[serde(default)]
    position: u64,
    #[serde(default)]
    len: u64,
    #[serde(default)]
    at_micros: i64,
    data: Option<String>,
    dropped: Option<DropReason>,
    #[serde(default)]
    ended: bool,
    #[serde(default)]
    missing: u64,
}

impl Client {
    /// The log at a path, as an Execution names it.
    ///
    /// # Errors
    /// [`ClientError`] when it cannot be opened.
    pub async fn log(&self, path: &str, wanted: LogQuery) -> Result<LogLines, ClientError> {
        let response = self.send(Method::GET, &wanted.query("json").of(path), None).await?;
        let begins_at = begins_at(&response);
        Ok(LogLines { lines: Lines::new(self.server().clone(), response.into_body()), begins_at })
    }
}

impl LogQuery {
    pub(super) fn query(&self, format: &str) -> Query {
        let mut query = Query::default();
        query.add("format", format);
        query.add("from", self.from);
        if self.follow {
            query.add("follow", true);
        }
        query.maybe("stream", self.stream.map(Stream::as_str));
        query.maybe("attempt", self.attempt);
        query.maybe("tail", self.tail);
        query.maybe("since", self.since);
        query
    }
}

/// The position that an answer begins at, where the server names it.
pub(super) fn begins_at<T>(response: &http::Response<T>) -> Option<u64> {
    response.headers().get("sentinel-log-from")?.to_str().ok()?.parse().ok()
}

impl LogLines {
    /// The next part; `None` when the stream ended before the log did, and must be opened again. Cancel safe.
    ///
    /// # Errors
    /// [`ClientError`] when the stream breaks, or a record is not of the expected shape.
    pub async fn next(&mut self) -> Result<Option<LogItem>, ClientError> {
        loop {
            let Some(text) = self.lines.next().await? else { return Ok(None) };
            let item = item(text.as_bytes()).map_err(|shape| ClientError::Shape {
                server: self.lines.server().clone(),
                what: "a record of a log".to_owned(),
                shape: Box::new(shape),
            })?;
            if item.is_some() {
                return Ok(item);
            }
        }
    }
}

/// The part of a log in a line; `None` for a kind of a newer server.
fn item(text: &[u8]) -> Result<Option<LogItem>, ShapeError> {
    let line: Line = decode::slice(text)?;
    let end = line.position.saturating_add(line.len);
    Ok(match (line.kind.as_str(), line.stream, line.dropped) {
        ("record", Some(stream), Some(why)) => Some(LogItem::Hole { stream, len: line.len, why, end }),
        ("record", Some(stream), None) => {
            let data = STANDARD.decode(line.data.unwrap_or_default());
            let data =
                data.map_err(|error| ShapeError { field: "data".to_owned(), message: error.to_string() })?;
            Some(LogItem::Bytes { stream, at_micros: line.at_micros, data, end })
        }
        ("end", _, _) if line.ended => Some(LogItem::End),
        ("end", _, _) => Some(LogItem::Pause { missing: line.missing }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_kind_of_line_is_skipped_and_wrong_type_is_named() {
        assert!(item(br#"{"kind": "weather", "stream": "stdout"}"#).unwrap().is_none());
        let error = item(br#"{"kind": "record", "stream": "stdout", "position": "7"}"#).err().unwrap();
        assert_eq!(error.field, "position");
        let error = item(br#"{"kind": "record", "stream": "stdout", "data": "?"}"#).err().unwrap();
        assert_eq!(error.field, "data");
    }
}
