//! The lengths of dropped segments: a file of lines, each `<8 hexadecimal digits of crc32> <JSON>` for one segment.
//!
//! The runs keep the exact order of the two streams, so that a reader in the middle of a segment learns exactly what is
//! missing from there on. A run takes a few bytes where its output took thousands.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sentinel_protocol::log::{DropReason, LogRecord, Stream};
use serde::{Deserialize, Serialize};

use super::SpoolError;
use super::log_position::{LogPosition, STREAMS, index};

/// Bytes of a drop file that are read.
const MAX_FILE: u64 = 64 << 20;

/// One dropped segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Dropped {
    /// Where it began.
    position: u64,
    stdout: u64,
    stderr: u64,
    /// When it was dropped, microseconds since the Unix epoch.
    at_micros: i64,
    /// Lengths of the runs, of stdout and stderr in turn, stdout first (0 when the first run is stderr's).
    runs: Vec<u64>,
}

impl Dropped {
    pub(crate) fn new(start: &LogPosition, at_micros: i64) -> Self {
        let [stdout, stderr] = start.offsets;
        Self { position: start.position, stdout, stderr, at_micros, runs: Vec::new() }
    }

    /// Adds output to the last run, or begins one.
    pub(crate) fn push(&mut self, stream: Stream, len: u64) {
        if len == 0 {
            return;
        }
        if self.runs.is_empty() {
            self.runs.push(0);
        }
        if (self.runs.len() - 1) % 2 != index(stream) {
            self.runs.push(0);
        }
        if let Some(last) = self.runs.last_mut() {
            *last += len;
        }
    }

    pub(crate) fn start(&self) -> LogPosition {
        LogPosition { position: self.position, offsets: [self.stdout, self.stderr] }
    }

    fn runs(&self) -> impl Iterator<Item = (Stream, u64)> {
        self.runs.iter().zip(STREAMS.into_iter().cycle()).map(|(len, stream)| (stream, *len))
    }

    pub(crate) fn end(&self) -> LogPosition {
        self.runs().fold(self.start(), |place, (stream, len)| place.after(stream, len))
    }

    /// One hole per run.
    pub(crate) fn holes(&self) -> impl Iterator<Item = LogRecord> {
        let mut place = self.start();
        self.runs().filter(|(_, len)| *len > 0).map(move |(stream, len)| {
            let head = place.head(stream, len, self.at_micros, Some(DropReason::SpoolFull));
            place = place.after(stream, len);
            LogRecord { head, data: bytes::Bytes::new() }
        })
    }
}

/// Appends one; returns the number of bytes written. On failure the file is cut back to its length before.
pub(crate) fn append(path: &Path, dropped: &Dropped) -> Result<u64, SpoolError> {
    let failed = |e| SpoolError::io("write", path, e);
    let json = serde_json::to_string(dropped).map_err(|e| failed(e.into()))?;
    let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(failed)?;
    let before = file.metadata().map_err(failed)?.len();
    if let Err(error) = file.write_all(line.as_bytes()) {
        let _ = file.set_len(before);
        return Err(failed(error));
    }
    Ok(line.len() as u64)
}

/// Reads the lines up to the first damaged one.
pub(crate) fn read(path: &Path) -> Result<Vec<Dropped>, SpoolError> {
    let mut text = Vec::new();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(SpoolError::io("open", path, error)),
    };
    file.take(MAX_FILE).read_to_end(&mut text).map_err(|e| SpoolError::io("read", path, e))?;
    Ok(text.split_inclusive(|b| *b == b'\n').map_while(parse).collect())
}

fn parse(line: &[u8]) -> Option<Dropped> {
    let (crc, json) = std::str::from_utf8(line).ok()?.strip_suffix('\n')?.split_once(' ')?;
    let sound = crc.len() == 8 && u32::from_str_radix(crc, 16).ok()? == crc32fast::hash(json.as_bytes());
    sound.then(|| serde_json::from_str(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_as_holes_in_the_same_order() {
        let start = LogPosition { position: 5, offsets: [2, 3] };
        let mut dropped = Dropped::new(&start, 9);
        for (stream, len) in
            [(Stream::Stderr, 4), (Stream::Stderr, 1), (Stream::Stdout, 7), (Stream::Stderr, 2)]
        {
            dropped.push(stream, len);
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        append(&path, &dropped).unwrap();
        append(&path, &Dropped::new(&dropped.end(), 9)).unwrap();
        let read = read(&path).unwrap();
        assert_eq!(read.len(), 2);
        let holes: Vec<_> =
            read[0].holes().map(|r| (r.head.stream, r.head.position, r.head.offset, r.head.len)).collect();
        assert_eq!(
            holes,
            [(Stream::Stderr, 5, 3, 5), (Stream::Stdout, 10, 2, 7), (Stream::Stderr, 17, 8, 2)]
        );
        assert_eq!(read[0].end(), LogPosition { position: 19, offsets: [9, 10] });
    }

    #[test]
    fn reading_stops_at_a_damaged_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        for position in 0..3 {
            append(&path, &Dropped::new(&LogPosition { position, offsets: [position, 0] }, 0)).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        let second = bytes.len() / 3;
        for at in second..2 * second {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            std::fs::write(&path, &flipped).unwrap();
            assert_eq!(read(&path).unwrap().len(), 1, "byte {at}");
        }
    }
}
