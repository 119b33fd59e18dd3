//! What a program that was started on an attacked node has seen of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{getegid, geteuid, getgroups};
use serde::{Deserialize, Serialize};

/// A program that was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// Its file, without symbolic links.
    pub exe: PathBuf,
    /// Its arguments, the name included.
    pub argv: Vec<String>,
    /// Its variables.
    pub env: BTreeMap<String, String>,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its further groups.
    pub groups: Vec<u32>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Its umask.
    pub umask: u32,
    /// The first 64 KiB of its standard input.
    pub stdin: String,
    /// Fields of `/proc/self/status`: `NoNewPrivs`, `Seccomp`, `CapEff`.
    pub status: BTreeMap<String, String>,
    /// Soft limits of open files and of core dumps.
    pub limits: [u64; 2],
    /// Whether it did not fit a datagram: then arguments, variables and input are missing.
    pub is_shortened: bool,
}

impl Witness {
    /// Of the running process.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn of_this_process(stdin: String) -> io::Result<Self> {
        let mask = umask(Mode::empty());
        let status = std::fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            (name.to_owned(), value.unwrap_or_default().trim().to_owned())
        };
        let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
        let limit = |resource| getrlimit(resource).map(|(soft, _)| soft).map_err(io::Error::from);
        Ok(Self {
            exe: std::fs::read_link("/proc/self/exe")?,
            argv: std::env::args_os().map(text).collect(),
            env: std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect(),
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
            groups: getgroups()?.into_iter().map(nix::unistd::Gid::as_raw).collect(),
            cwd: std::env::current_dir()?,
            umask: mask.bits(),
            stdin,
            status: ["NoNewPrivs", "Seccomp", "CapEff"].map(field).into(),
            limits: [limit(Resource::RLIMIT_NOFILE)?, limit(Resource::RLIMIT_CORE)?],
            is_shortened: false,
        })
    }

    /// Without what makes it long.
    #[must_use]
    pub fn shortened(&self) -> Self {
        let (argv, env, stdin) = (Vec::new(), BTreeMap::new(), String::new());
        Self { argv, env, stdin, is_shortened: true, ..self.clone() }
    }

    /// The Attempt that it was started for, as the agent has set it.
    pub fn attempt(&self) -> &str {
        self.env.get("SENTINEL_ATTEMPT").map_or("", String::as_str)
    }

    /// The name of its file.
    pub fn name(&self) -> &str {
        self.exe.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

/// The socket that a program in `<node>/bin` sends to.
///
/// # Errors
/// When the path is not of this form.
pub fn socket_of(exe: &Path) -> io::Result<PathBuf> {
    let node = exe.parent().and_then(Path::parent);
    node.map(|node| node.join("seen")).ok_or_else(|| io::Error::other("not in the directory of a node"))
}

/// All that were started on a node.
#[derive(Debug, Clone, Default)]
pub struct Witnesses(Arc<Mutex<Vec<Witness>>>);

impl Witnesses {
    /// Receives at this socket, which every user may send to, for as long as the process lives.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn listen(socket: &Path) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let listener = UnixDatagram::bind(socket)?;
        std::fs::set_permissions(socket, PermissionsExt::from_mode(0o666))?;
        let all = Self::default();
        let seen = all.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            while let Ok(length) = listener.recv(&mut buffer) {
                // All that arrives counts: what cannot be read is nothing that the oracle allows.
                let witness = serde_json::from_slice(&buffer[..length]).unwrap_or_default();
                seen.0.lock().unwrap_or_else(PoisonError::into_inner).push(witness);
            }
        });
        Ok(all)
    }

    /// Those so far.
    pub fn all(&self) -> Vec<Witness> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The Attempts of those so far.
    pub fn attempts(&self) -> BTreeSet<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|seen| seen.attempt().to_owned()).collect()
    }

    /// How many so far.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there was none so far.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
