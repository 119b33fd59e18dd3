//! Writes the command's standard input without ever blocking.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use zeroize::Zeroizing;

/// Bytes to be written to the command; dropping it is end-of-file.
#[derive(Debug)]
pub(super) struct StdinFeed {
    pipe: File,
    rest: Zeroizing<Vec<u8>>,
}

impl StdinFeed {
    /// Feeds these bytes to this pipe.
    pub(super) fn new(pipe: OwnedFd, bytes: Vec<u8>) -> Self {
        // Usually all of it fits; where the pipe cannot grow, the loop writes the rest.
        let _ = fcntl_setpipe_size(&pipe, bytes.len().max(4096));
        Self { pipe: File::from(pipe), rest: Zeroizing::new(bytes) }
    }

    /// Writes what the pipe takes; `None` when all is written or the command has closed its end.
    pub(super) fn feed(mut self) -> Option<Self> {
        while !self.rest.is_empty() {
            match self.pipe.write(&self.rest) {
                Ok(written) => drop(self.rest.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(self),
                Err(_) => return None,
            }
        }
        None
    }
}

impl AsFd for StdinFeed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// A pipe for standard input: the supervisor's end, which does not block, and the command's.
pub(super) fn open_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&write, true)?;
    Ok((write, read))
}
