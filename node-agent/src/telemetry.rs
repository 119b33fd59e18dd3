//! The agent's own log, on standard error.
//!
//! A line may contain text from other parties (names, error messages). It stays one line: characters that would start
//! another one, or control a terminal, are escaped.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("invalid --log filter {filter:?}: {why}")]
pub struct InvalidFilter {
    filter: String,
    why: String,
}

/// Installs the subscriber. To be called once in a process.
///
/// # Errors
/// [`InvalidFilter`] when the filter cannot be parsed.
pub fn init(filter: &str, format: LogFormat) -> Result<(), InvalidFilter> {
    let parsed = EnvFilter::try_new(filter)
        .map_err(|error| InvalidFilter { filter: filter.to_owned(), why: error.to_string() })?;
    // A line that cannot be written (standard error on a full disk) must not panic.
    let builder = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_env_filter(parsed)
        .with_writer(OneLine(io::stderr));
    // A second subscriber is ignored; the first one stays.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}

/// Writes each event as one line of printable characters.
#[derive(Debug, Clone, Copy)]
struct OneLine<M>(M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for OneLine<M> {
    type Writer = Line<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self.0.make_writer())
    }
}

/// See [`OneLine`].
#[derive(Debug)]
struct Line<W>(W);

impl<W: Write> Write for Line<W> {
    /// The subscriber writes an event, including its newline, in one call.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        if line.chars().any(is_unsafe) {
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

/// Control characters including C1, line separators of Unicode, and characters that change the direction of text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes as in JSON, so that a line that is a JSON object stays one.
fn escaped(line: &str) -> String {
    line.chars().fold(String::with_capacity(line.len() + 16), |mut shown, c| {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if is_unsafe(c) => shown.extend([format!("\\u{:04x}", u32::from(c))]),
            c => shown.push(c),
        }
        shown
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn text_of_others_cannot_forge_a_line_or_control_a_terminal() {
        let bad = "x\n2026-01-01T00:00:00Z ERROR all is lost\r\x1b[31m\u{9b}31m\u{202e}";
        for json in [false, true] {
            let sink = Sink::default();
            let inner = sink.clone();
            let lines =
                tracing_subscriber::fmt().with_writer(OneLine(move || inner.clone())).with_ansi(false);
            let log = || tracing::warn!(error = %bad, "an operator sent {bad}");
            if json {
                tracing::subscriber::with_default(lines.json().finish(), log);
            } else {
                tracing::subscriber::with_default(lines.finish(), log);
            }
            let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
            let line = text.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(is_unsafe), "{text:?}");
            assert!(line.contains("all is lost"), "{text:?}");
            assert!(line.contains("\\u009b31m\\u202e"), "{text:?}");
            assert!(!json || serde_json::from_str::<serde_json::Value>(line).is_ok(), "{text:?}");
        }
    }
}
