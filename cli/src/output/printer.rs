//! Lines of commands on our two streams, whole and each with its node before it.

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use sentinel_protocol::log::Stream;

use super::color::{Paint, To, is_terminal};
use super::escape::Escaper;

/// Longest line that is held back to be printed whole, bytes.
const MAX_LINE: usize = 64 << 10;

/// How the output of a node is set apart from that of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// Not at all: one node's bytes as they come.
    None,
    /// Its name before each line, padded to the width of the longest.
    Node {
        /// The name.
        name: String,
        /// What else is said of the line's origin.
        origin: Option<String>,
        /// The width of both.
        width: usize,
    },
}

/// Where the output of one node goes.
///
/// Lines of several nodes are never mixed: with a prefix, a line is printed when it is complete, or longer than
/// 64 KiB, or the last.
#[derive(Debug)]
pub(crate) struct Printer {
    prefix: Prefix,
    lanes: [Lane; 2],
}

#[derive(Debug)]
struct Lane {
    to: To,
    prefix: String,
    line: Vec<u8>,
    escaper: Option<Escaper>,
}

/// One whole write at a time over all nodes.
static STREAMS: Mutex<()> = Mutex::new(());

impl Printer {
    pub(crate) fn new(prefix: Prefix) -> Self {
        let lane = |to: To| Lane {
            to,
            prefix: match &prefix {
                Prefix::None => String::new(),
                Prefix::Node { name, origin, width } => {
                    let whole =
                        origin.as_ref().map_or_else(|| name.clone(), |origin| format!("{name} {origin}"));
                    format!(
                        "{} {} ",
                        Paint::node(name).on(to, &format!("{whole:<width$}")),
                        Paint::Faint.on(to, "|")
                    )
                }
            },
            line: Vec::new(),
            escaper: is_terminal(to).then(Escaper::default),
        };
        Self { lanes: [lane(To::Out), lane(To::Err)], prefix }
    }

    /// Prints what the command wrote to one of its streams.
    pub(crate) fn bytes(&mut self, stream: Stream, bytes: &[u8]) -> std::io::Result<()> {
        let whole_lines = self.prefix != Prefix::None;
        let lane = self.lane(stream);
        if !whole_lines {
            let shown = lane.shown(bytes);
            return write(lane.to, &shown);
        }
        let mut ready = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            lane.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || lane.line.len() >= MAX_LINE {
                lane.end_line(&mut ready);
            }
        }
        write(lane.to, &ready)
    }

    /// Prints a line of ours at this place of the stream.
    pub(crate) fn remark(&mut self, stream: Stream, text: &str) -> std::io::Result<()> {
        self.finish()?;
        let lane = self.lane(stream);
        let line = format!("{}{}\n", lane.prefix, Paint::Busy.on(lane.to, text));
        write(lane.to, line.as_bytes())
    }

    /// Prints what was held back of lines that were never ended.
    pub(crate) fn finish(&mut self) -> std::io::Result<()> {
        for lane in &mut self.lanes {
            let mut ready = Vec::new();
            if !lane.line.is_empty() {
                lane.end_line(&mut ready);
            }
            if let Some(escaper) = &mut lane.escaper {
                ready.extend_from_slice(escaper.finish().as_bytes());
            }
            write(lane.to, &ready)?;
        }
        Ok(())
    }

    fn lane(&mut self, stream: Stream) -> &mut Lane {
        match stream {
            Stream::Stdout => &mut self.lanes[0],
            Stream::Stderr => &mut self.lanes[1],
        }
    }
}

impl Lane {
    fn shown(&mut self, bytes: &[u8]) -> Vec<u8> {
        match &mut self.escaper {
            Some(escaper) => escaper.push(bytes).into_bytes(),
            None => bytes.to_vec(),
        }
    }

    /// Moves the line to `ready`, with prefix and end.
    fn end_line(&mut self, ready: &mut Vec<u8>) {
        let mut line = std::mem::take(&mut self.line);
        if line.ends_with(b"\n") {
            line.pop();
        }
        if self.escaper.is_some() && line.ends_with(b"\r") {
            line.pop();
        }
        let shown = self.shown(&line);
        ready.extend_from_slice(self.prefix.as_bytes());
        ready.extend_from_slice(&shown);
        ready.push(b'\n');
    }
}

fn write(to: To, bytes: &[u8]) -> std::io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let _one_at_a_time = STREAMS.lock().unwrap_or_else(PoisonError::into_inner);
    match to {
        To::Out => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        To::Err => std::io::stderr().lock().write_all(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(prefix: &str, escaper: Option<Escaper>) -> Lane {
        Lane { to: To::Out, prefix: prefix.to_owned(), line: Vec::new(), escaper }
    }

    #[test]
    fn a_line_is_printed_whole_with_its_node() {
        let mut lane = lane("n | ", None);
        let mut ready = Vec::new();
        lane.line.extend_from_slice(b"\x1b[1mhi\r\n");
        lane.end_line(&mut ready);
        assert_eq!(ready, b"n | \x1b[1mhi\r\n");
    }

    #[test]
    fn on_a_terminal_a_line_is_harmless() {
        let mut lane = lane("n | ", Some(Escaper::default()));
        let mut ready = Vec::new();
        lane.line.extend_from_slice(b"\x1b[1mhi\r\n");
        lane.end_line(&mut ready);
        assert_eq!(ready, b"n | ^[[1mhi\n");
    }
}
