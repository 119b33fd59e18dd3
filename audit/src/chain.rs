//! The end of a chain, to which records are appended.

use sentinel_protocol::audit::AuditHead;
use sentinel_protocol::ids::{ChainId, Sha256Hex};
use sentinel_protocol::time::UnixMillis;

use crate::line::{LineError, NO_HASH, encode};
use crate::record::Record;

/// A chain, as far as appending to it requires.
#[derive(Debug, Clone)]
pub struct Chain {
    id: ChainId,
    /// Number and hash of the last record; `None` before the first.
    last: Option<(u64, Sha256Hex)>,
}

/// A line that follows the end of a chain, which has it once it is written ([`Chain::advance`]).
#[derive(Debug, Clone)]
pub struct Next {
    /// The line with its newline.
    pub line: Vec<u8>,
    head: AuditHead,
}

impl Chain {
    /// A chain without records.
    pub fn new(id: ChainId) -> Self {
        Self { id, last: None }
    }

    /// The chain that ends with this record.
    pub fn after(head: AuditHead) -> Self {
        Self { id: head.chain, last: Some((head.seq, head.hash)) }
    }

    /// Its last record.
    pub fn head(&self) -> Option<AuditHead> {
        let (seq, hash) = self.last.clone()?;
        Some(AuditHead { chain: self.id.clone(), seq, hash })
    }

    /// The number of the next record.
    pub fn next_seq(&self) -> u64 {
        self.last.as_ref().map_or(1, |(seq, _)| seq.saturating_add(1))
    }

    /// The line of a record at its end.
    ///
    /// # Errors
    /// The record is too long.
    pub fn next(&self, at: UnixMillis, record: &Record) -> Result<Next, LineError> {
        let seq = self.next_seq();
        let prev = self.last.as_ref().map_or(NO_HASH, |(_, hash)| hash.as_str());
        let (line, hash) = encode(&self.id, seq, at, prev, record)?;
        Ok(Next { line, head: AuditHead { chain: self.id.clone(), seq, hash } })
    }

    /// The line was written: it is the last one.
    pub fn advance(&mut self, written: &Next) {
        self.last = Some((written.head.seq, written.head.hash.clone()));
    }
}
