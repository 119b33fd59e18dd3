//! Whether the agent of a state directory is connected, for a probe by command: the agent listens on nothing.
//!
//! A small status file says so, with the moment on the boot clock until which it may be believed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::host;

const STATUS: &str = "status";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    connected: bool,
    pid: u32,
    boot_id: String,
    /// On the boot clock, milliseconds.
    believe_until: u64,
}

/// Why the agent is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// There is no status file.
    #[error("unable to read {path}; no agent has run here")]
    NoStatus {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The status file is not one.
    #[error("{path} is not a status file")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The agent has no Session.
    #[error("the agent is not connected to the operator")]
    Disconnected,
    /// The agent has not renewed its word.
    #[error("the agent was last heard of {ago_ms} ms too long ago")]
    Stale {
        /// Milliseconds since its word ended.
        ago_ms: u64,
    },
    /// The machine was started anew since.
    #[error("the agent has not run since the machine was started")]
    OtherBoot,
}

/// Whether the agent that works in this state directory is connected.
///
/// # Errors
/// [`Unhealthy`] when it is not, or nobody knows.
pub fn health(state_dir: &Path) -> Result<(), Unhealthy> {
    let path = state_dir.join(STATUS);
    let bytes = fs::read(&path).map_err(|source| Unhealthy::NoStatus { path: path.clone(), source })?;
    let status: Status =
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

/// The status file of a running agent. Written aside: a slow disk delays nobody.
#[derive(Debug, Clone)]
pub(crate) struct StatusFile {
    path: PathBuf,
    boot_id: String,
    writing: Arc<AtomicBool>,
}

impl StatusFile {
    pub(crate) fn new(state_dir: &Path, boot_id: &str) -> Self {
        Self { path: state_dir.join(STATUS), boot_id: boot_id.to_owned(), writing: Arc::default() }
    }

    /// Notes that there is a Session, for the given time. Skipped while the last note is not yet written.
    pub(crate) fn note_connected(&self, believe: Duration) {
        if self.writing.swap(true, Ordering::AcqRel) {
            return;
        }
        let (file, believe) = (self.clone(), believe.as_millis() as u64);
        spawn_blocking(move || {
            file.write(true, host::boot_clock_ms().saturating_add(believe));
            file.writing.store(false, Ordering::Release);
        });
    }

    /// Notes that there is none.
    pub(crate) async fn write_disconnected(&self) {
        let file = self.clone();
        // A note that cannot be written is stale soon enough.
        let _ = spawn_blocking(move || file.write(false, 0)).await;
    }

    fn write(&self, connected: bool, believe_until: u64) {
        let status =
            Status { connected, pid: std::process::id(), boot_id: self.boot_id.clone(), believe_until };
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

    #[test]
    fn only_a_connected_agent_whose_word_still_stands_is_healthy() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(health(dir.path()), Err(Unhealthy::NoStatus { .. })));
        let file = StatusFile::new(dir.path(), &host::boot_id().unwrap());
        file.write(true, host::boot_clock_ms() + 60_000);
        assert!(health(dir.path()).is_ok());
        file.write(true, host::boot_clock_ms().saturating_sub(1));
        assert!(matches!(health(dir.path()), Err(Unhealthy::Stale { .. })));
        file.write(false, u64::MAX);
        assert!(matches!(health(dir.path()), Err(Unhealthy::Disconnected)));
        StatusFile::new(dir.path(), "another boot").write(true, u64::MAX);
        assert!(matches!(health(dir.path()), Err(Unhealthy::OtherBoot)));
        fs::write(dir.path().join(STATUS), "{").unwrap();
        assert!(matches!(health(dir.path()), Err(Unhealthy::Unreadable { .. })));
    }
}
