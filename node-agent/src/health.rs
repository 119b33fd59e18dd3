//! Whether the agent of a state directory is connected, for an exec probe: the agent does not listen on a port.
//!
//! The agent writes a small status file, which is valid until a time on the boot clock.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::error_category::ErrorCategory;
use crate::host;

const STATUS: &str = "status";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatusRecord {
    connected: bool,
    pid: u32,
    boot_id: String,
    /// Valid until then, milliseconds on the boot clock.
    believe_until: u64,
}

/// Why the agent is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// The status file cannot be read.
    #[error("unable to read {path}; has an agent run with this state directory?")]
    NoStatus {
        /// The file.
        path: PathBuf,
        /// The system error.
        source: io::Error,
    },
    /// The status file is not valid.
    #[error("{path} is not a valid status file")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// The agent has no Session.
    #[error("the agent is not connected to the operator")]
    Disconnected,
    /// The status file has expired.
    #[error("the agent's status expired {ago_ms} ms ago")]
    Stale {
        /// Milliseconds since it expired.
        ago_ms: u64,
    },
    /// The status file is from before a reboot.
    #[error("the agent has not run since the machine was booted")]
    OtherBoot,
}

impl Unhealthy {
    /// The label of this error in logs and metrics.
    pub fn category(&self) -> ErrorCategory {
        match self {
            Self::NoStatus { source, .. } => ErrorCategory::of_io(source),
            Self::Unreadable { .. } => ErrorCategory::Corrupt,
            Self::Disconnected => ErrorCategory::Network,
            Self::Stale { .. } | Self::OtherBoot => ErrorCategory::Timeout,
        }
    }

    /// Whether the next probe may succeed. All of them may: the agent writes the file anew.
    pub fn is_retryable(&self) -> bool {
        true
    }
}

/// Checks whether the agent of this state directory is connected.
///
/// # Errors
/// [`Unhealthy`] when it is not, or that is not known.
pub fn health(state_dir: &Path) -> Result<(), Unhealthy> {
    let path = state_dir.join(STATUS);
    let bytes = fs::read(&path).map_err(|source| Unhealthy::NoStatus { path: path.clone(), source })?;
    let status: StatusRecord =
        serde_json::from_slice(&bytes).map_err(|source| Unhealthy::Unreadable { path, source })?;
    if host::boot_id().is_ok_and(|boot| boot != status.boot_id) {
        return Err(Unhealthy::OtherBoot);
    }
    if !status.connected {
        return Err(Unhealthy::Disconnected);
    }
    match host::boot_clock_ms().saturating_sub(status.believe_until) {
        0 => Ok(()),
        ago_ms => Err(Unhealthy::Stale { ago_ms }),
    }
}

/// The status file of a running agent. It is written on a blocking thread, so that a slow disk delays no heartbeat.
#[derive(Debug)]
pub(crate) struct StatusFile {
    file: FileAt,
    /// The write under way.
    writing: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Clone)]
struct FileAt {
    path: PathBuf,
    boot_id: String,
}

impl StatusFile {
    pub(crate) fn new(state_dir: &Path, boot_id: &str) -> Self {
        let file = FileAt { path: state_dir.join(STATUS), boot_id: boot_id.to_owned() };
        Self { file, writing: Mutex::new(None) }
    }

    /// Records that there is a Session, valid for the given time. Skipped while the previous write is under way.
    pub(crate) fn note_connected(&self, valid: Duration) {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if writing.as_ref().is_some_and(|write| !write.is_finished()) {
            return;
        }
        let (file, valid) = (self.file.clone(), valid.as_millis() as u64);
        *writing = Some(spawn_blocking(move || {
            file.write(true, host::boot_clock_ms().saturating_add(valid));
        }));
    }

    /// Records that there is none, after the write under way.
    pub(crate) async fn write_disconnected(&self) {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writing) = writing {
            // A panic of it would show as a status that expires.
            let _ = writing.await;
        }
        let file = self.file.clone();
        // A status that cannot be written expires soon.
        let _ = spawn_blocking(move || file.write(false, 0)).await;
    }
}

impl FileAt {
    fn write(&self, connected: bool, believe_until: u64) {
        let status =
            StatusRecord { connected, pid: std::process::id(), boot_id: self.boot_id.clone(), believe_until };
        let new = self.path.with_extension("new");
        let written = serde_json::to_vec(&status)
            .map_err(io::Error::from)
            .and_then(|bytes| {
                let mut options = OpenOptions::new();
                options.write(true).create(true).truncate(true).mode(0o600).open(&new)?.write_all(&bytes)
            })
            .and_then(|()| fs::rename(&new, &self.path));
        if let Err(error) = written {
            tracing::debug!(%error, "unable to write the status file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two writes raced, and an agent that had lost its operator could be reported as connected for a while.
    #[tokio::test]
    async fn a_disconnect_is_written_after_the_pending_connect() {
        let dir = tempfile::tempdir().unwrap();
        let file = StatusFile::new(dir.path(), &host::boot_id().unwrap());
        for _ in 0..50 {
            file.note_connected(Duration::from_mins(1));
            file.write_disconnected().await;
            assert!(matches!(health(dir.path()), Err(Unhealthy::Disconnected)));
        }
    }

    #[test]
    fn only_a_connected_agent_with_a_valid_status_is_healthy() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(health(dir.path()), Err(Unhealthy::NoStatus { .. })));
        let file = StatusFile::new(dir.path(), &host::boot_id().unwrap()).file;
        file.write(true, host::boot_clock_ms() + 60_000);
        assert!(health(dir.path()).is_ok());
        file.write(true, host::boot_clock_ms().saturating_sub(1));
        assert!(matches!(health(dir.path()), Err(Unhealthy::Stale { .. })));
        file.write(false, u64::MAX);
        assert!(matches!(health(dir.path()), Err(Unhealthy::Disconnected)));
        StatusFile::new(dir.path(), "another boot").file.write(true, u64::MAX);
        assert!(matches!(health(dir.path()), Err(Unhealthy::OtherBoot)));
        fs::write(dir.path().join(STATUS), "{").unwrap();
        assert!(matches!(health(dir.path()), Err(Unhealthy::Unreadable { .. })));
    }
}
