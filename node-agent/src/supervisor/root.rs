//! The file system and the namespaces that a command will see.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::thread::LinkNameSpaceType;
use sentinel_protocol::outcome::StartFailure;
use sentinel_protocol::request::Environment;

use super::invocation::HostNamespaces;
use super::start_error::StartError;

/// Bytes of `/etc/passwd` and `/etc/group` that are read.
const MAX_FILE: u64 = 8 << 20;

/// A namespace of the node that is not the agent's own.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) fd: OwnedFd,
    pub(super) kind: LinkNameSpaceType,
}

/// Checks whether commands can run in this environment on this machine.
///
/// # Errors
/// The reason why they cannot.
pub fn check_environment(environment: Environment, host: HostNamespaces) -> Result<(), String> {
    Root::of(environment, host).map(drop).map_err(|error| error.message)
}

/// The root directory and namespaces of a command.
#[derive(Debug)]
pub(super) struct Root {
    /// The node's root directory, where it is not the agent's own.
    node: Option<OwnedFd>,
    namespaces: Vec<Namespace>,
}

impl Root {
    /// Those of this process.
    pub(super) fn own() -> Self {
        Self { node: None, namespaces: Vec::new() }
    }

    /// Whether the root directory is that of this process.
    pub(super) fn is_own(&self) -> bool {
        self.node.is_none()
    }

    /// Those of a command in this environment. The node's namespaces are those of its process 1; the agent's own are not
    /// entered again.
    pub(super) fn of(environment: Environment, host: HostNamespaces) -> Result<Self, StartError> {
        match environment {
            Environment::Host if host == HostNamespaces::Own => Ok(Self::own()),
            Environment::Container => Ok(Self::own()),
            Environment::Host => Self::of_process(1).map_err(|error| {
                let message = format!("the namespaces of the node cannot be opened: {error}");
                StartError::new(StartFailure::Namespace, message)
            }),
        }
    }

    /// Those of the process with this pid.
    pub(super) fn of_process(pid: i32) -> io::Result<Self> {
        // The mount namespace is last: until then this process's /proc is needed.
        let kinds = [
            ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
            ("ipc", LinkNameSpaceType::InterProcessCommunication),
            ("net", LinkNameSpaceType::Network),
            ("cgroup", LinkNameSpaceType::ControlGroup),
            ("mnt", LinkNameSpaceType::Mount),
        ];
        let mut namespaces = Vec::new();
        let mut node = None;
        for (name, kind) in kinds {
            let (theirs, ours) = (format!("/proc/{pid}/ns/{name}"), format!("/proc/self/ns/{name}"));
            let (theirs_is, ours_is) = (fs::metadata(&theirs)?, fs::metadata(&ours)?);
            if (theirs_is.dev(), theirs_is.ino()) == (ours_is.dev(), ours_is.ino()) {
                continue;
            }
            namespaces.push(Namespace { fd: File::open(&theirs)?.into(), kind });
            if name == "mnt" {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                node = Some(openat(CWD, format!("/proc/{pid}/root"), flags, Mode::empty())?);
            }
        }
        Ok(Self { node, namespaces })
    }

    /// The namespaces to enter, in this order.
    pub(super) fn into_namespaces(self) -> Vec<Namespace> {
        self.namespaces
    }

    /// Opens an absolute path as the command would, following symbolic links.
    pub(super) fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        Ok(match &self.node {
            None => openat(CWD, path, flags, Mode::empty())?,
            Some(node) => openat2(node.as_fd(), path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?,
        })
    }

    /// Reads a text file as the command would see it; a missing one is empty.
    pub(super) fn read(&self, path: &str) -> io::Result<String> {
        let file = match self.open(Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => File::from(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::with_capacity(16 << 10);
        file.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
