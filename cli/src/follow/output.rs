//! How the output of a node leaves us: as text for people, or as one JSON object a line for programs.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use sentinel_protocol::log::{DropReason, Stream};
use serde_json::{Value, json};

use crate::output::printer::{Prefix, Printer};
use crate::output::sink::print_json_line;

/// The form of what is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Form {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the output of one node goes.
#[derive(Debug)]
pub(super) enum Output {
    /// To our two streams, as the command wrote it to its own.
    Text { printer: Box<Printer>, clock: Option<Timestamps> },
    /// To standard output.
    Json(Objects),
}

impl Output {
    pub(super) fn text(prefix: Prefix, timestamps: bool) -> Self {
        Self::Text { printer: Box::new(Printer::new(prefix)), clock: timestamps.then(Timestamps::default) }
    }

    pub(super) fn json(node: String) -> Self {
        Self::Json(Objects { node, attempt: 1, cut: [Vec::new(), Vec::new()] })
    }

    /// Bytes that the command wrote.
    pub(super) fn bytes(&mut self, stream: Stream, at_micros: i64, data: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Text { printer, clock: Some(clock) } => {
                printer.bytes(stream, &clock.before_each_line(stream, at_micros, data))
            }
            Self::Text { printer, clock: None } => printer.bytes(stream, data),
            Self::Json(objects) => objects.bytes(stream, at_micros, data),
        }
    }

    /// Bytes that are missing here.
    pub(super) fn dropped(&mut self, stream: Stream, len: u64, why: DropReason) -> std::io::Result<()> {
        match self {
            Self::Text { printer, clock } => {
                if let Some(clock) = clock {
                    clock.at_line_start(stream);
                }
                printer.remark(stream, &format!("[sentinel: {len} bytes dropped here: {}]", why.as_str()))
            }
            Self::Json(objects) => objects.dropped(stream, len, why),
        }
    }

    /// The next Attempt begins.
    pub(super) fn attempt(&mut self, number: u32) -> std::io::Result<()> {
        match self {
            Self::Text { printer, clock } => {
                if let Some(clock) = clock {
                    *clock = Timestamps::default();
                }
                printer.remark(Stream::Stderr, &format!("[sentinel: attempt {number}]"))
            }
            Self::Json(objects) => {
                objects.finish()?;
                objects.attempt = number;
                Ok(())
            }
        }
    }

    /// How long nothing must come until [`Output::pause`] is due; `None` when nothing is held back.
    pub(super) fn pause_after(&self) -> Option<Duration> {
        match self {
            Self::Text { printer, .. } => printer.pause_after(),
            Self::Json(_) => None,
        }
    }

    /// Shows what is held back, because nothing has come for a moment.
    pub(super) fn pause(&mut self) -> std::io::Result<()> {
        match self {
            Self::Text { printer, .. } => printer.pause(),
            Self::Json(_) => Ok(()),
        }
    }

    /// Shows what is held back, because no more comes.
    pub(super) fn finish(&mut self) -> std::io::Result<()> {
        match self {
            Self::Text { printer, .. } => printer.finish(),
            Self::Json(objects) => objects.finish(),
        }
    }
}

/// Output as JSON objects. The texts of a node's stream put together are what the command wrote.
#[derive(Debug)]
pub(super) struct Objects {
    node: String,
    attempt: u32,
    /// The beginning of a character that the last piece of each stream ended with, and its time.
    cut: [Vec<u8>; 2],
}

