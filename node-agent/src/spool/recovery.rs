//! What a Spool whose supervisor died holds.

use std::fs::OpenOptions;

use sentinel_protocol::log::RecordHead;
use sentinel_protocol::to_operator::{OutputSummary, StreamSummary};

use super::entries::{Kind, delete, list};
use super::place::{Place, index};
use super::{SpoolError, drops, segment};
use crate::journal::AttemptLock;

/// Cuts a torn tail off and says what is there: lengths and `end`, without digests; of the dropped bytes, those
/// whose record is still on the node. Only for an Attempt whose supervisor is dead, which the lock proves.
///
/// # Errors
/// When the disk cannot be read or written.
pub fn recover(lock: &AttemptLock) -> Result<OutputSummary, SpoolError> {
    let log = lock.attempt().log();
    let mut end = Place::default();
    let mut dropped = [0; 2];
    let mut count = |head: &RecordHead| {
        if head.dropped.is_some() {
            dropped[index(head.stream)] += head.len;
        }
    };
    let entries = list(&log)?;
    for (at, entry) in entries.iter().enumerate() {
        let path = entry.path(&log);
        if entry.kind == Kind::Drop {
            for noted in drops::read(&path)? {
                noted.holes().for_each(|hole| count(&hole.head));
                end = noted.end();
            }
            continue;
        }
        if entry.position < end.position {
            // Noted as dropped; the supervisor died before it deleted it.
            delete(&log, *entry)?;
            continue;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| SpoolError::io("open", &path, e))?;
        let walked = segment::walk(&file, &mut count).map_err(|e| SpoolError::io("read", &path, e))?;
        let is_last = at + 1 == entries.len();
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
