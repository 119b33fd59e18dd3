//! Writes the output of one node: as text, as one JSON object per line, or as it is.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use sentinel_protocol::log::{DropReason, Stream};
use serde_json::{Value, json};

use crate::output::counted;
use crate::output::format::note;
use crate::output::printer::{Prefix, Printer};
use crate::output::sink::{print_json_line, print_raw};
use crate::output::text::Text;

/// Output that is written at once rather than held, bytes.
const MUCH: usize = 32 << 10;

/// A writer for the output of one node.
///
/// What is short is held until [`OutputWriter::flush`], and written with what follows it on the same stream: many short
/// records take one write.
#[derive(Debug)]
pub(super) struct OutputWriter {
    form: Form,
    held: Vec<u8>,
    /// The stream of what is held.
    held_of: Stream,
}

#[derive(Debug)]
enum Form {
    /// Text, on the stream that the command wrote to.
    Text { printer: Box<Printer>, timestamps: Option<Timestamps> },
    /// JSON objects on standard output.
    Json(JsonWriter),
    /// The bytes of both streams on standard output, in the order of the log, and what is missing on standard error.
    Raw { node: String },
}

impl OutputWriter {
    pub(super) fn text(prefix: Prefix, timestamps: bool) -> Self {
        Self::new(Form::Text {
            printer: Box::new(Printer::new(prefix)),
            timestamps: timestamps.then(Timestamps::default),
        })
    }

    pub(super) fn json(node: String) -> Self {
        Self::new(Form::Json(JsonWriter { node, attempt: 1, incomplete: [Vec::new(), Vec::new()] }))
    }

    pub(super) fn raw(node: String) -> Self {
        Self::new(Form::Raw { node })
    }

    fn new(form: Form) -> Self {
        Self { form, held: Vec::new(), held_of: Stream::Stdout }
    }

    /// Writes output of the command, at the latest with the next [`OutputWriter::flush`].
    pub(super) fn bytes(&mut self, stream: Stream, at_micros: i64, data: &[u8]) -> std::io::Result<()> {
        match &mut self.form {
            Form::Json(writer) => writer.bytes(stream, at_micros, data),
            Form::Text { timestamps: Some(timestamps), .. } => {
                let text = timestamps.prefix_lines(stream, at_micros, data);
                self.hold(stream, &text)
            }
            Form::Text { timestamps: None, .. } | Form::Raw { .. } => self.hold(stream, data),
        }
    }

    fn hold(&mut self, stream: Stream, data: &[u8]) -> std::io::Result<()> {
        if stream != self.held_of || self.held.len() + data.len() > MUCH {
            self.flush()?;
        }
        if data.len() > MUCH {
            return self.write(stream, data);
        }
        self.held_of = stream;
        self.held.extend_from_slice(data);
        Ok(())
    }

    fn write(&mut self, stream: Stream, data: &[u8]) -> std::io::Result<()> {
        match &mut self.form {
            Form::Text { printer, .. } => printer.bytes(stream, data),
            Form::Raw { .. } => print_raw(data),
            Form::Json(_) => Ok(()),
        }
    }

