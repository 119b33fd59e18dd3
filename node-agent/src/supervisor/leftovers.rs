//! The processes that outlive the main process of a command.

use std::fs::File;
use std::io::Read;

use sentinel_protocol::exit::{Fate, LeftBehind, LeftProcess};
use sentinel_protocol::limits::{MAX_LEFT_PROCESSES, MAX_PROCESS_NAME};

use super::cgroup::Cgroup;
use super::kill;

/// From `linux/sched.h`: the process is in `do_exit`. It has closed its files, so the end of the output may be observed
/// before it is a zombie; it was not left behind.
const PF_EXITING: u32 = 0x4;

/// The processes that the command left behind; `None` when there are none, or only some that are exiting.
pub(super) fn left_behind(cgroup: Option<&Cgroup>, fate: Fate) -> Option<LeftBehind> {
    let mut left = LeftBehind { count: 0, fate, processes: Vec::new() };
    for pid in kill::pids(cgroup) {
        let Some(name) = name_of(pid) else { continue };
        left.count = left.count.saturating_add(1);
        if left.processes.len() < MAX_LEFT_PROCESSES {
            left.processes.push(LeftProcess { pid, name });
        }
    }
    (left.count > 0).then_some(left)
}

/// The name of a living process that is not exiting.
fn name_of(pid: i32) -> Option<String> {
    let mut buffer = [0; 1024];
    let read = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut buffer).ok()?;
    living_name(&buffer[..read])
}

/// The name in brackets may contain anything, such as `) R 1`; so the last bracket counts.
fn living_name(stat: &[u8]) -> Option<String> {
    let open = stat.iter().position(|&byte| byte == b'(')?;
    let close = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let flags: u32 = fields.nth(5)?.parse().ok()?;
    if matches!(state, "Z" | "X") || flags & PF_EXITING != 0 {
        return None;
    }
    let mut name = String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned();
    name.truncate(name.floor_char_boundary(MAX_PROCESS_NAME));
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(name: &str, state: char, flags: u32) -> Vec<u8> {
        format!("42 ({name}) {state} 7 8 9 0 -1 {flags} 1 2 3").into_bytes()
    }

    #[test]
    fn an_exiting_process_is_not_left_behind() {
        assert_eq!(living_name(&stat("sleep", 'S', 0x40_4000)).as_deref(), Some("sleep"));
        assert_eq!(living_name(&stat("a) R 1 (b", 'D', 0)).as_deref(), Some("a) R 1 (b"));
        assert_eq!(living_name(&stat("sleep", 'R', 0x40_4004)), None);
        assert_eq!(living_name(&stat("sleep", 'Z', 0)), None);
        assert_eq!(living_name(b"42 (half"), None);
    }
}
