//! Identity of processes: a pid alone is reused, a pid with its start time and boot id is not.

use std::fs::File;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use crate::host;

/// One process, never another one that got its pid later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessIdentity {
    /// Its process id.
    pub pid: i32,
    /// When it was started, in clock ticks since boot.
    pub start_time: u64,
    /// The boot in which it ran.
    pub boot_id: String,
    /// Its pid namespace, where it is known; see [`pid_namespace`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl ProcessIdentity {
    /// The identity of the process with this pid.
    ///
    /// # Errors
    /// When there is no such process, or `/proc` cannot be read.
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, start_time: stat(pid)?.start_time, boot_id: host::boot_id()?, namespace: None })
    }

    /// The identity of another process in the pid namespace of this one, with that namespace.
    ///
    /// # Errors
    /// When there is no such process, or `/proc` cannot be read.
    pub fn of_other(pid: i32) -> io::Result<Self> {
        Ok(Self { namespace: pid_namespace(), ..Self::of(pid)? })
    }

    /// The identity of this process, with its pid namespace.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn of_self() -> io::Result<Self> {
        Self::of_other(std::process::id().cast_signed())
    }

    /// Whether that process still exists; a zombie does not count.
    pub fn is_alive(&self) -> bool {
        host::boot_id().is_ok_and(|boot| boot == self.boot_id)
            && stat(self.pid).is_ok_and(|stat| stat.start_time == self.start_time && !stat.is_dead())
    }
}

/// The scope that a process ends with: the boot of its machine and, as far as it is known, its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerScope {
    /// The boot id.
    pub boot_id: String,
    /// The pid namespace; see [`pid_namespace`].
    pub namespace: Option<String>,
}

impl ContainerScope {
    /// The scope of this process.
    ///
    /// # Errors
    /// When the boot id cannot be read.
    pub fn current() -> io::Result<Self> {
        Ok(Self { boot_id: host::boot_id()?, namespace: pid_namespace() })
    }
}

/// This process's pid namespace, by its number and the start time of its first process: numbers are reused. `None`
/// where `/proc` does not show it. When the first process ends, the kernel ends all others in the namespace
/// (`pid_namespaces(7)`).
pub fn pid_namespace() -> Option<String> {
    let number = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let started = stat(1).ok()?.start_time;
    Some(format!("{}@{started}", number.display()))
}

/// The fields of `/proc/<pid>/stat` that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: u8,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    pub(crate) start_time: u64,
}

impl Stat {
    /// Whether it is a zombie, or about to become one.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// Reads `/proc/<pid>/stat`.
pub(crate) fn stat(pid: i32) -> io::Result<Stat> {
    // One read, where a growing buffer takes six; the line is a few hundred bytes long.
    let mut buffer = [0; 1024];
    let read = File::open(format!("/proc/{pid}/stat"))?.read(&mut buffer)?;
    parse_stat(&String::from_utf8_lossy(&buffer[..read])).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has an unknown format"))
    })
}

/// The name in brackets may contain anything, such as `) R 1`; so the last bracket counts.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<i32>().ok();
    Some(Stat {
        state: *fields.first()?.as_bytes().first()?,
        parent: number(1)?,
        group: number(2)?,
        session: number(3)?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_stat_of_a_process_name_with_brackets() {
        let text = "42 (a) R 1 (b) S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 1 2";
        let stat = parse_stat(text).unwrap();
        assert_eq!(stat, Stat { state: b'S', parent: 7, group: 8, session: 9, start_time: 777 });
    }

    #[test]
    fn identity_distinguishes_start_time_and_boot() {
        let me = ProcessIdentity::of(std::process::id().cast_signed()).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessIdentity { start_time: me.start_time + 1, ..me.clone() }.is_alive());
        assert!(!ProcessIdentity { boot_id: "another".into(), ..me }.is_alive());
    }
}
