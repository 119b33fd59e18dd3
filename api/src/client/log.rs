//! The output of an Execution, record by record: with the bytes as they are, or as JSON by an older operator.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use sentinel_protocol::log::{DropReason, Stream};
use serde::Deserialize;

use super::Client;
use super::error::ClientError;
use super::frames::Frames;
use super::lines::Lines;
use crate::decode::{self, ShapeError};
use crate::path::Query;
use crate::records::MEDIA_TYPE;

/// Frames; an operator that does not know them sends JSON, and so does every server with an error.
const ACCEPTED: &str = "application/vnd.sentinelnode.records, application/json;q=0.9, */*;q=0.8";

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
        /// The bytes: of a record, or of as much of one as has arrived.
        data: Bytes,
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
pub struct Log {
    parts: Parts,
    /// The position that it begins at, where the server names it.
    pub begins_at: Option<u64>,
}

#[derive(Debug)]
enum Parts {
    Frames(Frames),
    Lines(Lines),
}

/// The head of a part, which is all of it where the log is JSON.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Head {
    pub(super) kind: String,
    pub(super) stream: Option<Stream>,
    #[serde(default)]
    pub(super) position: u64,
    #[serde(default)]
    pub(super) len: u64,
    #[serde(default)]
    pub(super) at_micros: i64,
    /// The bytes in base64, where they are not behind it.
    data: Option<String>,
    pub(super) dropped: Option<DropReason>,
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
    pub async fn log(&self, path: &str, wanted: LogQuery) -> Result<Log, ClientError> {
        let response = self.send_accepting(&wanted.query("json").of(path), ACCEPTED).await?;
        let begins_at = begins_at(&response);
        let is_framed = response.headers().get(CONTENT_TYPE).is_some_and(|value| value == MEDIA_TYPE);
        let (server, body) = (self.server().clone(), response.into_body());
        let parts = if is_framed {
            Parts::Frames(Frames::new(server, body))
        } else {
            Parts::Lines(Lines::new(server, body))
        };
        Ok(Log { parts, begins_at })
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

impl Log {
    /// The next parts, as far as they have arrived; none when the stream ended before the log did, and must be opened again.
    /// Cancel safe.
    ///
    /// # Errors
    /// [`ClientError`] when the stream breaks, or a record is not of the expected shape.
    pub async fn next(&mut self) -> Result<Vec<LogItem>, ClientError> {
        match &mut self.parts {
            Parts::Frames(frames) => frames.next().await,
            Parts::Lines(lines) => loop {
                let Some(text) = lines.next().await? else { return Ok(Vec::new()) };
                let item = item(text.as_bytes()).map_err(|shape| ClientError::Shape {
                    server: lines.server().clone(),
                    what: "a record of a log".to_owned(),
                    shape: Box::new(shape),
                })?;
                if let Some(item) = item {
                    return Ok(vec![item]);
                }
            },
        }
    }
}

impl Head {
    /// The part of a log that has no bytes; `None` for a kind of a newer server.
    pub(super) fn item(&self) -> Option<LogItem> {
        let end = self.position.saturating_add(self.len);
        match (self.kind.as_str(), self.stream, self.dropped) {
            ("record", Some(stream), Some(why)) => Some(LogItem::Hole { stream, len: self.len, why, end }),
            ("end", _, _) if self.ended => Some(LogItem::End),
            ("end", _, _) => Some(LogItem::Pause { missing: self.missing }),
            _ => None,
        }
    }
}

/// The part of a log in a line; `None` for a kind of a newer server.
fn item(text: &[u8]) -> Result<Option<LogItem>, ShapeError> {
    let head: Head = decode::slice(text)?;
    let (Some(stream), "record", None) = (head.stream, head.kind.as_str(), head.dropped) else {
        return Ok(head.item());
    };
    let data = STANDARD.decode(head.data.unwrap_or_default());
    let data = data.map_err(|error| ShapeError { field: "data".to_owned(), message: error.to_string() })?;
    let end = head.position.saturating_add(head.len);
    Ok(Some(LogItem::Bytes { stream, at_micros: head.at_micros, data: data.into(), end }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_what_is_asked_for_first() {
        assert!(ACCEPTED.starts_with(&format!("{MEDIA_TYPE}, ")));
    }

    #[test]
    fn unknown_kind_of_line_is_skipped_and_wrong_type_is_named() {
        assert!(item(br#"{"kind": "weather", "stream": "stdout"}"#).unwrap().is_none());
        let error = item(br#"{"kind": "record", "stream": "stdout", "position": "7"}"#).err().unwrap();
        assert_eq!(error.field, "position");
        let error = item(br#"{"kind": "record", "stream": "stdout", "data": "?"}"#).err().unwrap();
        assert_eq!(error.field, "data");
    }
}
