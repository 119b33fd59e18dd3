//! Output of commands on our two streams, each line with its node before it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sentinel_protocol::log::Stream;

use super::color::{Paint, To, is_terminal};
use super::escape::Escaper;
use super::lines::{Lines, Part, PartEnd};
use super::sink::{self, Writer, Written};
use super::text::Text;

/// How long the beginning of a line is held back when nothing more comes: it may be a prompt or a progress bar.
const SHOWN_WITHIN: Duration = Duration::from_millis(150);

/// Length of what can be a prompt or a progress bar, bytes. What is longer is a line on its way.
const SHORT: usize = 4 << 10;

/// How long the beginning of a long line is held back: nodes and networks pause now and then.
const LONG_SHOWN_WITHIN: Duration = Duration::from_secs(2);

/// How the output of a node is set apart from that of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// Not at all: one node's bytes as they come.
    None,
    /// Its name before each line, padded to the width of the longest.
    Node {
        /// The name.
        name: String,
        /// What else is written of the line's origin.
        origin: Option<String>,
        /// The width of both.
        width: usize,
    },
}

impl Prefix {
    /// What a line begins with: `|` before a line, `+` before what continues one.
    fn text(&self, separator: &str) -> Text {
        match self {
            Self::None => Text::new(),
            Self::Node { name, origin, width } => {
                let whole = origin.as_ref().map_or_else(|| name.clone(), |origin| format!("{name} {origin}"));
                Text::new()
                    .painted(Paint::node(name), format!("{whole:<width$}"))
                    .then(" ")
                    .painted(Paint::Faint, separator)
                    .then(" ")
            }
        }
    }
}

/// Where the output of one node goes.
///
/// Lines of several nodes are never mixed: with a prefix, a line is printed when it is complete. A long line is printed
/// in parts, and so is one that stays unfinished for a moment; a part that does not stand right behind the one before
/// it begins with `+` in place of `|`.
#[derive(Debug)]
pub(crate) struct Printer {
    prefix: Prefix,
    lanes: [Lane; 2],
}

#[derive(Debug)]
struct Lane {
    to: To,
    writer: Writer,
    /// Before a line, and before what continues one.
    prefixes: [String; 2],
    lines: Lines,
    escaper: Option<Escaper>,
}

impl Printer {
    pub(crate) fn new(prefix: Prefix) -> Self {
        let lane = |to: To| Lane::new(to, &prefix, is_terminal(to));
        Self { lanes: [lane(To::Out), lane(To::Err)], prefix }
    }

    /// Prints what the command wrote to one of its streams.
    pub(crate) fn bytes(&mut self, stream: Stream, bytes: &[u8]) -> std::io::Result<()> {
        let whole_lines = self.prefix != Prefix::None;
        let lane = self.lane(stream);
        if whole_lines {
            let parts = lane.lines.push(bytes);
            return lane.write(&parts);
        }
        let shown = lane.shown(bytes);
        // Only on a terminal is a line that we print ourselves kept apart from it: elsewhere not a byte is added.
        let open = lane.escaper.is_some() && !shown.ends_with(b"\n");
        sink::write(lane.to, lane.writer, |_| Written { bytes: shown, open })
    }

    /// How long nothing must come until [`Printer::pause`] is due; `None` when nothing is held back.
    pub(crate) fn pause_after(&self) -> Option<Duration> {
        let after = |held: usize| if held <= SHORT { SHOWN_WITHIN } else { LONG_SHOWN_WITHIN };
        self.lanes.iter().map(|lane| lane.lines.holding()).filter(|held| *held > 0).map(after).min()
    }

    /// Prints what is held back of lines that have not ended, because nothing has come for so long.
    pub(crate) fn pause(&mut self) -> std::io::Result<()> {
        let all = self.pause_after() != Some(SHOWN_WITHIN);
        for lane in &mut self.lanes {
            if !all && lane.lines.holding() > SHORT {
                continue;
            }
            if let Some(part) = lane.lines.pause() {
                lane.write(&[part])?;
            }
        }
        Ok(())
    }

    /// Prints a line of ours at this place of the stream.
    pub(crate) fn remark(&mut self, stream: Stream, text: &str) -> std::io::Result<()> {
        self.finish()?;
        let line = self.prefix.text("|").painted(Paint::Busy, text).then("\n");
        let to = self.lane(stream).to;
        sink::write(to, Writer::Ours, |_| Written { bytes: line.render(to).into_bytes(), open: false })
    }

