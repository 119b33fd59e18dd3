//! The command's output: pipes → digest → Spool.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use sentinel_protocol::log::Stream;
use sentinel_protocol::to_operator::{OutputSummary, StreamSummary};
use sha2::{Digest, Sha256};

use crate::host;
use crate::spool::{Room, Writer};

/// Room of a pipe. More would only hide that the Spool is full.
const PIPE_SIZE: usize = 1 << 20;
/// Most that is read at once; after that the other pipe has its turn.
const READ_SIZE: usize = 256 << 10;

#[derive(Debug)]
struct Source {
    stream: Stream,
    /// `None` after end-of-file.
    pipe: Option<File>,
    digest: Sha256,
}

/// Whether the two streams of a command have a pipe each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Streams {
    /// They have.
    Separate,
    /// They share one.
    Merged,
}

/// The output pipes and the Spool behind them.
#[derive(Debug)]
pub(super) struct Output {
    /// One for each stream, or one for both.
    sources: Vec<Source>,
    writer: Writer,
    buffer: Vec<u8>,
}

/// What one look at the pipes brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Brought {
    /// There may be more.
    More,
    /// All are empty or at their end.
    Nothing,
}

impl Output {
    /// Makes the pipes; returned are the ends that the command has as standard output and error. Merged, they are one
    /// pipe, so that the order of writing is kept, and all of it counts as standard output.
    pub(super) fn new(writer: Writer, streams: Streams) -> io::Result<(Self, [OwnedFd; 2])> {
        let (stdout, stdout_end) = source(Stream::Stdout)?;
        let mut sources = vec![stdout];
        let stderr_end = if streams == Streams::Merged {
            stdout_end.try_clone()?
        } else {
            let (stderr, stderr_end) = source(Stream::Stderr)?;
            sources.push(stderr);
            stderr_end
        };
        let output = Self { sources, writer, buffer: vec![0; READ_SIZE] };
        Ok((output, [stdout_end, stderr_end]))
    }

    /// The pipes that are still open.
    pub(super) fn pipes(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sources.iter().filter_map(|source| source.pipe.as_ref()).map(AsFd::as_fd)
    }

    /// Whether all pipes are at their end.
    pub(super) fn is_closed(&self) -> bool {
        self.sources.iter().all(|source| source.pipe.is_none())
    }

    /// Whether the pipes may be read now.
    pub(super) fn room(&mut self, now: u64) -> Room {
        self.writer.room(now, host::wall_clock_micros())
    }

    /// Takes note of output that the reader has released.
    pub(super) fn notice_released(&mut self, now: u64) {
        self.writer.notice_released(now);
    }

    /// Reads each pipe once.
    pub(super) fn read(&mut self) -> Brought {
        let mut result = Brought::Nothing;
        for source in &mut self.sources {
            let Some(pipe) = &mut source.pipe else { continue };
            match pipe.read(&mut self.buffer) {
                Ok(0) => source.pipe = None,
                Ok(read) => {
                    let data = &self.buffer[..read];
                    source.digest.update(data);
                    self.writer.append(source.stream, data, host::wall_clock_micros());
                    result = Brought::More;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => result = Brought::More,
                Err(_) => source.pipe = None,
            }
        }
        result
    }

    /// Closes the pipes and the log.
    pub(super) fn finish(&mut self, now: u64) -> OutputSummary {
        for source in &mut self.sources {
            source.pipe = None;
        }
        let written = self.writer.finish(now);
        // A merged stream is empty and has no digest.
        let summary = |(at, source): (usize, &Source)| StreamSummary {
            bytes: written.bytes[at],
            dropped: written.dropped[at],
            sha256: hex(&source.digest.clone().finalize()),
        };
        let mut summaries = self.sources.iter().enumerate().map(summary);
        let stdout = summaries.next().unwrap_or_default();
        let stderr = summaries.next().unwrap_or_default();
        OutputSummary { stdout, stderr, end: written.end, blocked_ms: written.blocked_ms, held_open: false }
    }

    /// Makes the log durable, as far as the disk plays along.
    pub(super) fn sync(&mut self) {
        self.writer.sync();
    }
}

fn source(stream: Stream) -> io::Result<(Source, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    // Refused where the user's pipes are limited; the default is only slower.
    let _ = fcntl_setpipe_size(&read, PIPE_SIZE);
    Ok((Source { stream, pipe: Some(File::from(read)), digest: Sha256::new() }, write))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
