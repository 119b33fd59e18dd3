//! The log of this process: text for people or JSON for machines, on standard error.
//!
//! A log line can contain untrusted text (names, error messages). Line breaks and terminal control characters are escaped,
//! so that it can neither forge a line nor control a terminal.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The format of the log.
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
            other => Err(format!("invalid log format {other:?}: expected text or json")),
        }
    }
}

/// Why logging could not be initialised.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is invalid.
    #[error("invalid log filter {filter:?}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// A logger is installed already.
    #[error("failed to initialise logging: {0}")]
    Taken(String),
}

impl TelemetryError {
    /// A label for logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Filter { .. } => "log_filter",
            Self::Taken(_) => "log_installed",
        }
    }

    /// Never: another filter is needed, or a bug is to be fixed.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Starts logging. `filter` is a level, or directives as in `info,sentinel_operator::gateway=debug`.
///
/// # Errors
/// [`TelemetryError`] when the filter is invalid or a logger is installed already.
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    // A line that cannot be written (a full disk behind standard error) must not panic.
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
pub(crate) fn steers(c: char) -> bool {
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
    fn untrusted_text_cannot_forge_a_line_or_control_a_terminal() {
        let bad = "x\n2026-01-01 ERROR all is lost\x1b[31m\x07\u{9b}31m\u{202e}";
        for json in [false, true] {
            let text = logged(json, || tracing::warn!(name = %bad, "refused {bad}"));
            assert_eq!(text.lines().count(), 1, "{text:?}");
            let line = text.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(steers), "{text:?}");
            assert!(text.contains("all is lost"), "{text:?}");
            assert!(line.contains("\\u009b31m\\u202e"), "{text:?}");
            assert!(!json || serde_json::from_str::<serde_json::Value>(line).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn an_invalid_format_is_refused_with_the_valid_ones() {
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        let error = "xml".parse::<LogFormat>().unwrap_err();
        assert_eq!(error, "invalid log format \"xml\": expected text or json");
    }
}
