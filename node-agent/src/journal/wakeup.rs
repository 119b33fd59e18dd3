//! How the agent and its supervisors wake each other: named pipes in the state directory.
//!
//! ```text
//! <state directory>/bell       supervisors → agent: which Attempt changed, and what about it
//! attempts/<name>/bell         agent → its supervisor: there is a cancel request, or output was released
//! ```
//!
//! A wake-up is only a hint: what is done about it follows from the files, and everything is also polled from time to
//! time. So a wake-up may be lost, repeated or late, and a file system without named pipes costs time and nothing else.
//! Inotify would do the same, but a user has few instances of it on a machine (128 by default), which all programs of
//! that user share.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::io::Errno;

/// The name of a pipe, in the state directory and in that of an Attempt. Supervisors of an earlier release open it by
/// this name.
const PIPE: &str = "bell";

/// Bytes read at once. A pipe holds 64 KiB, and one that is nearly full may have rejected wake-ups.
const READ_SIZE: usize = 64 << 10;
const NEARLY_FULL: usize = 60 << 10;

/// Longest name of an Attempt's directory in a wake-up, bytes.
const MAX_NAME: usize = 512;

/// What may have changed about an Attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// State or exit record.
    Record,
    /// There is new output.
    Output,
}

/// A supervisor woke the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wakeup {
    /// Name of the Attempt's directory, as it was read from the pipe: not validated.
    pub attempt: String,
    /// What may have changed.
    pub change: Change,
}

/// The wake-ups since the last call of [`AgentWakeups::drain`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReceivedWakeups {
    /// Each kind of each Attempt once.
    pub wakeups: Vec<Wakeup>,
    /// Whether the pipe may have rejected some: anything may have changed.
    pub may_be_incomplete: bool,
}

/// The agent's end of its pipe; readable when [`AgentWakeups::drain`] has something to return.
#[derive(Debug)]
pub struct AgentWakeups {
    pipe: File,
    /// The beginning of a wake-up that was not read completely.
    partial: Vec<u8>,
}

