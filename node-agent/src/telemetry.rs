//! The agent's own log, on standard error.

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("--log {filter:?} is not a filter: {why}")]
pub struct InvalidFilter {
    filter: String,
    why: String,
}

/// Begins to log. To be called once in a process.
///
/// # Errors
/// [`InvalidFilter`] when the filter cannot be read.
pub fn init(filter: &str, format: LogFormat) -> Result<(), InvalidFilter> {
    let parsed = EnvFilter::try_new(filter)
        .map_err(|error| InvalidFilter { filter: filter.to_owned(), why: error.to_string() })?;
    // A line that cannot be written (a full disk behind standard error) is no reason to panic.
    let builder = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_env_filter(parsed)
        .with_writer(std::io::stderr);
    // A second subscriber changes nothing; the first one stays.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}