    /// Prints what was held back of lines that were never ended.
    pub(crate) fn finish(&mut self) -> std::io::Result<()> {
        for lane in &mut self.lanes {
            if let Some(part) = lane.lines.finish() {
                lane.write(&[part])?;
            }
            if let Some(escaper) = &mut lane.escaper {
                let rest = escaper.finish();
                sink::write(lane.to, lane.writer, |_| Written { open: true, bytes: rest.into_bytes() })?;
            }
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
    fn new(to: To, prefix: &Prefix, terminal: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let writer = match prefix {
            Prefix::None => Writer::Raw,
            Prefix::Node { .. } => Writer::Lane(NEXT.fetch_add(1, Ordering::Relaxed)),
        };
        let prefixes = ["|", "+"].map(|separator| prefix.text(separator).render(to));
        Self { to, writer, prefixes, lines: Lines::default(), escaper: terminal.then(Escaper::default) }
    }

    fn shown(&mut self, bytes: &[u8]) -> Vec<u8> {
        match &mut self.escaper {
            Some(escaper) => escaper.push(bytes).into_bytes(),
            None => bytes.to_vec(),
        }
    }

    fn write(&mut self, parts: &[Part]) -> std::io::Result<()> {
        if parts.is_empty() {
            return Ok(());
        }
        sink::write(self.to, self.writer, |is_open| self.laid_out(parts, is_open))
    }

    /// The parts as they are printed, when the last line that this lane printed is still open or not.
    fn laid_out(&self, parts: &[Part], mut is_open: bool) -> Written {
        let mut bytes = Vec::new();
        for part in parts {
            if !is_open {
                // The end of a line that another has interrupted is nothing to show.
                if part.continues && part.bytes.is_empty() {
                    continue;
                }
                bytes.extend_from_slice(self.prefixes[usize::from(part.continues)].as_bytes());
            }
            match (&self.escaper, part.end) {
                (None, _) => bytes.extend_from_slice(&part.bytes),
                // Parts are whole characters, so that each can be escaped by itself.
                (Some(_), end) => {
                    let text = match end {
                        PartEnd::Line => part.bytes.strip_suffix(b"\r").unwrap_or(&part.bytes),
                        PartEnd::Cut | PartEnd::Open => &part.bytes,
                    };
                    let mut escaper = Escaper::default();
                    bytes.extend_from_slice(escaper.push(text).as_bytes());
                    bytes.extend_from_slice(escaper.finish().as_bytes());
                }
            }
            is_open = part.end == PartEnd::Open;
            if !is_open {
                bytes.push(b'\n');
            }
        }
        Written { bytes, open: is_open }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(terminal: bool) -> Lane {
        let prefix = Prefix::Node { name: "n".to_owned(), origin: None, width: 1 };
        Lane::new(To::Out, &prefix, terminal)
    }

    fn written(lane: &Lane, parts: &[Part], is_open: bool) -> (String, bool) {
        let written = lane.laid_out(parts, is_open);
        (String::from_utf8(written.bytes).unwrap(), written.open)
    }

    #[test]
    fn a_line_is_printed_whole_with_its_node() {
        let mut lane = lane(false);
        let parts = lane.lines.push(b"\x1b[1mhi\r\n");
        assert_eq!(written(&lane, &parts, false), ("n | \x1b[1mhi\r\n".to_owned(), false));
    }

    #[test]
    fn on_a_terminal_a_line_is_harmless() {
        let mut lane = lane(true);
        let parts = lane.lines.push(b"\x1b[1mhi\r\n\xff\n");
        assert_eq!(written(&lane, &parts, false), ("n | ^[[1mhi\nn | \u{fffd}\n".to_owned(), false));
    }

    #[test]
    fn a_name_from_the_server_cannot_steer_the_terminal() {
        let name = "n\x1b]0;title\x07\u{9b}2J".to_owned();
        let lane = Lane::new(To::Out, &Prefix::Node { name, origin: None, width: 1 }, false);
        assert_eq!(lane.prefixes[0], "n^[]0;title^G\\u{9b}2J | ");
    }

    #[test]
    fn a_prompt_is_continued_where_it_stands_or_marked_where_another_wrote_in_between() {
        let mut lane = lane(false);
        assert_eq!(lane.lines.push(b"Name: "), []);
        let prompt = lane.lines.pause().unwrap();
        assert_eq!(written(&lane, &[prompt], false), ("n | Name: ".to_owned(), true));
        let parts = lane.lines.push(b"Ada\nhello\n");
        assert_eq!(written(&lane, &parts, true), ("Ada\nn | hello\n".to_owned(), false));
        assert_eq!(written(&lane, &parts, false), ("n + Ada\nn | hello\n".to_owned(), false));
        lane.lines.push(b"50%");
        lane.lines.pause();
        let parts = lane.lines.push(b"\n");
        assert_eq!(written(&lane, &parts, false), (String::new(), false));
        assert_eq!(written(&lane, &parts, true), ("\n".to_owned(), false));
    }
}
