//! The output of an Execution, record by record: with the bytes as they are, or as JSON by an older operator.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use sentinel_protocol::log::Stream;

use super::Client;
use super::error::ClientError;
use super::frames::Frames;
use super::lines::Lines;
use super::log_item::{Head, LogItem};
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
