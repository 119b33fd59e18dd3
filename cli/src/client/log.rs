//! The output of an Execution, record by record.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use sentinel_protocol::log::{DropReason, Stream};
use serde::Deserialize;

use super::stream::Lines;
use super::{Client, Query};
use crate::exit::Failure;

/// Which part of a log.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LogQuery {
    /// Whether to go on until the Attempt has ended.
    pub(crate) follow: bool,
    /// First position.
    pub(crate) from: u64,
    /// Only this stream.
    pub(crate) stream: Option<Stream>,
    /// Of which Attempt; without it, of the latest.
    pub(crate) attempt: Option<u32>,
    /// Only so many last lines.
    pub(crate) tail: Option<u32>,
    /// Only what was written since.
    pub(crate) since: Option<Since>,
}

/// A moment by the node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// So long ago, when the server reads it.
    Ago(std::time::Duration),
    /// This one.
    At(jiff::Timestamp),
}

impl std::fmt::Display for Since {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ago(span) => write!(f, "{}ms", span.as_millis()),
            Self::At(time) => write!(f, "{time}"),
        }
    }
}

/// A part of a log.
#[derive(Debug)]
pub(crate) enum LogItem {
    /// Bytes.
    Bytes {
        /// Which stream.
        stream: Stream,
        /// When they were written, by the node's clock, microseconds since the Unix epoch.
        at_micros: i64,
        /// The bytes.
        data: Vec<u8>,
        /// Position behind them.
        end: u64,
    },
    /// Bytes that are missing here.
    Hole {
        /// Which stream.
        stream: Stream,
        /// How many.
        len: u64,
        /// Why.
        why: DropReason,
        /// Position behind them.
        end: u64,
    },
    /// There is no more, and will be none.
    End,
    /// There is no more for now.
    Pause {
        /// Bytes of a log that is over that its node still holds; 0 while it goes on.
        missing: u64,
    },
}

/// A log being read.
#[derive(Debug)]
pub(crate) struct LogLines {
    lines: Lines,
    /// The position that it begins at, where the server names it.
    pub(crate) begins_at: Option<u64>,
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
    pub(crate) async fn log(&self, path: &str, wanted: LogQuery) -> Result<LogLines, Failure> {
        let mut query = Query::default();
        query.add("format", "json");
        query.add("from", wanted.from);
        if wanted.follow {
            query.add("follow", true);
        }
        query.maybe("stream", wanted.stream.map(Stream::as_str));
        query.maybe("attempt", wanted.attempt);
        query.maybe("tail", wanted.tail);
        query.maybe("since", wanted.since);
        let response = self.send(Method::GET, &query.of(path), None).await?;
        let begins_at = response.headers().get("sentinel-log-from");
        let begins_at = begins_at.and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(LogLines { lines: Lines::new(response.into_body()), begins_at })
    }
}

impl LogLines {
    /// The next part; `None` when the stream ended before the log did, so that it must be asked for again.
    pub(crate) async fn next(&mut self) -> Result<Option<LogItem>, Failure> {
        loop {
            let Some(text) = self.lines.next().await? else { return Ok(None) };
            let unreadable =
                |error: &dyn std::fmt::Display| Failure::new(format!("unreadable record of a log: {error}"));
            let line: Line = serde_json::from_str(&text).map_err(|error| unreadable(&error))?;
            let end = line.position.saturating_add(line.len);
            match (line.kind.as_str(), line.stream, line.dropped) {
                ("record", Some(stream), Some(why)) => {
                    return Ok(Some(LogItem::Hole { stream, len: line.len, why, end }));
                }
                ("record", Some(stream), None) => {
                    let data =
                        STANDARD.decode(line.data.unwrap_or_default()).map_err(|error| unreadable(&error))?;
                    return Ok(Some(LogItem::Bytes { stream, at_micros: line.at_micros, data, end }));
                }
                ("end", _, _) => {
                    let pause = LogItem::Pause { missing: line.missing };
                    return Ok(Some(if line.ended { LogItem::End } else { pause }));
                }
                // A kind of a newer server.
                _ => {}
            }
        }
    }
}
