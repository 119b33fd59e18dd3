//! The filter, and the file that replaces it.
//!
//! The file is polled, as certificates are: a mounted `ConfigMap` is replaced by renaming a link, which a watch on the file
//! itself does not see.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::{FilterHandle, LogError};

/// How often the file is read.
pub const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Longest content of the file, bytes.
pub const MAX_FILTER: u64 = 16 << 10;

/// A file with a log filter. While it has one, it replaces the filter of the command line. Without the file, or with an
/// empty one, that of the command line is in use. Blank lines and lines that begin with `#` are ignored; the others are
/// joined by commas.
#[derive(Debug)]
pub struct FilterFile {
    path: PathBuf,
    handle: FilterHandle,
    /// What the file had when it was last read, readable or not.
    seen: Result<String, String>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("failed to read it: {0}")]
    Unreadable(#[from] io::Error),
    #[error("it is larger than {MAX_FILTER} bytes")]
    TooLong,
    #[error("it is not UTF-8")]
    NotText,
}

/// The filter of this text.
///
/// # Errors
/// [`LogError::Filter`].
pub(crate) fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(filter).map_err(|source| LogError::Filter { filter: filter.to_owned(), source })
}

impl FilterFile {
    /// The file at this path, not read yet.
    pub fn new(path: PathBuf, handle: FilterHandle) -> Self {
        Self { path, handle, seen: Ok(String::new()) }
    }

    /// Reads the file, and uses its filter if it has changed. One that cannot be used keeps the filter that is in use, and is
    /// logged once.
    pub fn check(&mut self) {
        let found = read(&self.path).map_err(|error| error.to_string());
        if found == self.seen {
            return;
        }
        let file = self.path.display();
        match &found {
            Ok(text) => {
                let filter = if text.is_empty() { &self.handle.initial } else { text };
                match self.handle.set(filter) {
                    Ok(()) => tracing::info!(%file, %filter, "log filter changed"),
                    Err(error) => tracing::warn!(
                        %file, error = &error as &dyn std::error::Error,
                        "unable to change the log filter; the current one stays in use"
                    ),
                }
            }
            Err(error) => tracing::warn!(
                %file, %error, "unable to read the log filter; the current one stays in use"
            ),
        }
        self.seen = found;
    }

    /// Checks the file at once and then every [`CHECK_EVERY`], forever.
    pub async fn keep_current(mut self) {
        loop {
            self.check();
            tokio::time::sleep(CHECK_EVERY).await;
        }
    }
}

impl FilterHandle {
    fn set(&self, filter: &str) -> Result<(), LogError> {
        let parsed = parse(filter)?;
        // It fails only when the subscriber is gone, and then nothing is logged.
        let _ = self.current.reload(parsed);
        Ok(())
    }
}

/// The filter in the file; empty where there is no file.
fn read(path: &Path) -> Result<String, Unusable> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILTER + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILTER {
        return Err(Unusable::TooLong);
    }
    let text = String::from_utf8(bytes).map_err(|_| Unusable::NotText)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.collect::<Vec<_>>().join(","))
}
