//! Prints output of commands on our two streams, each line prefixed with its node.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sentinel_protocol::log::Stream;

use super::color::{StdStream, Style, is_terminal};
use super::escape::{Escaper, single_line};
use super::line_buffer::{LineBuffer, LinePart, PartEnd};
use super::padded;
use super::sink::{self, Rendered, Writer};
use super::text::Text;

/// After how long without input a short unfinished line is printed: it may be a prompt or a progress bar.
const SHORT_PAUSE: Duration = Duration::from_millis(150);

/// Maximum length of a prompt or a progress bar, bytes; anything longer is a line that is still arriving.
const SHORT: usize = 4 << 10;

/// After how long without input a long unfinished line is printed; nodes and networks pause now and then.
const LONG_PAUSE: Duration = Duration::from_secs(2);

/// What each line of a node starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// Nothing: the bytes of one node, unchanged.
    None,
    /// Nothing, but a last line without an end is ended, since our own text follows.
    Section,
    /// The name of the node, padded to the longest one.
    Node {
        /// The name.
        name: String,
        /// The name of the Task, when several are followed.
        task: Option<String>,
        /// The width of both, in columns of a terminal.
        width: usize,
    },
}

impl Prefix {
    /// The prefix of a line, with the separator `|`, or `+` for a continued line.
    fn text(&self, separator: &str) -> Text {
        match self {
            Self::None | Self::Section => Text::new(),
            Self::Node { name, task, width } => {
                let label = task.as_ref().map_or_else(|| name.clone(), |task| format!("{name} {task}"));
                let label = single_line(&label);
                Text::new()
                    .styled(Style::node(name), padded(&label, *width))
                    .plain(" ")
                    .styled(Style::Dim, separator)
                    .plain(" ")
            }
        }
    }
}

/// Prints the output of one node.
///
/// Lines of several nodes never mix: with a prefix, a line is printed when it is complete. A long line, and one that is
/// unfinished after a pause, is printed in parts; a part that does not directly follow the previous one on the screen
/// starts with `+` instead of `|`.
#[derive(Debug)]
pub(crate) struct Printer {
    prefix: Prefix,
    streams: [StreamPrinter; 2],
}

/// Prints one stream of one node.
#[derive(Debug)]
struct StreamPrinter {
    to: StdStream,
    writer: Writer,
    /// The prefix of a line, and that of a continued line.
    prefixes: [String; 2],
    lines: LineBuffer,
    /// Present on a terminal.
    escaper: Option<Escaper>,
    /// Whether the last byte that was passed on is within a line.
    in_line: bool,
}

impl Printer {
    pub(crate) fn new(prefix: Prefix) -> Self {
        let stream = |to: StdStream| StreamPrinter::new(to, &prefix, is_terminal(to));
        Self { streams: [stream(StdStream::Out), stream(StdStream::Err)], prefix }
    }

