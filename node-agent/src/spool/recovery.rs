//! Recovers the Spool of a supervisor that died.

use std::fs::OpenOptions;

use sentinel_protocol::log::RecordHead;
use sentinel_protocol::to_operator::{OutputSummary, StreamSummary};

use super::files::{SpoolFileKind, delete, list};
use super::log_position::{LogPosition, index};
use super::{SpoolError, drops, segment};
use crate::journal::AttemptLock;

/// Truncates a torn tail and sums up the rest: lengths and `end`, without digests; dropped bytes count as far as their
/// record is still on the node. Only for an Attempt whose supervisor is dead, which the lock proves.
///
/// # Errors
/// When the disk cannot be read or written.
pub fn recover(lock: &AttemptLock) -> Result<OutputSummary, SpoolError> {
    let log = lock.attempt().log();
    let mut end = LogPosition::default();
    let mut dropped = [0; 2];
    let mut count = |head: &RecordHead| {
        if head.dropped.is_some() {
            dropped[index(head.stream)] += head.len;
        }
    };
    let files = list(&log)?;
    for (at, entry) in files.iter().enumerate() {
        let path = entry.path(&log);
        if entry.kind == SpoolFileKind::Drop {
            for noted in drops::read(&path)? {
                noted.holes().for_each(|hole| count(&hole.head));
                end = noted.end();
            }
            continue;
        }
        if entry.position < end.position {
            // Recorded as dropped; the supervisor died before it deleted it.
            delete(&log, *entry)?;
            continue;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| SpoolError::io("open", &path, e))?;
        let walked = segment::walk(&file, &mut count).map_err(|e| SpoolError::io("read", &path, e))?;
        let is_last = at + 1 == files.len();
        match walked {
            Some(walked) => {
                end = walked.end;
                if is_last {
                    file.set_len(walked.file_len).map_err(|e| SpoolError::io("cut", &path, e))?;
                }
            }
            None if is_last => delete(&log, *entry)?,
            None => {}
        }
    }
    let stream =
        |at: usize| StreamSummary { bytes: end.offsets[at], dropped: dropped[at], sha256: String::new() };
    Ok(OutputSummary { stdout: stream(0), stderr: stream(1), end: end.position, ..OutputSummary::default() })
}
