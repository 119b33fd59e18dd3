//! Line numbers of a log.
//!
//! Lines are numbered from 1 in the order in which they *begin*, over both streams. A line ends at a newline of its own
//! stream, or where output of its stream was dropped. One longer than [`LINE_PART`] counts as several, so that a reader
//! never has to hold or to find more than that.
//!
//! The lines of a part of a log are counted without knowing what precedes it ([`LineCount`]) and added up later
//! ([`LineMark::after`]), so that segments of an archive can be counted when they are written, in any order.

use sentinel_protocol::log::{LogRecord, Stream};
use serde::{Deserialize, Serialize};

/// Most bytes of a line, without its newline; the rest counts as further lines.
pub const LINE_PART: u64 = 64 << 10;

/// What ends a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum LineEnd {
    #[serde(rename = "n")]
    Newline,
    #[serde(rename = "g")]
    Gap,
}

/// The lines of one stream in a part of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct StreamCount {
    /// Bytes before the first end of a line; all bytes if there is none.
    #[serde(rename = "h")]
    head: u64,
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    first_end: Option<LineEnd>,
    /// Lines that begin after it.
    #[serde(rename = "l")]
    lines: u64,
    /// Bytes of the line that is open at the end; meaningless without an end of a line.
    #[serde(rename = "t")]
    tail: u64,
}

/// Lines that begin when bytes are added to a line of that length.
fn begun(open: u64, bytes: u64) -> u64 {
    (open + bytes).div_ceil(LINE_PART) - open.div_ceil(LINE_PART)
}

impl StreamCount {
    fn bytes(&mut self, count: u64) {
        if self.first_end.is_none() {
            self.head += count;
        } else {
            self.lines += begun(self.tail, count);
            self.tail += count;
        }
    }

    fn end(&mut self, end: LineEnd) {
        if self.first_end.is_none() {
            self.first_end = Some(end);
        } else if end == LineEnd::Newline && self.tail == 0 {
            self.lines += 1;
        }
        self.tail = 0;
    }

    /// Newlines are counted and not visited: there may be one in every second byte, in each gigabyte that is archived.
    fn add(&mut self, data: &[u8]) {
        for part in data.chunks(LINE_PART as usize) {
            let first = memchr::memchr(b'\n', part);
            let (Some(first), Some(last)) = (first, memchr::memrchr(b'\n', part)) else {
                self.bytes(part.len() as u64);
                continue;
            };
            self.bytes(first as u64);
            self.end(LineEnd::Newline);
            // Each newline between them ends one line; a part of this size has no line that needs two numbers.
            self.lines += memchr::memchr_iter(b'\n', &part[first + 1..=last]).count() as u64;
            self.bytes((part.len() - last - 1) as u64);
        }
    }
}

/// The lines of a part of a log, whatever precedes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineCount {
    #[serde(rename = "o")]
    stdout: StreamCount,
    #[serde(rename = "e")]
    stderr: StreamCount,
    /// When the first record was written, by the node's clock, microseconds since the Unix epoch; 0 if unknown.
    #[serde(rename = "at", default)]
    pub at_micros: i64,
}

impl LineCount {
    /// Counts records that follow one another.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a LogRecord>) -> Self {
        let mut count = Self::default();
        for record in records {
            count.add(record);
        }
        count
    }

    /// Adds the record that follows.
    pub fn add(&mut self, record: &LogRecord) {
        if self.at_micros == 0 {
            self.at_micros = record.head.at_micros;
        }
        let stream = match record.head.stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if record.head.dropped.is_some() {
            stream.end(LineEnd::Gap);
        } else {
            stream.add(&record.data);
        }
    }
}

/// The lines of one stream before a position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamMark {
    /// Lines that begin before it.
    pub lines: u64,
    /// Bytes of the line that is open there; 0 where a line begins.
    pub open: u64,
}

impl StreamMark {
    fn after(self, count: &StreamCount) -> Self {
        let lines = self.lines + begun(self.open, count.head);
        let open = self.open + count.head;
        match count.first_end {
            None => Self { lines, open },
            Some(end) => {
                let empty = u64::from(end == LineEnd::Newline && open == 0);
                Self { lines: lines + empty + count.lines, open: count.tail }
            }
        }
    }
}

/// The lines of a log before a position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LineMark {
    /// Of standard output.
    pub stdout: StreamMark,
    /// Of standard error.
    pub stderr: StreamMark,
}

impl LineMark {
    /// The mark behind a part of the log that begins at this one.
    #[must_use]
    pub fn after(self, count: &LineCount) -> Self {
        Self { stdout: self.stdout.after(&count.stdout), stderr: self.stderr.after(&count.stderr) }
    }

    /// Lines that begin before it: of one stream, or of both.
    pub fn lines(&self, stream: Option<Stream>) -> u64 {
        match stream {
            Some(Stream::Stdout) => self.stdout.lines,
            Some(Stream::Stderr) => self.stderr.lines,
            None => self.stdout.lines + self.stderr.lines,
        }
    }

    /// The mark of one stream.
    pub fn of_stream(&self, stream: Stream) -> StreamMark {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }

    /// The mark of one stream, to be changed.
    pub(super) fn of(&mut self, stream: Stream) -> &mut StreamMark {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}
