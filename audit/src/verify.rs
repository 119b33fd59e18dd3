//! Verification of one export: reads it once, in bounded memory, and names the first record that does not fit.
//!
//! An export contains one chain or several, one after the other: each begins with its record 1, except that the first one may
//! begin later, where older records were removed by retention. Then the hash that its first line names is what is trusted.

use std::io::{self, BufRead, Read as _};

use sentinel_protocol::audit::AuditHead;
use sentinel_protocol::ids::{ChainId, Sha256Hex};

use crate::line::{Line, LineError, MAX_LINE, NO_HASH, decode};
use crate::record::Record;

/// Most chains in one export.
pub const MAX_CHAINS: usize = 4096;

/// Why an export could not be verified to its end.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It could not be opened.
    #[error("failed to open it")]
    Open(#[source] io::Error),
    /// It could not be read.
    #[error("failed to read it at line {line}")]
    Read {
        /// The line, from 1.
        line: u64,
        /// The cause.
        source: io::Error,
    },
    /// It was another one when it was read again.
    #[error("it was changed while it was verified; verify it again, or a copy of it")]
    Changed,
    /// A line does not fit.
    #[error(transparent)]
    Misfit(#[from] Misfit),
}

/// The first line that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}{} does not fit: {why}", of_record(.seq.as_ref()))]
pub struct Misfit {
    /// The line, from 1.
    pub line: u64,
    /// The number of its record, where it has one.
    pub seq: Option<u64>,
    /// Why.
    pub why: Why,
}

fn of_record(seq: Option<&u64>) -> String {
    seq.map_or_else(String::new, |seq| format!(" (record {seq})"))
}

fn range(from: u64, to: u64) -> String {
    if from == to { format!("record {from} is") } else { format!("records {from} to {to} are") }
}

/// Why a line does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It is not a line of a chain, or was changed.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The export has no record.
    #[error(
        "there is no record in it, and an export has at least one; if a command wrote it, that may have failed"
    )]
    Empty,
    /// The last line has no newline.
    #[error("it is cut off: it has no newline at its end")]
    Truncated,
    /// The record fits, and its line end was converted.
    #[error(
        "its line end was converted to CR LF, and the record itself fits. Convert the line ends of the file back to LF, or transfer \
         it again as it is"
    )]
    LineEnd,
    /// The line is empty, and others follow.
    #[error("it is empty, and others follow; an export may have empty lines at its end only")]
    EmptyLine,
    /// The file is named after another record than its first one.
    #[error("the file is named after record {named}, and such a file has the name of its first record")]
    Misnamed {
        /// The number in its name.
        named: u64,
    },
    /// Records are missing before it.
    #[error("{} missing before it", range(*.from, *.to))]
    Missing {
        /// The first one that is missing.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// The record that belongs here comes later.
    #[error("the order was changed: record {expected} belongs here, and is in line {found_at}")]
    Reordered {
        /// The number of the record that belongs here.
        expected: u64,
        /// The line that it is in.
        found_at: u64,
    },
    /// A record of this number was already read.
    #[error(
        "it is repeated: record {seq} was already read, and record {expected} belongs here; two exports of one chain are compared \
         if they are two files"
    )]
    Repeated {
        /// Its number.
        seq: u64,
        /// The number of the record that belongs here.
        expected: u64,
    },
    /// The line names another previous line than the one that it follows.
    #[error("the line before was replaced: its hash is {actual}, and this line names {stated}")]
    Predecessor {
        /// The hash of the previous line.
        actual: Sha256Hex,
        /// The hash that this line names.
        stated: Sha256Hex,
    },
    /// It is of another chain, and not its first record.
    #[error(
        "it is of chain {found}, in the middle of chain {expected}; an export has one chain after the other"
    )]
    Foreign {
        /// The chain that was being read.
        expected: ChainId,
        /// Its own.
        found: ChainId,
    },
    /// A chain that begins has another first record than [`Record::Began`], or a previous hash.
    #[error(
        "it is record 1 of chain {chain}, and a chain begins with a record Began and a previous hash of zeros"
    )]
    Beginning {
        /// The chain.
        chain: ChainId,
    },
    /// There are more chains than [`MAX_CHAINS`].
    #[error("more than {MAX_CHAINS} chains are in this export; verify it in parts")]
    TooManyChains,
}

/// A chain of an export, as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// What wrote it: the program and where, by its first record that states it.
    pub writer: Option<String>,
    /// The number of its first record here.
    pub first: u64,
    /// The hash that the first line names: trusted, as what it belongs to is not here. Zeros for a whole chain.
    pub before: Sha256Hex,
    /// Its last record.
    pub head: AuditHead,
    /// The times of its first and last record.
    pub times: (String, String),
    /// Records that its writer lost, and recorded as lost.
    pub lost: u64,
    /// Records that its writer left out, and recorded as such: their party had caused too many.
    pub omitted: u64,
    /// Records that bear an earlier time than the one before: the clock of the writer was set back.
    pub set_back: u64,
    /// Records that this release cannot read, such as of kinds that only a later one knows.
    pub unknown: u64,
}

impl Summary {
    fn begin(line: &Line) -> Self {
        Self {
            writer: None,
            first: line.seq,
            before: line.prev.clone(),
            head: line.head(),
            times: (line.time.clone(), line.time.clone()),
            lost: 0,
            omitted: 0,
            set_back: 0,
            unknown: 0,
        }
    }

