//! The policy as it is on the disk. It is read again when the file is another one, or has changed.

use std::fmt::Display;
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::libc;
use sentinel_policy::document::{MAX_BYTES, Policy};

/// A file that changed so short a time ago may have changed again without another time of change.
const RECENT: Duration = Duration::from_secs(2);

/// What shows that a file is another one, or has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
    is_recent: bool,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let at = Duration::from_secs(metadata.ctime().unsigned_abs());
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + at).unwrap_or_default();
        let (device, inode, size) = (metadata.dev(), metadata.ino(), metadata.size());
        Self { device, inode, size, changed, is_recent: age < RECENT }
    }
}

/// The policy of a file.
#[derive(Debug)]
pub(super) struct PolicyFile {
    path: PathBuf,
    stamp: Option<Stamp>,
    /// Counts the contents that were read.
    version: u64,
    current: Result<Arc<Policy>, String>,
}

impl PolicyFile {
    /// The policy of this file, which was not read yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, stamp: None, version: 0, current: Err("the policy was not read yet".to_owned()) }
    }

    /// The policy as it is now. A policy that cannot be read is not replaced by an earlier one, which would be followed after
    /// its rules were removed.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(super) fn current(&mut self) -> Result<&Arc<Policy>, &str> {
        let stamp = fs::metadata(&self.path).map(|metadata| Stamp::of(&metadata));
        let is_known =
            matches!((&stamp, &self.stamp), (Ok(now), Some(then)) if now == then && !now.is_recent);
        if !is_known {
            self.read(stamp.ok());
        }
        self.current.as_ref().map_err(String::as_str)
    }

    /// Grows with each content that was read and differs from the one before.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    fn read(&mut self, stamp: Option<Stamp>) {
        self.stamp = stamp;
        let read = read_for_refusals(&self.path).map(Arc::new);
        if self.version > 0 && read == self.current {
            return;
        }
        self.version += 1;
        match &read {
            Ok(policy) => {
                let findings = policy.lint().len();
                let rules = policy.rules().len();
                tracing::info!(file = %self.path.display(), rules, findings, "the node's policy was read");
            }
            Err(error) => {
                let file = self.path.display();
                tracing::error!(%file, error, "the node's policy cannot be used; no command is started");
            }
        }
        self.current = read;
    }
}

/// Reads a policy, for those who may read the file.
///
/// # Errors
/// What was attempted, and why it failed, with lines of the file.
pub fn read(path: &Path) -> Result<Policy, String> {
    Policy::read(&read_bytes(path)?).map_err(|error| failed(path, error.with_excerpt()))
}

/// The same without lines of the file: it is shown to people who may not read it.
fn read_for_refusals(path: &Path) -> Result<Policy, String> {
    Policy::read(&read_bytes(path)?).map_err(|error| failed(path, error))
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, String> {
    bytes(path).map_err(|error| failed(path, error))
}

fn failed(path: &Path, why: impl Display) -> String {
    format!("failed to read the policy {}: {why}", path.display())
}

/// The beginning of a regular file. Of anything else nothing: to open a pipe could take forever.
pub(super) fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// At most one byte more than a policy may have.
fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    read_regular(path, MAX_BYTES as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_in_the_place_of_a_policy_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("policy.yaml");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read(&pipe).unwrap_err().contains("not a regular file"));
        assert!(read(dir.path()).unwrap_err().contains("not a regular file"));
    }

    const DENY_ALL: &str = "apiVersion: sentinelnode.dev/v1alpha1\nkind: NodePolicy\nrules: []\n";
    const DENY_ROOT: &str = "apiVersion: sentinelnode.dev/v1alpha1\nkind: NodePolicy\nrules: [{id: a, effect: Deny, users: [root]}]\n";

    #[test]
    fn each_change_of_the_file_counts_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.yaml");
        let mut file = PolicyFile::new(path.clone());
        assert!(file.current().unwrap_err().contains("No such file"));
        fs::write(&path, DENY_ALL).unwrap();
        assert_eq!(file.current().unwrap().rules().len(), 0);
        let version = file.version();
        fs::write(&path, DENY_ROOT).unwrap();
        assert_eq!(file.current().unwrap().rules().len(), 1);
        assert!(file.version() > version);
        // An earlier policy is not followed in the place of one that cannot be read.
        fs::write(&path, "rules: [").unwrap();
        assert!(file.current().is_err());
        fs::remove_file(&path).unwrap();
        assert!(file.current().is_err());
        // As the kubelet does it: a link to another directory.
        for (name, text) in [("one", DENY_ALL), ("two", DENY_ROOT)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("policy.yaml"), text).unwrap();
        }
        std::os::unix::fs::symlink("one", dir.path().join("data")).unwrap();
        std::os::unix::fs::symlink("data/policy.yaml", &path).unwrap();
        assert_eq!(file.current().unwrap().rules().len(), 0);
        std::os::unix::fs::symlink("two", dir.path().join("next")).unwrap();
        fs::rename(dir.path().join("next"), dir.path().join("data")).unwrap();
        assert_eq!(file.current().unwrap().rules().len(), 1);
    }
}