    /// Prints bytes that the command wrote to one of its streams.
    pub(crate) fn bytes(&mut self, stream: Stream, bytes: &[u8]) -> std::io::Result<()> {
        let by_line = matches!(self.prefix, Prefix::Node { .. });
        let printer = self.stream(stream);
        if by_line {
            return printer.write(|lines, each| lines.push(bytes, each));
        }
        printer.in_line = bytes.last().map_or(printer.in_line, |last| *last != b'\n');
        let bytes: Cow<'_, [u8]> = match &mut printer.escaper {
            Some(escaper) => escaper.push(bytes).into_bytes().into(),
            None => bytes.into(),
        };
        // Only on a terminal do our own messages start a new line: a pipe gets exactly the bytes of the command.
        let unfinished = printer.escaper.is_some() && !bytes.ends_with(b"\n");
        sink::write(printer.to, printer.writer, |_| Rendered { bytes, unfinished })
    }

    /// After how long without input [`Printer::flush_paused`] is due; `None` if nothing is buffered.
    pub(crate) fn flush_after(&self) -> Option<Duration> {
        let pause = |buffered: usize| if buffered <= SHORT { SHORT_PAUSE } else { LONG_PAUSE };
        let buffered = self.streams.iter().map(|printer| printer.lines.buffered());
        buffered.filter(|buffered| *buffered > 0).map(pause).min()
    }

    /// Prints the buffered parts of unfinished lines, after a pause in the input.
    pub(crate) fn flush_paused(&mut self) -> std::io::Result<()> {
        let all = self.flush_after() != Some(SHORT_PAUSE);
        for printer in &mut self.streams {
            if !all && printer.lines.buffered() > SHORT {
                continue;
            }
            printer.write(|lines, each| lines.flush_paused(each))?;
        }
        Ok(())
    }

    /// Prints a line of our own at this point of the stream.
    pub(crate) fn marker(&mut self, stream: Stream, text: &str) -> std::io::Result<()> {
        self.finish()?;
        self.stream(stream).end_line()?;
        let line = self.prefix.text("|").styled(Style::Warning, text).plain("\n");
        let to = self.stream(stream).to;
        sink::write(to, Writer::Own, |_| Rendered {
            bytes: line.render(to).into_bytes().into(),
            unfinished: false,
        })
    }

    /// Prints what is still buffered, at the end of the input.
    pub(crate) fn finish(&mut self) -> std::io::Result<()> {
        for printer in &mut self.streams {
            printer.write(|lines, each| lines.finish(each))?;
            if let Some(escaper) = &mut printer.escaper {
                let bytes = escaper.finish().into_bytes().into();
                sink::write(printer.to, printer.writer, |_| Rendered { bytes, unfinished: true })?;
            }
            if self.prefix == Prefix::Section {
                printer.end_line()?;
            }
        }
        Ok(())
    }

    fn stream(&mut self, stream: Stream) -> &mut StreamPrinter {
        match stream {
            Stream::Stdout => &mut self.streams[0],
            Stream::Stderr => &mut self.streams[1],
        }
    }
}

impl StreamPrinter {
    fn new(to: StdStream, prefix: &Prefix, terminal: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let writer = match prefix {
            Prefix::None | Prefix::Section => Writer::Passthrough,
            Prefix::Node { .. } => Writer::NodeStream(NEXT.fetch_add(1, Ordering::Relaxed)),
        };
        let prefixes = ["|", "+"].map(|separator| prefix.text(separator).render(to));
        let lines = LineBuffer::default();
        Self { to, writer, prefixes, lines, escaper: terminal.then(Escaper::default), in_line: false }
    }

    /// Ends a line of bytes that were passed on unchanged, before a line of our own.
    fn end_line(&mut self) -> std::io::Result<()> {
        if !std::mem::take(&mut self.in_line) {
            return Ok(());
        }
        sink::write(self.to, self.writer, |_| Rendered { bytes: b"\n".into(), unfinished: false })
    }

