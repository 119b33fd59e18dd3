//! The files of a Spool, by their names.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::SpoolError;

/// What a file of the Spool holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SpoolFileKind {
    /// Lengths of dropped segments.
    Drop,
    /// Records.
    Segment,
}

/// One file of the Spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SpoolFile {
    pub(super) position: u64,
    pub(super) kind: SpoolFileKind,
}

impl SpoolFile {
    pub(super) fn segment(position: u64) -> Self {
        Self { position, kind: SpoolFileKind::Segment }
    }

    pub(super) fn dropped(position: u64) -> Self {
        Self { position, kind: SpoolFileKind::Drop }
    }

    pub(super) fn path(&self, log: &Path) -> PathBuf {
        let suffix = match self.kind {
            SpoolFileKind::Segment => "seg",
            SpoolFileKind::Drop => "drop",
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

/// The files, in the order of their positions. Where a segment and a drop file begin at the same position, the writer has
/// written the one and not deleted the other yet; both are listed, the drop file first.
pub(super) fn list(log: &Path) -> Result<Vec<SpoolFile>, SpoolError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(log).map_err(|e| SpoolError::io("list", log, e))? {
        let name = entry.map_err(|e| SpoolError::io("list", log, e))?.file_name();
        files.extend(name.to_str().and_then(SpoolFile::parse));
    }
    files.sort_unstable();
    Ok(files)
}

/// Deletes a file; a missing one is not an error.
pub(super) fn delete(log: &Path, entry: SpoolFile) -> Result<(), SpoolError> {
    let path = entry.path(log);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(SpoolError::io("delete", &path, error)),
        _ => Ok(()),
    }
}