impl AgentWakeups {
    /// Opens the pipe of a state directory, creating it where it is missing.
    ///
    /// # Errors
    /// When the file system has no named pipes, or the name is taken by something else.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        Ok(Self { pipe: open_for_reading(&state_dir.join(PIPE))?, partial: Vec::new() })
    }

    /// Reads the wake-ups since the last call.
    ///
    /// # Errors
    /// When the pipe cannot be read.
    pub fn drain(&mut self) -> io::Result<ReceivedWakeups> {
        let mut received = ReceivedWakeups::default();
        let mut bytes = std::mem::take(&mut self.partial);
        let mut buffer = vec![0; READ_SIZE];
        match self.pipe.read(&mut buffer) {
            Ok(read) => {
                bytes.extend_from_slice(&buffer[..read]);
                received.may_be_incomplete = read >= NEARLY_FULL;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.partial = bytes.split_off(complete);
        if self.partial.len() > MAX_NAME {
            self.partial.clear();
            received.may_be_incomplete = true;
        }
        for wakeup in bytes.split(|byte| *byte == b'\n').filter_map(parse) {
            if !received.wakeups.contains(&wakeup) {
                received.wakeups.push(wakeup);
            }
        }
        Ok(received)
    }
}

impl AsFd for AgentWakeups {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

fn parse(line: &[u8]) -> Option<Wakeup> {
    let (kind, name) = line.split_first()?;
    let change = match kind {
        b'R' => Change::Record,
        b'O' => Change::Output,
        _ => return None,
    };
    let attempt = std::str::from_utf8(name).ok().filter(|name| name.len() <= MAX_NAME)?.to_owned();
    Some(Wakeup { attempt, change })
}

/// A supervisor's end of the agent's pipe. It never blocks and never fails: without an agent there is nothing to wake.
#[derive(Debug)]
pub(crate) struct AgentWaker {
    path: PathBuf,
    name: String,
    /// Open since the last wake-up. It survives a restart of the agent, as the pipe does.
    pipe: Option<File>,
}

impl AgentWaker {
    /// For the Attempt whose directory has this name, in this state directory.
    pub(super) fn new(state_dir: &Path, name: &str) -> Self {
        Self { path: state_dir.join(PIPE), name: name.to_owned(), pipe: None }
    }

    /// Wakes the agent.
    pub(crate) fn wake(&mut self, change: Change) {
        let kind = match change {
            Change::Record => 'R',
            Change::Output => 'O',
        };
        // Shorter than PIPE_BUF, so it is written as a whole or not at all.
        let line = format!("{kind}{}\n", self.name);
        if self.pipe.is_none() {
            self.pipe = open_for_writing(&self.path).ok();
        }
        if let Some(pipe) = &mut self.pipe
            && let Err(error) = pipe.write(line.as_bytes())
            && error.kind() != io::ErrorKind::WouldBlock
        {
            self.pipe = None;
        }
    }
}

/// A supervisor's own pipe, by which the agent wakes it; readable when it was woken.
#[derive(Debug)]
pub(crate) struct SupervisorWakeups(File);

impl SupervisorWakeups {
    /// The pipe in this directory of an Attempt, created where it is missing.
    pub(super) fn open(attempt_dir: &Path) -> io::Result<Self> {
        open_for_reading(&attempt_dir.join(PIPE)).map(Self)
    }

    /// Discards all wake-ups, so that the next one is seen.
    pub(crate) fn drain(&mut self) {
        let mut buffer = [0; 256];
        while matches!(self.0.read(&mut buffer), Ok(read) if read == buffer.len()) {}
    }
}

impl AsFd for SupervisorWakeups {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Wakes the supervisor of the Attempt in this directory, if one is waiting.
pub(super) fn wake_supervisor(attempt_dir: &Path) {
    if let Ok(mut pipe) = open_for_writing(&attempt_dir.join(PIPE)) {
        // When the pipe is full, a wake-up is pending already.
        let _ = pipe.write(b"\n");
    }
}

/// Opened for both directions, a pipe never reaches end-of-file, and opening does not wait for the other side.
fn open_for_reading(path: &Path) -> io::Result<File> {
    match mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    open(path, OpenOptions::new().read(true).write(true))
}

fn open_for_writing(path: &Path) -> io::Result<File> {
    open(path, OpenOptions::new().write(true))
}

fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = options.custom_flags(flags.bits().cast_signed()).open(path)?;
    if !file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "not a named pipe"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: ReceivedWakeups = ReceivedWakeups { wakeups: Vec::new(), may_be_incomplete: false };

    #[test]
    fn wakeups_of_many_supervisors_arrive_whole_and_deduplicated() {
        let dir = tempfile::tempdir().unwrap();
        let mut wakeups = AgentWakeups::open(dir.path()).unwrap();
        let (mut one, mut two) = (AgentWaker::new(dir.path(), "a.1.1"), AgentWaker::new(dir.path(), "b.2.1"));
        one.wake(Change::Record);
        two.wake(Change::Output);
        one.wake(Change::Record);
        let wakeup = |attempt: &str, change| Wakeup { attempt: attempt.to_owned(), change };
        let expected = vec![wakeup("a.1.1", Change::Record), wakeup("b.2.1", Change::Output)];
        assert_eq!(wakeups.drain().unwrap(), ReceivedWakeups { wakeups: expected, ..NONE });
        assert_eq!(wakeups.drain().unwrap(), NONE);
    }

    #[test]
    fn a_full_pipe_is_reported_as_incomplete() {
        let dir = tempfile::tempdir().unwrap();
        let mut wakeups = AgentWakeups::open(dir.path()).unwrap();
        let mut waker = AgentWaker::new(dir.path(), "0b6c1d1e-7a54-4b0e-9c1c-0a6f2f6a9e11.1.1");
        (0..5_000).for_each(|_| waker.wake(Change::Output));
        let received = wakeups.drain().unwrap();
        assert_eq!((received.wakeups.len(), received.may_be_incomplete), (1, true));
    }

    #[test]
    fn a_waker_survives_a_restart_of_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let mut waker = AgentWaker::new(dir.path(), "a.1.1");
        waker.wake(Change::Record);
        drop(AgentWakeups::open(dir.path()).unwrap());
        waker.wake(Change::Record);
        let mut wakeups = AgentWakeups::open(dir.path()).unwrap();
        waker.wake(Change::Record);
        assert_eq!(wakeups.drain().unwrap().wakeups.len(), 1);
        drop(wakeups);
        waker.wake(Change::Record);
        let mut wakeups = AgentWakeups::open(dir.path()).unwrap();
        waker.wake(Change::Record);
        assert_eq!(wakeups.drain().unwrap().wakeups.len(), 1);
    }

    #[test]
    fn malformed_wakeups_are_skipped_and_other_files_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let mut wakeups = AgentWakeups::open(dir.path()).unwrap();
        let mut pipe = open_for_writing(&dir.path().join(PIPE)).unwrap();
        pipe.write_all(b"\nXa\nR\xff\n").unwrap();
        pipe.write_all(&[b'R'; 2 * MAX_NAME]).unwrap();
        assert_eq!(wakeups.drain().unwrap(), ReceivedWakeups { may_be_incomplete: true, ..NONE });
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join(PIPE), "").unwrap();
        assert!(AgentWakeups::open(other.path()).is_err());
    }

    #[test]
    fn a_supervisor_is_readable_from_a_wakeup_until_it_drains() {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let dir = tempfile::tempdir().unwrap();
        wake_supervisor(dir.path());
        let mut wakeups = SupervisorWakeups::open(dir.path()).unwrap();
        let is_readable = |wakeups: &SupervisorWakeups| {
            let mut fds = [PollFd::new(wakeups, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
        };
        assert!(!is_readable(&wakeups));
        wake_supervisor(dir.path());
        wake_supervisor(dir.path());
        assert!(is_readable(&wakeups));
        wakeups.drain();
        assert!(!is_readable(&wakeups));
    }
}
