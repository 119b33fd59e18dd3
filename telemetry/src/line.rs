//! One event, one line.

use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

/// Writes each event as one line of printable characters.
#[derive(Debug, Clone, Copy)]
pub struct OneLine<M>(pub M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for OneLine<M> {
    type Writer = Line<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self.0.make_writer())
    }
}

/// See [`OneLine`].
#[derive(Debug)]
pub struct Line<W>(W);

impl<W: Write> Write for Line<W> {
    /// The subscriber writes an event, its end of line included, in one call.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        if line.chars().any(steers) {
            self.0.write_all(format!("{}\n", escaped(line)).as_bytes())?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whether a character controls a terminal or the layout: C0 and C1 controls, Unicode line ends, directional marks.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON escapes, so that a line that is a JSON object stays one.
fn escaped(line: &str) -> String {
    line.chars().fold(String::with_capacity(line.len() + 16), |mut shown, c| {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if steers(c) => shown.extend([format!("\\u{:04x}", u32::from(c))]),
            c => shown.push(c),
        }
        shown
    })
}