    fn take(&mut self, line: &Line) {
        self.head = line.head();
        // Times of one form: their text has the order of the times.
        self.set_back += u64::from(line.time < self.times.1);
        self.times.1.clone_from(&line.time);
        match &line.record {
            Some(Record::Began { program, on, .. }) if self.writer.is_none() => {
                self.writer = Some(format!("{program} on {on}"));
            }
            Some(Record::Gap { lost, .. }) => self.lost = self.lost.saturating_add(*lost),
            Some(Record::Omitted { omitted, .. }) => self.omitted = self.omitted.saturating_add(*omitted),
            None => self.unknown += 1,
            Some(_) => {}
        }
    }

    /// How many of its records are before those that the export has.
    pub fn missing(&self) -> u64 {
        self.first - 1
    }

    /// How many of its records the export has.
    pub fn records(&self) -> u64 {
        self.head.seq - self.first + 1
    }

    /// Whether the export has this record of it.
    pub fn contains(&self, seq: u64) -> bool {
        (self.first..=self.head.seq).contains(&seq)
    }
}

/// Verifies an export, and hands each line that fits to `seen`, with its number.
///
/// # Errors
/// [`VerifyError`] for the first line that does not fit. `seen` was called with those before it.
pub fn verify(
    mut export: impl BufRead,
    mut seen: impl FnMut(u64, &Line),
) -> Result<Vec<Summary>, VerifyError> {
    let mut chains: Vec<Summary> = Vec::new();
    let mut number = 0;
    let mut empty = None;
    while let Some(read) = read_line(&mut export, number + 1)? {
        number += 1;
        let misfit = |seq, why| Misfit { line: number, seq, why };
        // Editors and shells leave one at the end.
        if read == b"\n" {
            empty.get_or_insert(number);
            continue;
        }
        if let Some(line) = empty {
            return Err(Misfit { line, seq: None, why: Why::EmptyLine }.into());
        }
        let line = decoded(&read).map_err(|why| misfit(None, why))?;
        match place(&chains, &line) {
            Ok(Place::Next) => {}
            Ok(Place::First) if chains.len() == MAX_CHAINS => {
                return Err(misfit(Some(line.seq), Why::TooManyChains).into());
            }
            Ok(Place::First) => chains.push(Summary::begin(&line)),
            Err(Why::Missing { from, to }) => {
                let found = find(&mut export, number, &line.chain, from);
                let why = found.map_or(Why::Missing { from, to }, |found_at| Why::Reordered {
                    expected: from,
                    found_at,
                });
                return Err(misfit(Some(line.seq), why).into());
            }
            Err(why) => return Err(misfit(Some(line.seq), why).into()),
        }
        if let Some(chain) = chains.last_mut() {
            chain.take(&line);
        }
        seen(number, &line);
    }
    if chains.is_empty() {
        return Err(Misfit { line: 1, seq: None, why: Why::Empty }.into());
    }
    Ok(chains)
}

/// Where a line belongs.
enum Place {
    /// After the last one.
    Next,
    /// At the beginning of a chain.
    First,
}

fn place(chains: &[Summary], line: &Line) -> Result<Place, Why> {
    let begins = || {
        let is_beginning = line.kind == "Began" && *line.prev == *NO_HASH;
        if is_beginning { Ok(Place::First) } else { Err(Why::Beginning { chain: line.chain.clone() }) }
    };
    let Some(last) = chains.last() else {
        return if line.seq == 1 { begins() } else { Ok(Place::First) };
    };
    let head = &last.head;
    if line.chain != head.chain {
        let is_known = chains.iter().any(|chain| chain.head.chain == line.chain);
        if line.seq == 1 && !is_known {
            return begins();
        }
        return Err(Why::Foreign { expected: head.chain.clone(), found: line.chain.clone() });
    }
    let expected = head.seq.saturating_add(1);
    if line.seq > expected {
        return Err(Why::Missing { from: expected, to: line.seq - 1 });
    }
    if line.seq < expected {
        return Err(Why::Repeated { seq: line.seq, expected });
    }
    if line.prev != head.hash {
        return Err(Why::Predecessor { actual: head.hash.clone(), stated: line.prev.clone() });
    }
    Ok(Place::Next)
}

/// The line in the rest of an export that has this record.
fn find(export: &mut impl BufRead, mut number: u64, chain: &ChainId, seq: u64) -> Option<u64> {
    loop {
        let read = read_line(export, number + 1).ok()??;
        number += 1;
        if decoded(&read).is_ok_and(|line| line.chain == *chain && line.seq == seq) {
            return Some(number);
        }
    }
}

/// The lines of a chain in an export that fits.
pub(crate) fn lines_of(mut export: impl BufRead, chain: &ChainId) -> impl Iterator<Item = Line> {
    std::iter::from_fn(move || {
        loop {
            let read = read_line(&mut export, 0).ok()??;
            if let Some(line) = decoded(&read).ok().filter(|line| line.chain == *chain) {
                return Some(line);
            }
        }
    })
}

/// A line with its newline, if it has one; `None` at the end. Of one that is too long, the beginning.
fn read_line(export: &mut impl BufRead, number: u64) -> Result<Option<Vec<u8>>, VerifyError> {
    let mut line = Vec::new();
    let read = export.by_ref().take(MAX_LINE as u64 + 2).read_until(b'\n', &mut line);
    read.map_err(|source| VerifyError::Read { line: number, source })?;
    Ok((!line.is_empty()).then_some(line))
}

fn decoded(line: &[u8]) -> Result<Line, Why> {
    match line.strip_suffix(b"\n") {
        Some(line) => decode(line).map_err(|error| {
            let is_converted = line.strip_suffix(b"\r").is_some_and(|line| decode(line).is_ok());
            if is_converted { Why::LineEnd } else { error.into() }
        }),
        None if line.len() > MAX_LINE => Err(LineError::TooLong.into()),
        None => Err(Why::Truncated),
    }
}
