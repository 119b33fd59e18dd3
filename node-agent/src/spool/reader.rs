//! Reads the Spool.

use sentinel_protocol::log::LogRecord;

use super::SpoolError;
use crate::journal::AttemptDir;

/// Reads the output of one Attempt while its supervisor writes it, and afterwards.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// Opens the Spool of an Attempt.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn open(_attempt: &AttemptDir) -> Result<Self, SpoolError> {
        Ok(Self {})
    }

    /// The first position that is still there (a hole counts).
    pub fn oldest(&self) -> u64 {
        0
    }

    /// Records from this position on, of about `max_bytes` data in all (at least one record when there is one).
    /// Empty means *not yet*; when the Attempt has ended and `from` is `output.end`, it means the end.
    ///
    /// # Errors
    /// When the disk cannot be read. A damaged record is no error but a hole.
    pub fn read(&mut self, _from: u64, _max_bytes: usize) -> Result<Vec<LogRecord>, SpoolError> {
        Ok(Vec::new())
    }

    /// Everything before this position is archived: segments that lie wholly before it are deleted.
    ///
    /// # Errors
    /// When one cannot be deleted.
    pub fn release(&self, _position: u64) -> Result<(), SpoolError> {
        Ok(())
    }
}
