//! The log of a process: text for people or JSON for machines, on standard error.
//!
//! The operator, the node agent and dev mode write the same lines. A line can contain untrusted text (names, error
//! messages): line breaks and terminal control characters are escaped, so that it can neither forge a line nor control a
//! terminal. What is logged is decided by a filter, which a file can replace while the process runs.

mod filter;
mod line;

use std::io;

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

pub use self::filter::{CHECK_EVERY, FilterFile, MAX_FILTER};
pub use self::line::{OneLine, steers};

/// The format of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line: `timestamp`, `level`, `target`, `message`, the event's own fields, `span` (the innermost
    /// one with its fields) and `spans` (all of them, the outermost first).
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
pub enum LogError {
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

impl LogError {
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

/// The filter in use. Clones share it.
#[derive(Debug, Clone)]
pub struct FilterHandle {
    current: reload::Handle<EnvFilter, Registry>,
    /// The filter of the command line.
    initial: String,
}

/// An error and its causes, in one line, without repetitions. A log in JSON has no causes of an error that is a field as it is.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |error| error.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Starts logging. `filter` is a level, or directives as in `info,sentinel_operator::gateway=debug`. The handle changes the
/// filter later; see [`FilterFile`].
///
/// # Errors
/// [`LogError`] when the filter is invalid or a logger is installed already.
pub fn init(format: LogFormat, filter: &str) -> Result<FilterHandle, LogError> {
    let (subscriber, handle) = subscriber(format, filter, io::stderr)?;
    subscriber.try_init().map_err(|error| LogError::Taken(error.to_string()))?;
    Ok(handle)
}

/// What [`init`] installs, with another writer.
///
/// # Errors
/// [`LogError::Filter`].
pub fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    writer: W,
) -> Result<(impl tracing::Subscriber + Send + Sync + use<W>, FilterHandle), LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (parsed, current) = reload::Layer::new(filter::parse(filter)?);
    // A line that cannot be written (a full disk behind standard error) must not panic.
    let lines = fmt::layer().log_internal_errors(false).with_ansi(false).with_writer(OneLine(writer));
    let lines: Box<dyn Layer<_> + Send + Sync> = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let handle = FilterHandle { current, initial: filter.to_owned() };
    Ok((Registry::default().with(parsed).with(lines), handle))
}
