//! Log records in the form of an answer: plain text, one JSON object per line, or frames. Pure.
//!
//! As text, the bytes of a command are passed on unchanged. Missing bytes are a line of their own in their place, so that
//! nothing is missing silently, even after a line that the command had not ended. Consecutive holes are one line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use sentinel_api::records;
use sentinel_protocol::log::{DropReason, LogRecord, RecordHead, Stream};
use sentinel_protocol::time::UnixMillis;
use serde::Serialize;

use super::log_lines::LineWriter;

/// The media type of logs as text.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// The media type of logs with a JSON object a line.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// Data of a record from which on it is not copied into its frame, bytes. A reader is woken for each chunk of an answer: two for
/// each record would cost more than the copy.
const MIN_SHARED: usize = 128 << 10;

/// The form of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// The bytes themselves.
    Text(Timestamps),
    /// One [`JsonRecord`] a line.
    Json,
    /// The same with the bytes behind it ([`records`]).
    Records,
    /// One line of the log a line, as JSON.
    Lines,
}

/// Whether each line of text begins with its time by the node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timestamps {
    /// Each line begins with it.
    Shown,
    /// Lines are as the command wrote them.
    Hidden,
}

/// Formats the records of one log.
#[derive(Debug)]
pub(super) struct RecordWriter {
    format: Format,
    only: Option<Stream>,
    /// Whether the last byte ended a line; a record of either stream may follow.
    line_ended: bool,
    /// A hole that is not written yet: the next record may extend it.
    hole: Option<RecordHead>,
    /// Where lines are made of the records.
    lines: Option<LineWriter>,
    /// Data of the last frame.
    behind: Bytes,
}

/// A record as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonRecord {
    kind: &'static str,
    stream: Stream,
    position: u64,
    offset: u64,
    len: u64,
    at_micros: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<DropReason>,
}

impl Format {
    /// The media type, and how names of files end.
    pub(super) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Text(Timestamps::Hidden) => (TEXT, "log"),
            Self::Text(Timestamps::Shown) => (TEXT, "txt"),
            Self::Json | Self::Lines => (NDJSON, "jsonl"),
            Self::Records => (records::MEDIA_TYPE, "records"),
        }
    }

    /// Bytes of a record that are written at once: of empty lines, what is written takes many times as much.
    pub(super) fn at_once(self) -> u64 {
        match self {
            Self::Text(Timestamps::Hidden) | Self::Json | Self::Records => u64::MAX,
            Self::Text(Timestamps::Shown) | Self::Lines => 2 << 10,
        }
    }
}

impl RecordWriter {
    pub(super) fn new(format: Format, only: Option<Stream>) -> Self {
        Self { format, only, line_ended: true, hole: None, lines: None, behind: Bytes::new() }
    }

    pub(super) fn of_lines(lines: LineWriter) -> Self {
        Self { lines: Some(lines), ..Self::new(Format::Lines, None) }
    }

    /// The bytes of a record; empty when it is of another stream, or a hole that may grow.
    pub(super) fn write(&mut self, record: &LogRecord) -> Bytes {
        if let Some(lines) = &mut self.lines {
            return lines.write(record);
        }
        if self.only.is_some_and(|only| only != record.head.stream) {
            return Bytes::new();
        }
        match self.format {
            Format::Json => return json(record),
            Format::Records => return self.framed(record),
            Format::Text(_) if record.head.dropped.is_some() => return self.widen(&record.head),
            Format::Text(_) | Format::Lines => {}
        }
        let hole = self.flush();
        let text = if self.format == Format::Text(Timestamps::Shown) {
            self.with_timestamps(record)
        } else {
            self.line_ended = record.data.last() == Some(&b'\n');
            record.data.clone()
        };
        if hole.is_empty() { text } else { [hole, text].concat().into() }
    }

    /// A record as a frame; much data stands behind it, without a copy.
    fn framed(&mut self, record: &LogRecord) -> Bytes {
        let data = &record.data;
        let inline = if data.len() < MIN_SHARED { &data[..] } else { &[] };
        let head = serde_json::to_vec(&JsonRecord::of(record, None)).unwrap_or_default();
        let Some(mut frame) = records::frame(&head, inline.len()) else { return Bytes::new() };
        frame.extend_from_slice(inline);
        self.behind = data.slice(inline.len()..);
        frame.into()
    }

