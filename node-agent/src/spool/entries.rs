//! The files of a Spool, by their names.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::SpoolError;

/// What a file of the Spool holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Lengths of what was dropped.
    Drop,
    /// Records.
    Segment,
}

/// One file of the Spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) position: u64,
    pub(super) kind: Kind,
}

impl Entry {
    pub(super) fn segment(position: u64) -> Self {
        Self { position, kind: Kind::Segment }
    }

    pub(super) fn dropped(position: u64) -> Self {
        Self { position, kind: Kind::Drop }
    }

    pub(super) fn path(&self, log: &Path) -> PathBuf {
        let suffix = match self.kind {
            Kind::Segment => "seg",
            Kind::Drop => "drop",
        };
        log.join(format!("{:020}.{suffix}", self.position))
    }

    fn parse(name: &str) -> Option<Self> {
        let (digits, suffix) = name.split_once('.')?;
        let position = digits.parse().ok().filter(|_| digits.len() == 20)?;
        match suffix {
            "seg" => Some(Self::segment(position)),
            "drop" => Some(Self::dropped(position)),
            _ => None,
        }
    }
}

/// The files that are there, in the order of their positions. Where a segment and a drop begin at the same
/// position, the writer is between writing the one and deleting the other; both are listed, the drop first.
pub(super) fn list(log: &Path) -> Result<Vec<Entry>, SpoolError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(log).map_err(|e| SpoolError::io("list", log, e))? {
        let name = entry.map_err(|e| SpoolError::io("list", log, e))?.file_name();
        entries.extend(name.to_str().and_then(Entry::parse));
    }
    entries.sort_unstable();
    Ok(entries)
}

/// Deletes a file; that it is gone already is no error.
pub(super) fn delete(log: &Path, entry: Entry) -> Result<(), SpoolError> {
    let path = entry.path(log);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(SpoolError::io("delete", &path, error)),
        _ => Ok(()),
    }
}
