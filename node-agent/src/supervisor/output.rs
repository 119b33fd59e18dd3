//! The command's output: pipes → digest → Spool.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use sentinel_protocol::log::Stream;
use sentinel_protocol::to_operator::{OutputSummary, StreamSummary};
use sha2::{Digest, Sha256};

use super::mask::{Masker, Patterns};
use crate::host;
use crate::spool::{Room, Writer};

/// Size of a pipe, bytes. More would only hide that the Spool is full.
const PIPE_SIZE: usize = 1 << 20;
/// How long output may be held back that may become the value of a Secret, milliseconds: a prompt is seen after it.
const RELEASE_AFTER_MS: u64 = 200;
/// Bytes read at once; then the other pipe is read, and the clocks are.
const READ_SIZE: usize = 256 << 10;
/// Bytes read at once where values are masked, which takes longer.
const MASKED_READ_SIZE: usize = 16 << 10;

#[derive(Debug)]
struct StreamPipe {
    stream: Stream,
    /// `None` after end-of-file.
    pipe: Option<File>,
    digest: Sha256,
    /// `None` where no value of a Secret is to be masked.
    masker: Option<Masker>,
    /// When what the masker holds back is released.
    release_at: Option<u64>,
}

/// Whether the two streams of a command have a pipe each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Streams {
    /// Each has its own.
    Separate,
    /// They share one.
    Merged,
}

/// The output pipes and the Spool behind them.
#[derive(Debug)]
pub(super) struct Output {
    /// One for each stream, or one for both.
    streams: Vec<StreamPipe>,
    writer: Writer,
    buffer: Vec<u8>,
    /// What a masker has decided.
    masked: Vec<u8>,
}

/// The result of reading the pipes once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadProgress {
    /// There was data; there may be more.
    Data,
    /// All pipes are empty or at end-of-file.
    Empty,
}

impl Output {
    /// Reads these pipes: of merged streams only that of standard output, so that the order of writing is kept and all of it
    /// counts as standard output.
    pub(super) fn new(
        writer: Writer,
        streams: Streams,
        [stdout, stderr]: [OwnedFd; 2],
        secrets: Option<&Arc<Patterns>>,
    ) -> Self {
        let open = |stream, pipe: OwnedFd| StreamPipe {
            stream,
            pipe: Some(File::from(pipe)),
            digest: Sha256::new(),
            masker: secrets.map(|patterns| Masker::new(patterns.clone())),
            release_at: None,
        };
        let mut pipes = vec![open(Stream::Stdout, stdout)];
        if streams == Streams::Separate {
            pipes.push(open(Stream::Stderr, stderr));
        }
        let read_size = if secrets.is_some() { MASKED_READ_SIZE } else { READ_SIZE };
        Self { streams: pipes, writer, buffer: vec![0; read_size], masked: Vec::new() }
    }

    /// The pipes that are still open.
    pub(super) fn pipes(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.streams.iter().filter_map(|stream| stream.pipe.as_ref()).map(AsFd::as_fd)
    }

    /// Whether all pipes are at end-of-file.
    pub(super) fn is_closed(&self) -> bool {
        self.streams.iter().all(|stream| stream.pipe.is_none())
    }

    /// Whether the pipes may be read now.
    pub(super) fn room(&mut self, now: u64) -> Room {
        self.writer.room(now, host::wall_clock_micros())
    }

    /// Detects output that the reader has released.
    pub(super) fn detect_released(&mut self, now: u64) {
        self.writer.detect_released(now);
    }

