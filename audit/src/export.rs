//! All records of a directory, read while a process may append to it.
#![expect(clippy::disallowed_types, reason = "it reads the files of a directory")]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Take};
use std::path::Path;

use crate::directory::{DirectoryError, failed, files, named_after};
use crate::line::MAX_LINE;
use crate::report::Opened;

/// What the directory is called in the state of an agent, the data of an operator, and that of dev mode.
const IN_STATE: &str = "audit";

/// All records of a directory, as they are now, up to the last whole line. A process may be appending to it.
#[derive(Debug)]
pub struct Export {
    files: VecDeque<Take<File>>,
    begins: Option<u64>,
}

impl Export {
    /// Opens the files: those that are removed meanwhile are read all the same.
    ///
    /// # Errors
    /// The directory or a file cannot be read.
    pub fn open(directory: &Path) -> Result<Self, DirectoryError> {
        let (mut opened, mut begins) = (VecDeque::new(), None);
        for path in files(directory).map_err(failed("read", directory))? {
            let file = match File::open(&path) {
                // Removed by retention since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(failed("open", &path))?,
            };
            let len = whole_lines(&file).map_err(failed("read", &path))?;
            opened.push_back(file.take(len));
            begins = begins.or_else(|| named_after(&path));
        }
        Ok(Self { files: opened, begins })
    }

    /// The same of a directory that is to have records: one without files is another one than was meant.
    ///
    /// # Errors
    /// Also when it has no file of records; the subdirectory `audit`, as states have it, is named if it has some.
    pub fn open_some(directory: &Path) -> Result<Self, DirectoryError> {
        let has_some = |directory: &Path| files(directory).is_ok_and(|files| !files.is_empty());
        let export = Self::open(directory)?;
        if !export.files.is_empty() || has_some(directory) {
            return Ok(export);
        }
        let within = Some(directory.join(IN_STATE)).filter(|within| has_some(within));
        let within =
            within.map_or_else(String::new, |within| format!("; {} has: name that", within.display()));
        let why = format!("no file of it has a name such as {:020}.jsonl{within}", 1);
        Err(failed("find records in", directory)(io::Error::other(why)))
    }

    /// The record that the first file is named after, and begins with unless records were removed from it.
    pub fn begins(&self) -> Option<u64> {
        self.begins
    }
}

impl From<Export> for Opened {
    fn from(export: Export) -> Self {
        let begins = export.begins();
        Self { records: Box::new(io::BufReader::new(export)), begins }
    }
}

impl Read for Export {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(file) = self.files.front_mut() {
            let read = file.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.files.pop_front();
        }
        Ok(0)
    }
}

/// How many bytes of a file are whole lines.
fn whole_lines(mut file: &File) -> io::Result<u64> {
    let len = file.metadata()?.len();
    let from = len.saturating_sub(MAX_LINE as u64 + 1);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(len - from).read_to_end(&mut tail)?;
    file.seek(SeekFrom::Start(0))?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
    // No newline in more than a line: not what this program wrote. It is for the verification to name.
    Ok(if whole == 0 && from > 0 { len } else { from + whole })
}
