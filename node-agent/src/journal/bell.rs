//! How the agent and its supervisors wake each other: named pipes in the state directory.
//!
//! ```text
//! <state directory>/bell       supervisors → agent: which Attempt changed, and what of it
//! attempts/<name>/bell         agent → its supervisor: there is a cancel request, or output was released
//! ```
//!
//! A ring is a hint and no more: what is done about it follows from the files, and whatever is waited for is also
//! looked for from time to time. So a ring may be lost, repeated or late, and a file system without named pipes costs
//! time and nothing else. Inotify would do the same, but each user has few instances of it on a machine (128 by
//! default), which all programs of that user share.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::io::Errno;

use super::AttemptDir;

/// The name of a pipe, in the state directory and in that of an Attempt.
const BELL: &str = "bell";

/// Bytes read at once. A pipe holds 64 KiB, and one that is nearly full may have turned rings away.
const READ_SIZE: usize = 64 << 10;
const NEARLY_FULL: usize = 60 << 10;

/// A name is longer in no ring: a task's uid, a run and an attempt.
const MAX_NAME: usize = 512;

/// What may have changed of an Attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Changed {
    /// State or exit record.
    Record,
    /// There is new output.
    Output,
}

/// The agent was rung.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// Name of the Attempt's directory, as the pipe has it: not checked.
    pub attempt: String,
    /// What may have changed.
    pub what: Changed,
}

/// Whether every ring since the last call is among those that were heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It is.
    All,
    /// Some may have been turned away: anything may have changed.
    Some,
}

/// The agent's end of its pipe; readable when [`Bell::rings`] has something to tell.
#[derive(Debug)]
pub struct Bell {
    pipe: File,
    /// The beginning of a ring whose end is still in the pipe.
    rest: Vec<u8>,
}