    /// Reads each pipe once.
    pub(super) fn read(&mut self) -> ReadProgress {
        let mut result = ReadProgress::Empty;
        let Self { streams, writer, buffer, masked } = self;
        for stream in streams {
            let Some(pipe) = &mut stream.pipe else { continue };
            match pipe.read(buffer) {
                Ok(0) => stream.close(writer, masked),
                Ok(read) => {
                    stream.take(&buffer[..read], writer, masked);
                    result = ReadProgress::Data;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => result = ReadProgress::Data,
                Err(_) => stream.close(writer, masked),
            }
        }
        result
    }

    /// Reads what is in the pipes now, so that nothing is lost that was written before. What is written meanwhile is not waited for;
    /// what the Spool has no room for becomes a hole.
    pub(super) fn read_rest(&mut self, now: u64) {
        let Self { streams, writer, buffer, masked } = self;
        for stream in streams {
            let unread = |stream: &StreamPipe| match &stream.pipe {
                Some(pipe) => rustix::io::ioctl_fionread(pipe).unwrap_or(0),
                None => 0,
            };
            // One read more shows whether that was all.
            let mut most = unread(stream) + 1;
            while let Some(pipe) = stream.pipe.as_mut().filter(|_| most > 0) {
                if writer.room(now, host::wall_clock_micros()) != Room::Open {
                    writer.leave_out(stream.stream, unread(stream), host::wall_clock_micros());
                    break;
                }
                match pipe.read(buffer) {
                    Ok(0) => stream.close(writer, masked),
                    Ok(read) => {
                        stream.take(&buffer[..read], writer, masked);
                        most = most.saturating_sub(read as u64);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => stream.close(writer, masked),
                }
            }
        }
    }

    /// When [`Self::release_held`] is to be called.
    pub(super) fn release_at(&self) -> Option<u64> {
        self.streams.iter().filter_map(|stream| stream.release_at).min()
    }

    /// Stores output that was held back for long enough, because it may become the value of a Secret; whether there was some.
    pub(super) fn release_held(&mut self, now: u64) -> bool {
        let Self { streams, writer, masked, .. } = self;
        let mut due: Vec<&mut StreamPipe> =
            streams.iter_mut().filter(|stream| stream.release_at.is_some_and(|at| now >= at)).collect();
        for stream in &mut due {
            stream.release_at = None;
            if let Some(masker) = &mut stream.masker {
                masker.release(masked);
            }
            stream.store(masked, writer);
        }
        !due.is_empty()
    }

    /// How often the value of a Secret was replaced.
    pub(super) fn marks(&self) -> u64 {
        self.streams.iter().filter_map(|stream| stream.masker.as_ref()).map(Masker::marks).sum()
    }

    /// Closes the pipes and the log.
    pub(super) fn finish(&mut self, now: u64) -> OutputSummary {
        for stream in &mut self.streams {
            stream.close(&mut self.writer, &mut self.masked);
        }
        let written = self.writer.finish(now);
        // A merged stream is empty and has no digest.
        let summary = |(at, stream): (usize, &StreamPipe)| StreamSummary {
            bytes: written.bytes[at],
            dropped: written.dropped[at],
            sha256: hex(&stream.digest.clone().finalize()),
        };
        let mut summaries = self.streams.iter().enumerate().map(summary);
        let stdout = summaries.next().unwrap_or_default();
        let stderr = summaries.next().unwrap_or_default();
        OutputSummary { stdout, stderr, end: written.end, blocked_ms: written.blocked_ms, held_open: false }
    }

    /// Syncs the log, best effort.
    pub(super) fn sync(&mut self) {
        self.writer.sync();
    }
}

impl StreamPipe {
    /// Stores what the command has written, masked.
    fn take(&mut self, data: &[u8], writer: &mut Writer, masked: &mut Vec<u8>) {
        match &mut self.masker {
            None => {
                self.digest.update(data);
                writer.append(self.stream, data, host::wall_clock_micros());
            }
            Some(masker) => {
                masker.feed(data, masked);
                if masker.holds_end_of_line() {
                    masker.release(masked);
                }
                self.release_at =
                    masker.may_release().then(|| host::boot_clock_ms().saturating_add(RELEASE_AFTER_MS));
                self.store(masked, writer);
            }
        }
    }

    fn store(&mut self, masked: &mut Vec<u8>, writer: &mut Writer) {
        if !masked.is_empty() {
            self.digest.update(&masked[..]);
            writer.append(self.stream, masked, host::wall_clock_micros());
            masked.clear();
        }
    }

    /// Closes the pipe, and stores what was held back.
    fn close(&mut self, writer: &mut Writer, masked: &mut Vec<u8>) {
        self.pipe = None;
        self.release_at = None;
        if let Some(masker) = &mut self.masker {
            masker.finish(masked);
            self.store(masked, writer);
        }
    }
}

/// A pipe for output: the supervisor's end, which does not block, and the command's.
pub(super) fn open_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    // Denied where the user's pipes are limited; the default size is only slower.
    let _ = fcntl_setpipe_size(&read, PIPE_SIZE);
    Ok((read, write))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use sentinel_protocol::request::OutputRules;

    use super::*;

    /// Both pipes, with this many bytes in each; the command's ends.
    fn output(log: &std::path::Path, spool: u64, unread: usize) -> (Output, [File; 2]) {
        let rules = OutputRules { limit: 1 << 30, spool, max_block_ms: 1_000, merge: false, mask: true };
        let [out, err] = [open_pipe().unwrap(), open_pipe().unwrap()];
        let mut ends = [File::from(out.1), File::from(err.1)];
        for end in &mut ends {
            end.write_all(&vec![b'x'; unread]).unwrap();
        }
        (Output::new(Writer::create(log, rules).unwrap(), Streams::Separate, [out.0, err.0], None), ends)
    }

    #[test]
    fn the_rest_is_read_to_the_end_unless_a_process_holds_the_pipes() {
        for is_held in [false, true] {
            let log = tempfile::tempdir().unwrap();
            let (mut output, ends) = output(log.path(), 16 << 20, 60_000);
            output.buffer.truncate(7_000);
            let _ends = is_held.then_some(ends);
            output.read_rest(0);
            assert_eq!(output.is_closed(), !is_held);
            let summary = output.finish(0);
            assert_eq!([summary.stdout.bytes, summary.stderr.bytes], [60_000; 2]);
            assert_eq!([summary.stdout.dropped, summary.stderr.dropped], [0; 2]);
        }
    }

    /// What was still in the pipe was missing without a mark.
    #[test]
    fn a_rest_without_room_in_the_spool_is_a_hole() {
        let log = tempfile::tempdir().unwrap();
        let (mut output, _ends) = output(log.path(), 16 << 10, 60_000);
        output.buffer.truncate(7_000);
        output.read_rest(0);
        let summary = output.finish(0);
        assert_eq!([summary.stdout.bytes, summary.stderr.bytes], [60_000; 2]);
        assert!((1..60_000).contains(&summary.stdout.dropped), "{}", summary.stdout.dropped);
        assert_eq!(summary.stderr.dropped, 60_000);
    }
}
