//! The verification of several exports together: each alone, and each chain against the heads that the others have recorded.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead};

use sentinel_protocol::ids::{ChainId, Sha256Hex};

use crate::anchors::{Anchor, Anchors, MAX_ANCHORED, Standing, compare};
use crate::line::NO_HASH;
use crate::verify::{Summary, VerifyError, verify};

/// An export that can be read more than once.
pub struct Source<'a> {
    /// Its name in the report.
    pub name: String,
    /// Opens it at its beginning.
    pub open: Box<dyn Fn() -> io::Result<Box<dyn BufRead>> + 'a>,
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What was verified. As text it is for people, one line for each finding.
#[derive(Debug)]
pub struct Report {
    exports: Vec<ExportReport>,
    /// Chains that are in none of the exports, and have a head recorded in one.
    absent: usize,
    /// Heads that were left out, beyond [`MAX_ANCHORED`] chains.
    left_out: u64,
}

#[derive(Debug)]
struct ExportReport {
    name: String,
    result: Result<Vec<ChainReport>, VerifyError>,
}

#[derive(Debug)]
struct ChainReport {
    chain: Summary,
    anchor: Option<(Anchor, Standing)>,
}

impl Report {
    /// Verifies exports.
    pub fn of(sources: &[Source<'_>]) -> Self {
        let mut anchors = Anchors::default();
        let mut exports = Vec::new();
        for source in sources {
            let result = opened(source).and_then(|export| verify(export, |_, line| anchors.take(line)));
            let chains = result.map(|chains| {
                chains.into_iter().map(|chain| ChainReport { chain, anchor: None }).collect::<Vec<_>>()
            });
            exports.push(ExportReport { name: source.name.clone(), result: chains });
        }
        let mut present = 0;
        for (source, export) in sources.iter().zip(&mut exports) {
            let Ok(chains) = &mut export.result else { continue };
            present += chains.iter().filter(|chain| anchors.of(&chain.chain.head.chain).is_some()).count();
            match hashes(source, chains, &anchors) {
                Ok(hashes) => chains.iter_mut().for_each(|chain| {
                    let id = &chain.chain.head.chain;
                    chain.anchor = anchors
                        .of(id)
                        .map(|anchor| (anchor.clone(), compare(&chain.chain, anchor, hashes.get(id))));
                }),
                Err(error) => export.result = Err(error),
            }
        }
        Self { exports, absent: anchors.len().saturating_sub(present), left_out: anchors.left_out }
    }

    /// Whether everything fits.
    pub fn is_ok(&self) -> bool {
        self.exports
            .iter()
            .all(|export| export.result.as_ref().is_ok_and(|chains| chains.iter().all(ChainReport::is_ok)))
    }
}

fn opened(source: &Source<'_>) -> Result<Box<dyn BufRead>, VerifyError> {
    (source.open)().map_err(|source| VerifyError::Read { line: 1, source })
}

/// The hashes of the records that anchors name, read again where the export has some.
fn hashes(
    source: &Source<'_>,
    chains: &[ChainReport],
    anchors: &Anchors,
) -> Result<BTreeMap<ChainId, Sha256Hex>, VerifyError> {
    let mut hashes = BTreeMap::new();
    let has_some = chains.iter().any(|ChainReport { chain, .. }| {
        anchors.of(&chain.head.chain).is_some_and(|anchor| chain.contains(anchor.head.seq))
    });
    if has_some {
        verify(opened(source)?, |_, line| {
            if anchors.of(&line.chain).is_some_and(|anchor| anchor.head.seq == line.seq) {
                hashes.insert(line.chain.clone(), line.hash.clone());
            }
        })?;
    }
    Ok(hashes)
}

impl ChainReport {
    fn is_ok(&self) -> bool {
        !matches!(self.anchor, Some((_, Standing::Cut | Standing::Replaced)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for export in &self.exports {
            match &export.result {
                Ok(chains) => {
                    writeln!(f, "{}: {}", export.name, counted(chains.len(), "chain"))?;
                    chains.iter().try_for_each(|chain| chain.fmt(f))?;
                }
                Err(VerifyError::Read { line, source }) => {
                    writeln!(f, "{}: FAILED to read it at line {line}: {source}", export.name)?;
                }
                Err(error) => writeln!(f, "{}: FAILED: {error}", export.name)?,
            }
        }
        if self.absent > 0 {
            let chains = counted(self.absent, "other chain");
            writeln!(f, "heads of {chains} are recorded here: verify their exports together with these")?;
        }
        if self.left_out > 0 {
            writeln!(f, "heads of more than {MAX_ANCHORED} chains: {} were left out", self.left_out)?;
        }
        f.write_str(if self.is_ok() { "OK: every record fits\n" } else { "FAILED\n" })
    }
}

impl fmt::Display for ChainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { writer, first, before, head, times, lost, set_back, unknown } = &self.chain;
        let writer = writer.as_ref().map_or_else(String::new, |writer| format!(" of {writer}"));
        writeln!(f, "  chain {}{writer}", head.chain)?;
        let records = counted(self.chain.records() as usize, "record");
        writeln!(f, "    {records}, {first} to {}; {} to {}", head.seq, times.0, times.1)?;
        writeln!(f, "    head {}", head.hash)?;
        if **before != *NO_HASH {
            writeln!(
                f,
                "    the records before are not in this export; the last of them has the hash {before}"
            )?;
        }
        if *lost > 0 {
            writeln!(f, "    its writer lost {}, and recorded that", counted(*lost as usize, "record"))?;
        }
        if *set_back > 0 {
            writeln!(f, "    the clock of its writer was set back {}", counted(*set_back as usize, "time"))?;
        }
        if *unknown > 0 {
            writeln!(
                f,
                "    {} of a kind that only a later release knows",
                counted(*unknown as usize, "record")
            )?;
        }
        let Some((anchor, standing)) = &self.anchor else {
            return writeln!(
                f,
                "    end: not recorded by another chain here, so a cut end would not be found"
            );
        };
        let Anchor { head, recorded_by: (chain, record), time, .. } = anchor;
        let by = format!("record {} as chain {chain} recorded it (record {record}, {time})", head.seq);
        match standing {
            Standing::Kept => writeln!(f, "    end: it still has {by}"),
            Standing::Cut => {
                writeln!(
                    f,
                    "    FAILED: its end was cut off: it ends before {by}, with the hash {}",
                    head.hash
                )
            }
            Standing::Replaced => writeln!(
                f,
                "    FAILED: it was replaced: it has another {by}, with the hash {}. If the writer's disk was restored from a \
                 copy, the chain was continued twice",
                head.hash
            ),
            Standing::Older => writeln!(f, "    end: {by} is not in this export any more"),
        }
    }
}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
