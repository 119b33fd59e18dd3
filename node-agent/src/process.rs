//! Which process is meant: a pid alone is reused, a pid with its start time and boot id is not.

use std::fs::File;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use crate::host;

/// One process, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessIdentity {
    /// Its process id.
    pub pid: i32,
    /// When it was started, in clock ticks since boot.
    pub start_time: u64,
    /// The boot in which it ran.
    pub boot_id: String,
    /// Its namespace of process ids, where it is known and of interest; see [`host::pid_namespace`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl ProcessIdentity {
    /// The identity of the process that has this pid now.
    ///
    /// # Errors
    /// When there is none, or `/proc` cannot be read.
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, start_time: stat(pid)?.start_time, boot_id: host::boot_id()?, namespace: None })
    }

    /// The identity of this process, with its namespace.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn of_self() -> io::Result<Self> {
        let me = Self::of(std::process::id().cast_signed())?;
        Ok(Self { namespace: host::pid_namespace(), ..me })
    }

    /// Whether that process still exists; a zombie does not count.
    pub fn is_alive(&self) -> bool {
        host::boot_id().is_ok_and(|boot| boot == self.boot_id)
            && stat(self.pid).is_ok_and(|stat| stat.start_time == self.start_time && !stat.is_dead())
    }
}

/// The few fields of `/proc/<pid>/stat` that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: u8,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    pub(crate) start_time: u64,
}

impl Stat {
    /// A zombie, or a process on its way to become one.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// Reads `/proc/<pid>/stat`.
pub(crate) fn stat(pid: i32) -> io::Result<Stat> {
    // One read, as a growing buffer would take six; the line is at most a few hundred bytes.
    let mut buffer = [0; 1024];
    let read = File::open(format!("/proc/{pid}/stat"))?.read(&mut buffer)?;
    parse_stat(&String::from_utf8_lossy(&buffer[..read])).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has an unknown form"))
    })
}

/// The name in brackets may hold anything, also `) R 1`; so the last bracket counts.
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
    fn a_process_name_with_brackets_does_not_confuse_the_fields() {
        let text = "42 (a) R 1 (b) S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 1 2";
        let stat = parse_stat(text).unwrap();
        assert_eq!(stat, Stat { state: b'S', parent: 7, group: 8, session: 9, start_time: 777 });
    }

    #[test]
    fn this_process_is_alive_and_another_start_time_is_not_it() {
        let me = ProcessIdentity::of(std::process::id().cast_signed()).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessIdentity { start_time: me.start_time + 1, ..me.clone() }.is_alive());
        assert!(!ProcessIdentity { boot_id: "another".into(), ..me }.is_alive());
    }
}