    /// What stands behind the bytes that were written last, if anything does.
    pub(super) fn behind(&mut self) -> Option<Bytes> {
        Some(std::mem::take(&mut self.behind)).filter(|bytes| !bytes.is_empty())
    }

    /// Whether a hole is pending.
    pub(super) fn is_holding(&self) -> bool {
        self.hole.is_some()
    }

    /// A line that is not of the command, at the end of a text.
    pub(super) fn remark(&mut self, line: &str) -> Bytes {
        let begin = if self.line_ended { "" } else { "\n" };
        self.line_ended = true;
        Bytes::from(format!("{begin}{line}\n"))
    }

    /// The pending hole, or the lines that have not ended.
    pub(super) fn flush(&mut self) -> Bytes {
        if let Some(lines) = self.lines.take() {
            return lines.finish();
        }
        let Some(hole) = self.hole.take() else { return Bytes::new() };
        let mut text = BytesMut::new();
        if !self.line_ended {
            text.put_u8(b'\n');
        }
        if self.format == Format::Text(Timestamps::Shown) {
            text.put_slice(timestamp(hole.at_micros).as_bytes());
        }
        if let Some(why) = hole.dropped {
            text.put_slice(dropped_here(hole.len, why).as_bytes());
            text.put_u8(b'\n');
        }
        self.line_ended = true;
        text.freeze()
    }

    /// Extends the pending hole; returns it when the new one has another stream or cause.
    fn widen(&mut self, head: &RecordHead) -> Bytes {
        match &mut self.hole {
            Some(hole) if hole.stream == head.stream && hole.dropped == head.dropped => {
                hole.len = hole.len.saturating_add(head.len);
                Bytes::new()
            }
            _ => {
                let other = self.flush();
                self.hole = Some(*head);
                other
            }
        }
    }

    fn with_timestamps(&mut self, record: &LogRecord) -> Bytes {
        let time = timestamp(record.head.at_micros);
        let mut text = BytesMut::with_capacity(record.data.len() + record.data.len() / 2 + time.len());
        for line in record.data.split_inclusive(|byte| *byte == b'\n') {
            if self.line_ended {
                text.put_slice(time.as_bytes());
            }
            text.put_slice(line);
            self.line_ended = line.last() == Some(&b'\n');
        }
        text.freeze()
    }
}

/// A number of bytes in words.
pub(super) fn bytes(count: u64) -> String {
    if count == 1 { "1 byte".to_owned() } else { format!("{count} bytes") }
}

/// What stands in place of missing bytes.
pub(super) fn dropped_here(len: u64, why: DropReason) -> String {
    format!("[sentinel: {} dropped here: {}]", bytes(len), why.as_str())
}