    /// Writes what is held.
    pub(super) fn flush(&mut self) -> std::io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        let written = self.write(self.held_of, &held);
        self.held = held;
        self.held.clear();
        written
    }

    /// Writes a marker of dropped bytes.
    pub(super) fn dropped(&mut self, stream: Stream, len: u64, why: DropReason) -> std::io::Result<()> {
        self.flush()?;
        match &mut self.form {
            Form::Text { printer, timestamps } => {
                if let Some(timestamps) = timestamps {
                    timestamps.start_line(stream);
                }
                let dropped = counted(len, "byte");
                printer.marker(stream, &format!("[sentinel: {dropped} dropped here: {}]", why.as_str()))
            }
            Form::Json(writer) => writer.dropped(stream, len, why),
            Form::Raw { node } => {
                let of = if node.is_empty() { String::new() } else { format!("{node}: ") };
                let dropped = format!("{of}{} dropped: {}", counted(len, "byte"), why.as_str());
                note(Text::message().plain(dropped));
                Ok(())
            }
        }
    }

    /// Starts the output of the next Attempt.
    pub(super) fn attempt(&mut self, number: u32) -> std::io::Result<()> {
        self.flush()?;
        match &mut self.form {
            Form::Text { printer, timestamps } => {
                if let Some(timestamps) = timestamps {
                    *timestamps = Timestamps::default();
                }
                printer.marker(Stream::Stderr, &format!("[sentinel: attempt {number}]"))
            }
            Form::Json(writer) => {
                writer.finish()?;
                writer.attempt = number;
                Ok(())
            }
            Form::Raw { node } => {
                note(Text::message().plain(format!("{node}: attempt {number}")));
                Ok(())
            }
        }
    }

    /// After how long without input [`OutputWriter::flush_paused`] is due; `None` if no line has begun.
    pub(super) fn flush_after(&self) -> Option<Duration> {
        match &self.form {
            Form::Text { printer, .. } => printer.flush_after(),
            Form::Json(_) | Form::Raw { .. } => None,
        }
    }

    /// Writes the lines that have begun, after a pause in the input.
    pub(super) fn flush_paused(&mut self) -> std::io::Result<()> {
        self.flush()?;
        match &mut self.form {
            Form::Text { printer, .. } => printer.flush_paused(),
            Form::Json(_) | Form::Raw { .. } => Ok(()),
        }
    }

    /// Writes what has not been written, at the end of the input.
    pub(super) fn finish(&mut self) -> std::io::Result<()> {
        self.flush()?;
        match &mut self.form {
            Form::Text { printer, .. } => printer.finish(),
            Form::Json(writer) => writer.finish(),
            Form::Raw { .. } => Ok(()),
        }
    }
}

/// Writes output as JSON objects. The texts of a stream of a node, joined, are what the command wrote.
#[derive(Debug)]
pub(super) struct JsonWriter {
    node: String,
    attempt: u32,
    /// The incomplete character at the end of the last piece of each stream.
    incomplete: [Vec<u8>; 2],
}

impl JsonWriter {
    fn bytes(&mut self, stream: Stream, at_micros: i64, data: &[u8]) -> std::io::Result<()> {
        let bytes = [std::mem::take(&mut self.incomplete[index(stream)]), data.to_vec()].concat();
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            // Valid except for an incomplete character at the end.
            Err(error) if error.error_len().is_none() => {
                let (complete, incomplete) = bytes.split_at(error.valid_up_to());
                self.incomplete[index(stream)] = incomplete.to_vec();
                std::str::from_utf8(complete).unwrap_or_default()
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

    /// Writes incomplete characters, at the end of the input.
    fn finish(&mut self) -> std::io::Result<()> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.incomplete[index(stream)]);
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

/// A timestamp of a node, in UTC with microseconds.
fn time(at_micros: i64) -> String {
    Timestamp::from_microsecond(at_micros).map_or_else(|_| "?".to_owned(), |time| format!("{time:.6}"))
}

/// Prefixes each line with its time, also if the line arrives in pieces.
#[derive(Debug, Default)]
pub(super) struct Timestamps {
    /// Whether the last line of each stream is incomplete.
    incomplete: [bool; 2],
}

impl Timestamps {
    fn prefix_lines(&mut self, stream: Stream, at_micros: i64, data: &[u8]) -> Vec<u8> {
        let time = time(at_micros);
        let incomplete = &mut self.incomplete[index(stream)];
        let mut text = Vec::with_capacity(data.len() + 32);
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            if !*incomplete {
                text.extend_from_slice(time.as_bytes());
                text.push(b' ');
            }
            text.extend_from_slice(line);
            *incomplete = !line.ends_with(b"\n");
        }
        text
    }

    fn start_line(&mut self, stream: Stream) {
        self.incomplete[index(stream)] = false;
    }
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_pieces_has_one_timestamp() {
        let mut timestamps = Timestamps::default();
        let first = timestamps.prefix_lines(Stream::Stdout, 0, b"a\nb");
        let second = timestamps.prefix_lines(Stream::Stdout, 1_000_000, b"c\n");
        assert_eq!(
            String::from_utf8([first, second].concat()).unwrap(),
            "1970-01-01T00:00:00.000000Z a\n1970-01-01T00:00:00.000000Z bc\n"
        );
    }
}
