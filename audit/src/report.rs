//! The verification of several exports together: each alone, and each chain against the heads that the others, and History, have
//! recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, BufRead};

use sentinel_protocol::ids::ChainId;

use crate::anchors::{Anchor, Anchors, Comparison, MAX_ANCHORED, Recorder, Standing};
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
    /// The highest recorded heads of chains that are in none of the exports, though another chain of their node is.
    begun_anew: Vec<Anchor>,
    /// The highest recorded heads of other chains that are in none of the exports: of some of them, and how many there are.
    absent: (Vec<Anchor>, usize),
    /// Heads that were left out, beyond [`MAX_ANCHORED`] chains.
    left_out: u64,
}

/// Chains that are named, of those that are in none of the exports.
const MAX_NAMED: usize = 10;

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
    /// Verifies exports, also against heads from elsewhere.
    pub fn of(sources: &[Source<'_>], heads: impl IntoIterator<Item = Anchor>) -> Self {
        let mut anchors = Anchors::default();
        heads.into_iter().for_each(|head| anchors.add(head));
        let mut exports = Vec::new();
        for source in sources {
            let result = opened(source).and_then(|export| verify(export, |_, line| anchors.take(line)));
            let chains = result.map(|chains| {
                chains.into_iter().map(|chain| ChainReport { chain, anchor: None }).collect::<Vec<_>>()
            });
            exports.push(ExportReport { name: source.name.clone(), result: chains });
        }
        let (mut present, mut writers) = (BTreeSet::new(), BTreeSet::new());
        for (source, export) in sources.iter().zip(&mut exports) {
            let Ok(chains) = &mut export.result else { continue };
            present.extend(chains.iter().map(|chain| chain.chain.head.chain.clone()));
            writers.extend(chains.iter().filter_map(|chain| chain.chain.writer.clone()));
            if let Err(error) = compare(source, chains, &anchors) {
                export.result = Err(error);
            }
        }
        let all_absent = anchors.highest().filter(|anchor| !present.contains(&anchor.head.chain));
        let (begun_anew, absent): (Vec<Anchor>, Vec<Anchor>) =
            all_absent.cloned().partition(|anchor| writers.contains(&format!("node-agent on {}", anchor.of)));
        let absent = (absent.iter().take(MAX_NAMED).cloned().collect(), absent.len());
        Self { exports, begun_anew, absent, left_out: anchors.left_out }
    }

    /// Whether everything fits, and no node has begun a chain anew whose earlier one is not here.
    pub fn is_ok(&self) -> bool {
        let fits = |export: &ExportReport| {
            export.result.as_ref().is_ok_and(|chains| chains.iter().all(ChainReport::is_ok))
        };
        self.begun_anew.is_empty() && self.exports.iter().all(fits)
    }
}

fn opened(source: &Source<'_>) -> Result<Box<dyn BufRead>, VerifyError> {
    (source.open)().map_err(|source| VerifyError::Read { line: 1, source })
}

/// Reads an export again, and compares its chains with the heads that are recorded of them.
fn compare(source: &Source<'_>, chains: &mut [ChainReport], anchors: &Anchors) -> Result<(), VerifyError> {
    let begun = chains.iter().map(|ChainReport { chain, .. }| {
        let id = chain.head.chain.clone();
        let comparison = Comparison::of(chain, anchors.of(&id));
        (id, comparison)
    });
    let mut comparisons: BTreeMap<ChainId, Comparison> = begun.collect();
    if comparisons.keys().any(|id| !anchors.of(id).is_empty()) {
        verify(opened(source)?, |_, line| {
            if let Some(comparison) = comparisons.get_mut(&line.chain) {
                comparison.take(line, anchors.of(&line.chain));
            }
        })?;
    }
    for ChainReport { chain, anchor } in chains {
        let comparison = comparisons.remove(&chain.head.chain).unwrap_or_default();
        *anchor = comparison.outcome(chain, anchors.of(&chain.head.chain));
    }
    Ok(())
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
        for anchor in &self.begun_anew {
            let Anchor { head, of, .. } = anchor;
            writeln!(
                f,
                "chain {} of {of}: FAILED: it is in no file, and another chain of this node is: its records may have been removed. It had \
                 record {} {}. Add its export, or find out why the node has lost it",
                head.chain,
                head.seq,
                Recorded(anchor)
            )?;
        }
        let (absent, number) = &self.absent;
        if *number > 0 {
            let chains = counted(*number, "other chain");
            writeln!(f, "heads of {chains} are recorded here: verify their exports together with these")?;
            for anchor in absent {
                let Anchor { head, of, .. } = anchor;
                writeln!(f, "  chain {} of {of}: record {} {}", head.chain, head.seq, Recorded(anchor))?;
            }
            if *number > absent.len() {
                writeln!(f, "  and {} more", number - absent.len())?;
            }
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
                "    end: not recorded by another chain or in heads here, so a cut end would not be found"
            );
        };
        let head = &anchor.head;
        let by = format!("record {} {}", head.seq, Recorded(anchor));
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

/// Where and when a head was recorded, for people.
struct Recorded<'a>(&'a Anchor);

impl fmt::Display for Recorded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Anchor { recorded_by, time, .. } = self.0;
        match recorded_by {
            Recorder::Chain(chain, record) => {
                write!(f, "as chain {chain} recorded it (record {record}, {time})")
            }
            Recorder::History => write!(f, "as History has it ({time})"),
        }
    }
}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