fn json(record: &LogRecord) -> Bytes {
    let data = record.head.dropped.is_none().then(|| STANDARD.encode(&record.data));
    let mut text = serde_json::to_vec(&JsonRecord::of(record, data)).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

impl JsonRecord {
    fn of(record: &LogRecord, data: Option<String>) -> Self {
        let RecordHead { stream, position, offset, len, at_micros, dropped } = record.head;
        Self { kind: "record", stream, position, offset, len, at_micros, data, dropped }
    }
}

/// A time by the node's clock, to the microsecond in UTC, and a space.
pub(super) fn timestamp(at_micros: i64) -> String {
    jiff::Timestamp::from_microsecond(at_micros)
        .map_or_else(|_| "? ".to_owned(), |time| format!("{time:.6} "))
}

/// A time in RFC 3339, in UTC; `None` outside the years that RFC 3339 has.
pub(super) fn rfc3339(at: UnixMillis) -> Option<String> {
    jiff::Timestamp::from_millisecond(at.0).ok().map(|time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    fn record(stream: Stream, data: &'static [u8]) -> LogRecord {
        let head = RecordHead {
            stream,
            position: 0,
            offset: 0,
            len: data.len() as u64,
            at_micros: 1_700_000_000_000_001,
            dropped: None,
        };
        LogRecord { head, data: Bytes::from_static(data) }
    }

    fn hole(len: u64) -> LogRecord {
        let mut hole = record(Stream::Stdout, b"");
        hole.head.len = len;
        hole.head.dropped = Some(DropReason::LimitReached);
        hole
    }

    fn written(format: Format, only: Option<Stream>, records: &[LogRecord]) -> String {
        let mut writer = RecordWriter::new(format, only);
        let mut bytes: Vec<u8> = records.iter().flat_map(|record| writer.write(record).to_vec()).collect();
        bytes.extend_from_slice(&writer.flush());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_is_the_output_unchanged() {
        let records =
            [record(Stream::Stdout, b"a\nb"), record(Stream::Stderr, b"!"), record(Stream::Stdout, b"c\n")];
        assert_eq!(written(Format::Text(Timestamps::Hidden), None, &records), "a\nb!c\n");
        assert_eq!(written(Format::Text(Timestamps::Hidden), Some(Stream::Stdout), &records), "a\nbc\n");
    }

    #[test]
    fn hole_is_a_line_of_its_own() {
        let records = [record(Stream::Stdout, b"half"), hole(7), record(Stream::Stdout, b"next\n")];
        let expected = "half\n[sentinel: 7 bytes dropped here: output.limit was reached]\nnext\n";
        assert_eq!(written(Format::Text(Timestamps::Hidden), None, &records), expected);
    }

    #[test]
    fn consecutive_holes_of_one_cause_are_one_line() {
        let mut unreadable = hole(1);
        unreadable.head.dropped = Some(DropReason::Unreadable);
        let records = [hole(7), hole(5), record(Stream::Stdout, b"x\n"), hole(2), unreadable];
        let text = written(Format::Text(Timestamps::Hidden), None, &records);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(
            lines[0].contains(" 12 bytes") && lines[2].contains(" 2 bytes") && lines[3].contains(" 1 byte "),
            "{text}"
        );
    }

    #[test]
    fn each_line_has_the_time_of_its_first_byte() {
        let records = [record(Stream::Stdout, b"a\nb"), record(Stream::Stdout, b"c\nd\n")];
        let time = "2023-11-14T22:13:20.000001Z";
        let expected = format!("{time} a\n{time} bc\n{time} d\n");
        assert_eq!(written(Format::Text(Timestamps::Shown), None, &records), expected);
    }

    #[test]
    fn frame_has_the_bytes_as_they_are_and_a_hole_has_none() {
        let mut writer = RecordWriter::new(Format::Records, Some(Stream::Stdout));
        let long: &'static [u8] = vec![0xff; MIN_SHARED].leak();
        let mut read = Vec::new();
        for record in [
            record(Stream::Stdout, b"\xff\n"),
            record(Stream::Stderr, b"no"),
            hole(9),
            record(Stream::Stdout, long),
        ] {
            read.extend_from_slice(&writer.write(&record));
            read.extend_from_slice(&writer.behind().unwrap_or_default());
        }
        assert!(writer.behind().is_none() && writer.flush().is_empty());
        let (mut rest, mut found) = (&read[..], Vec::new());
        while let [high, low, behind @ ..] = rest {
            let (head, behind) = behind.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            let head: serde_json::Value = serde_json::from_slice(head).unwrap();
            let len = if head["dropped"].is_null() { head["len"].as_u64().unwrap() as usize } else { 0 };
            found.push((head["dropped"].as_str().map(str::to_owned), &behind[..len]));
            assert!(head.get("data").is_none());
            rest = &behind[len..];
        }
        assert!(found == [(None, &b"\xff\n"[..]), (Some("limitReached".to_owned()), b""), (None, long)]);
    }

    #[test]
    fn json_has_the_bytes_in_base64_and_a_hole_has_none() {
        let text = written(Format::Json, None, &[record(Stream::Stderr, b"\xff\n"), hole(9)]);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines[0]["stream"].as_str(), lines[0]["data"].as_str()), (Some("stderr"), Some("/wo=")));
        assert_eq!((lines[1]["dropped"].as_str(), lines[1].get("data")), (Some("limitReached"), None));
    }
}