impl Bell {
    /// The pipe of a state directory, made if it is not there.
    ///
    /// # Errors
    /// When the file system has no named pipes, or something else has the name.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        Ok(Self { pipe: open_for_reading(&state_dir.join(BELL))?, rest: Vec::new() })
    }

    /// The rings since the last call, each kind of each Attempt once.
    ///
    /// # Errors
    /// When the pipe cannot be read.
    pub fn rings(&mut self) -> io::Result<(Vec<Ring>, Heard)> {
        let mut bytes = std::mem::take(&mut self.rest);
        let mut buffer = vec![0; READ_SIZE];
        let mut heard = Heard::All;
        match self.pipe.read(&mut buffer) {
            Ok(read) => {
                bytes.extend_from_slice(&buffer[..read]);
                if read >= NEARLY_FULL {
                    heard = Heard::Some;
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.rest = bytes.split_off(whole);
        if self.rest.len() > MAX_NAME {
            self.rest.clear();
            heard = Heard::Some;
        }
        let mut rings: Vec<Ring> = Vec::new();
        for ring in bytes.split(|byte| *byte == b'\n').filter_map(read_ring) {
            if !rings.contains(&ring) {
                rings.push(ring);
            }
        }
        Ok((rings, heard))
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

fn read_ring(line: &[u8]) -> Option<Ring> {
    let (kind, name) = line.split_first()?;
    let what = match kind {
        b'R' => Changed::Record,
        b'O' => Changed::Output,
        _ => return None,
    };
    let attempt = std::str::from_utf8(name).ok().filter(|name| name.len() <= MAX_NAME)?.to_owned();
    Some(Ring { attempt, what })
}

/// A supervisor's hand on the agent's bell. Nothing here waits or fails: without an agent there is nobody to ring.
#[derive(Debug)]
pub(crate) struct Hand {
    bell: PathBuf,
    name: String,
    /// Open since the last ring; it stays good when the agent is replaced, as the pipe does.
    pipe: Option<File>,
}

impl Hand {
    pub(crate) fn of(attempt: &AttemptDir) -> Self {
        Self { bell: attempt.state_dir().join(BELL), name: attempt.name().to_owned(), pipe: None }
    }

    /// Rings.
    pub(crate) fn ring(&mut self, what: Changed) {
        let kind = match what {
            Changed::Record => 'R',
            Changed::Output => 'O',
        };
        // Shorter than PIPE_BUF, so it is written as a whole or not at all.
        let ring = format!("{kind}{}\n", self.name);
        if self.pipe.is_none() {
            self.pipe = open_for_writing(&self.bell).ok();
        }
        if let Some(pipe) = &mut self.pipe
            && let Err(error) = pipe.write(ring.as_bytes())
            && error.kind() != io::ErrorKind::WouldBlock
        {
            self.pipe = None;
        }
    }
}

/// A supervisor's own bell, which the agent rings; readable when it was rung.
#[derive(Debug)]
pub(crate) struct SupervisorBell(File);

impl SupervisorBell {
    pub(crate) fn open(attempt: &AttemptDir) -> io::Result<Self> {
        open_for_reading(&attempt.file(BELL)).map(Self)
    }

    /// Stops it, for the next ring to be heard.
    pub(crate) fn hush(&mut self) {
        let mut buffer = [0; 256];
        while matches!(self.0.read(&mut buffer), Ok(read) if read == buffer.len()) {}
    }
}

impl AsFd for SupervisorBell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Rings the supervisor of an Attempt, if one listens.
pub(crate) fn ring_supervisor(attempt: &AttemptDir) {
    if let Ok(mut pipe) = open_for_writing(&attempt.file(BELL)) {
        // Full, it has been rung already.
        let _ = pipe.write(b"\n");
    }
}

/// Opened for both directions, a pipe never comes to an end, and opening does not wait for the other side.
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
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is not a named pipe"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(state_dir: &Path, name: &str) -> AttemptDir {
        let dir = state_dir.join("attempts").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        AttemptDir::at(dir)
    }

    #[test]
    fn rings_of_many_supervisors_arrive_whole_and_each_kind_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut bell = Bell::open(dir.path()).unwrap();
        let (mut one, mut two) =
            (Hand::of(&attempt(dir.path(), "a.1.1")), Hand::of(&attempt(dir.path(), "b.2.1")));
        one.ring(Changed::Record);
        two.ring(Changed::Output);
        one.ring(Changed::Record);
        let ring = |attempt: &str, what| Ring { attempt: attempt.to_owned(), what };
        let expected = vec![ring("a.1.1", Changed::Record), ring("b.2.1", Changed::Output)];
        assert_eq!(bell.rings().unwrap(), (expected, Heard::All));
        assert_eq!(bell.rings().unwrap(), (vec![], Heard::All));
    }

    #[test]
    fn an_agent_that_did_not_listen_for_long_learns_that_it_missed_some() {
        let dir = tempfile::tempdir().unwrap();
        let mut bell = Bell::open(dir.path()).unwrap();
        let mut hand = Hand::of(&attempt(dir.path(), "0b6c1d1e-7a54-4b0e-9c1c-0a6f2f6a9e11.1.1"));
        (0..5_000).for_each(|_| hand.ring(Changed::Output));
        let (rings, heard) = bell.rings().unwrap();
        assert_eq!((rings.len(), heard), (1, Heard::Some));
    }

    #[test]
    fn a_supervisor_rings_the_next_agent_as_it_rang_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut hand = Hand::of(&attempt(dir.path(), "a.1.1"));
        hand.ring(Changed::Record);
        drop(Bell::open(dir.path()).unwrap());
        hand.ring(Changed::Record);
        let mut bell = Bell::open(dir.path()).unwrap();
        hand.ring(Changed::Record);
        assert_eq!(bell.rings().unwrap().0.len(), 1);
        drop(bell);
        hand.ring(Changed::Record);
        let mut bell = Bell::open(dir.path()).unwrap();
        hand.ring(Changed::Record);
        assert_eq!(bell.rings().unwrap().0.len(), 1);
    }

    #[test]
    fn what_is_no_ring_is_left_out_and_what_is_no_pipe_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let mut bell = Bell::open(dir.path()).unwrap();
        let mut pipe = open_for_writing(&dir.path().join(BELL)).unwrap();
        pipe.write_all(b"\nXa\nR\xff\n").unwrap();
        pipe.write_all(&[b'R'; 2 * MAX_NAME]).unwrap();
        assert_eq!(bell.rings().unwrap(), (vec![], Heard::Some));
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join(BELL), "").unwrap();
        assert!(Bell::open(other.path()).is_err());
    }

    #[test]
    fn a_supervisor_hears_that_it_was_rung_and_is_quiet_after_it_was_hushed() {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let dir = tempfile::tempdir().unwrap();
        let attempt = attempt(dir.path(), "a.1.1");
        ring_supervisor(&attempt);
        let mut bell = SupervisorBell::open(&attempt).unwrap();
        let rung = |bell: &SupervisorBell| {
            let mut fds = [PollFd::new(bell, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
        };
        assert!(!rung(&bell));
        ring_supervisor(&attempt);
        ring_supervisor(&attempt);
        assert!(rung(&bell));
        bell.hush();
        assert!(!rung(&bell));
    }
}
