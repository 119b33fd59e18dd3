//! Our own log: text for people or JSON for machines, on standard error.
//!
//! What others sent (names, error texts) can end up in a line. A line is one line: control characters in it are shown
//! as escapes, so that nobody can forge a second line or reach the terminal of whoever reads it.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How our own log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("{other:?} is no log format; there are text and json")),
        }
    }
}

/// Why our log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is no filter.
    #[error("failed to read the log filter {filter:?}")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody else set one up before.
    #[error("failed to set the log up: {0}")]
    Taken(String),
}

/// Begins to log. `filter` is a level, or directives as in `info,sentinel_operator::gateway=debug`.
///
/// # Errors
/// [`TelemetryError`] when the filter cannot be read or a log is set up already.
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    // A line that cannot be written (a full disk behind standard error) is no reason to panic.
    let lines = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(OneLine(io::stderr));
    let done = match format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    done.map_err(|error| TelemetryError::Taken(error.to_string()))
}

/// Writes each event as one line without control characters.
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
        let line = event.strip_suffix(b"\n").unwrap_or(event);
        if line.iter().any(|byte| is_control(*byte)) {
            let mut shown = escaped(line);
            shown.push(b'\n');
            self.0.write_all(&shown)?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

fn escaped(line: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(line.len() + 16);
    for &byte in line {
        if is_control(byte) {
            shown.extend(byte.escape_ascii());
        } else {
            shown.push(byte);
        }
    }
    shown
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

    fn logged(json: bool, log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let inner = sink.clone();
        let lines = tracing_subscriber::fmt().with_writer(OneLine(move || inner.clone())).with_ansi(false);
        if json {
            tracing::subscriber::with_default(lines.json().finish(), log);
        } else {
            tracing::subscriber::with_default(lines.finish(), log);
        }
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_others_sent_cannot_forge_a_line_or_reach_a_terminal() {
        let bad = "x\n2026-01-01 ERROR all is lost\x1b[31m\x07";
        for json in [false, true] {
            let text = logged(json, || tracing::warn!(name = %bad, "refused {bad}"));
            assert_eq!(text.lines().count(), 1, "{text:?}");
            assert!(text.ends_with('\n') && !text.contains('\x1b') && !text.contains('\x07'), "{text:?}");
            assert!(text.contains("all is lost"), "{text:?}");
        }
    }

    #[test]
    fn a_format_that_is_none_is_refused_with_those_there_are() {
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        let error = "xml".parse::<LogFormat>().unwrap_err();
        assert_eq!(error, "\"xml\" is no log format; there are text and json");
    }
}