impl Objects {
    fn bytes(&mut self, stream: Stream, at_micros: i64, data: &[u8]) -> std::io::Result<()> {
        let bytes = [std::mem::take(&mut self.cut[lane(stream)]), data.to_vec()].concat();
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            // Valid up to a character that has only begun.
            Err(error) if error.error_len().is_none() => {
                let (whole, begun) = bytes.split_at(error.valid_up_to());
                self.cut[lane(stream)] = begun.to_vec();
                std::str::from_utf8(whole).unwrap_or_default()
            }
            Err(_) => return self.line(stream, Some(at_micros), "base64", &STANDARD.encode(&bytes)),
        };
        if text.is_empty() { Ok(()) } else { self.line(stream, Some(at_micros), "text", text) }
    }

    fn dropped(&mut self, stream: Stream, len: u64, why: DropReason) -> std::io::Result<()> {
        self.finish()?;
        print_json_line(&json!({
            "type": "dropped",
            "node": self.node,
            "attempt": self.attempt,
            "stream": stream.as_str(),
            "bytes": len,
            "reason": why,
        }))
    }

    /// What is left is the beginning of a character that never got its end.
    fn finish(&mut self) -> std::io::Result<()> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.cut[lane(stream)]);
            if !rest.is_empty() {
                self.line(stream, None, "base64", &STANDARD.encode(rest))?;
            }
        }
        Ok(())
    }

    fn line(&self, stream: Stream, at: Option<i64>, form: &str, content: &str) -> std::io::Result<()> {
        let mut line = json!({
            "type": "output",
            "node": self.node,
            "attempt": self.attempt,
            "stream": stream.as_str(),
            form: content,
        });
        if let Some(at) = at {
            line["time"] = Value::String(time(at));
        }
        print_json_line(&line)
    }
}

/// A node's time to the microsecond, in UTC.
fn time(at_micros: i64) -> String {
    Timestamp::from_microsecond(at_micros).map_or_else(|_| "?".to_owned(), |time| format!("{time:.6}"))
}

/// Puts the node's time before each line, also when a line comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Timestamps {
    inside: [bool; 2],
}

impl Timestamps {
    fn before_each_line(&mut self, stream: Stream, at_micros: i64, data: &[u8]) -> Vec<u8> {
        let time = time(at_micros);
        let inside = &mut self.inside[lane(stream)];
        let mut text = Vec::with_capacity(data.len() + 32);
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            if !*inside {
                text.extend_from_slice(time.as_bytes());
                text.push(b' ');
            }
            text.extend_from_slice(line);
            *inside = !line.ends_with(b"\n");
        }
        text
    }

    fn at_line_start(&mut self, stream: Stream) {
        self.inside[lane(stream)] = false;
    }
}

/// Bytes that are missing, until it is known that no more are missing right behind them: many drops in a row are one
/// marker.
#[derive(Debug, Default)]
pub(super) struct Drops([Option<(u64, DropReason)>; 2]);

impl Drops {
    /// Adds to what is missing; gives what has to be shown first.
    pub(super) fn add(&mut self, stream: Stream, len: u64, why: DropReason) -> Option<(u64, DropReason)> {
        let place = &mut self.0[lane(stream)];
        match place {
            Some((total, reason)) if *reason == why => {
                *total = total.saturating_add(len);
                None
            }
            _ => place.replace((len, why)),
        }
    }

    /// Whether something is missing that was not shown.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// What is missing and was not shown.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Stream, u64, DropReason)> + use<> {
        let [stdout, stderr] = std::mem::take(&mut self.0);
        let of = |stream, drop: Option<(u64, DropReason)>| drop.map(|(len, why)| (stream, len, why));
        [of(Stream::Stdout, stdout), of(Stream::Stderr, stderr)].into_iter().flatten()
    }
}

fn lane(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_comes_in_pieces_has_one_time() {
        let mut clock = Timestamps::default();
        let first = clock.before_each_line(Stream::Stdout, 0, b"a\nb");
        let second = clock.before_each_line(Stream::Stdout, 1_000_000, b"c\n");
        assert_eq!(
            String::from_utf8([first, second].concat()).unwrap(),
            "1970-01-01T00:00:00.000000Z a\n1970-01-01T00:00:00.000000Z bc\n"
        );
    }

    #[test]
    fn drops_in_a_row_are_one_and_another_reason_is_another() {
        let mut drops = Drops::default();
        assert_eq!(drops.add(Stream::Stdout, 5, DropReason::LimitReached), None);
        assert_eq!(drops.add(Stream::Stderr, 1, DropReason::LimitReached), None);
        assert_eq!(drops.add(Stream::Stdout, 7, DropReason::LimitReached), None);
        let before = drops.add(Stream::Stdout, 2, DropReason::Unreadable);
        assert_eq!(before, Some((12, DropReason::LimitReached)));
        let rest: Vec<_> = drops.take().collect();
        assert_eq!(
            rest,
            [(Stream::Stdout, 2, DropReason::Unreadable), (Stream::Stderr, 1, DropReason::LimitReached),]
        );
        assert!(drops.is_empty());
    }
}