    /// Writes the parts that `pass` takes from the buffer.
    fn write(
        &mut self,
        pass: impl FnOnce(&mut LineBuffer, &mut dyn FnMut(LinePart<'_>)),
    ) -> std::io::Result<()> {
        let Self { lines, prefixes, escaper, .. } = self;
        let form = Form { prefixes, is_escaped: escaper.is_some() };
        sink::write(self.to, self.writer, |unfinished| form.render(unfinished, |each| pass(lines, each)))
    }
}

/// How parts are printed.
#[derive(Debug, Clone, Copy)]
struct Form<'a> {
    prefixes: &'a [String; 2],
    is_escaped: bool,
}

impl Form<'_> {
    /// The parts with their prefixes; `unfinished`: the last line on the screen is an unfinished one of this stream.
    fn render(
        self,
        mut unfinished: bool,
        pass: impl FnOnce(&mut dyn FnMut(LinePart<'_>)),
    ) -> Rendered<'static> {
        let mut bytes = Vec::new();
        pass(&mut |part| self.add(&mut bytes, &mut unfinished, part));
        Rendered { bytes: bytes.into(), unfinished }
    }

    fn add(self, bytes: &mut Vec<u8>, unfinished: &mut bool, part: LinePart<'_>) {
        if !*unfinished {
            // Another writer has ended this line already.
            if part.continues && part.bytes.is_empty() {
                return;
            }
            bytes.extend_from_slice(self.prefixes[usize::from(part.continues)].as_bytes());
        }
        if self.is_escaped {
            // Parts never split a character, so that each can be escaped separately.
            let text = match part.end {
                PartEnd::Newline => part.bytes.strip_suffix(b"\r").unwrap_or(part.bytes),
                PartEnd::TooLong | PartEnd::Paused => part.bytes,
            };
            let mut escaper = Escaper::default();
            bytes.extend_from_slice(escaper.push(text).as_bytes());
            bytes.extend_from_slice(escaper.finish().as_bytes());
        } else {
            bytes.extend_from_slice(part.bytes);
        }
        *unfinished = part.end == PartEnd::Paused;
        if !*unfinished {
            bytes.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printer(terminal: bool) -> StreamPrinter {
        let prefix = Prefix::Node { name: "n".to_owned(), task: None, width: 1 };
        StreamPrinter::new(StdStream::Out, &prefix, terminal)
    }

    /// What is printed of the parts that are passed, behind a line that is unfinished or not.
    fn rendered(
        printer: &mut StreamPrinter,
        unfinished: bool,
        pass: impl FnOnce(&mut LineBuffer, &mut dyn FnMut(LinePart<'_>)),
    ) -> (String, bool) {
        let StreamPrinter { lines, prefixes, escaper, .. } = printer;
        let form = Form { prefixes, is_escaped: escaper.is_some() };
        let rendered = form.render(unfinished, |each| pass(lines, each));
        (String::from_utf8(rendered.bytes.into_owned()).unwrap(), rendered.unfinished)
    }

    #[test]
    fn a_line_starts_with_its_node() {
        let mut printer = printer(false);
        let hi = rendered(&mut printer, false, |lines, each| lines.push(b"\x1b[1mhi\r\n", each));
        assert_eq!(hi, ("n | \x1b[1mhi\r\n".to_owned(), false));
    }

    #[test]
    fn a_line_is_escaped_on_a_terminal() {
        let mut printer = printer(true);
        let hi = rendered(&mut printer, false, |lines, each| lines.push(b"\x1b[1mhi\r\n\xff\n", each));
        assert_eq!(hi, ("n | ^[[1mhi\nn | \u{fffd}\n".to_owned(), false));
    }

    #[test]
    fn the_name_of_a_node_is_escaped() {
        let name = "n\x1b]0;title\x07\u{9b}2J".to_owned();
        let printer = StreamPrinter::new(StdStream::Out, &Prefix::Node { name, task: None, width: 1 }, false);
        assert_eq!(printer.prefixes[0], "n^[]0;title^G\\u{9b}2J | ");
    }

    #[test]
    fn a_prompt_is_continued_or_marked_after_another_writer() {
        for (is_last, expected) in [(true, "Ada\nn | hello\n"), (false, "n + Ada\nn | hello\n")] {
            let mut printer = printer(false);
            let begun = rendered(&mut printer, false, |lines, each| lines.push(b"Name: ", each));
            assert_eq!(begun, (String::new(), false));
            let prompt = rendered(&mut printer, false, |lines, each| lines.flush_paused(each));
            assert_eq!(prompt, ("n | Name: ".to_owned(), true));
            let rest = rendered(&mut printer, is_last, |lines, each| lines.push(b"Ada\nhello\n", each));
            assert_eq!(rest, (expected.to_owned(), false));
        }
        for (is_last, expected) in [(false, ""), (true, "\n")] {
            let mut printer = printer(false);
            rendered(&mut printer, false, |lines, each| lines.push(b"50%", each));
            rendered(&mut printer, false, |lines, each| lines.flush_paused(each));
            let end = rendered(&mut printer, is_last, |lines, each| lines.push(b"\n", each));
            assert_eq!(end, (expected.to_owned(), false));
        }
    }
}
