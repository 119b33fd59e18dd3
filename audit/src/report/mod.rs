//! The verification of several exports together: each alone, and each chain against the heads that the others, and History, have
//! recorded. `overlap` compares exports of the same chain, `trust` judges what heads prove, and `text` has the report for people.

mod overlap;
mod text;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, BufRead};

use sentinel_protocol::ids::{ChainId, Sha256Hex};

use self::overlap::{Difference, Ends, Within};
use crate::anchors::{Anchor, Anchors, Comparison, Standing, Voucher};
use crate::line::Line;
use crate::verify::{Misfit, Summary, VerifyError, Why, verify};

/// An export that can be read more than once.
pub struct Source<'a> {
    /// Its name in the report.
    pub name: String,
    /// Opens it at its beginning.
    pub open: Box<dyn Fn() -> io::Result<Opened> + 'a>,
}

/// An export at its beginning.
pub struct Opened {
    /// Its lines.
    pub records: Box<dyn BufRead>,
    /// The record that it is named after, if it is.
    pub begins: Option<u64>,
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("begins", &self.begins).finish_non_exhaustive()
    }
}

/// What the person who verifies knows of the exports, and allows.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Whose exports these are: nodes, `operator`, or chains. Empty: this is unknown.
    pub of: Vec<String>,
    /// Whether a chain may be one that nothing proves.
    pub allow_unanchored: bool,
    /// Whether a chain may begin after its record 1, as retention leaves it.
    pub allow_retention: bool,
}

/// What a verification has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Everything fits, as far as that was asked.
    Fits,
    /// Everything fits, and nothing proves that a chain is whole, or the right one.
    Unanchored,
    /// Something does not fit, or is missing.
    Failed,
}

/// What was verified. As text it is for people, one line for each finding.
#[derive(Debug)]
pub struct Report {
    exports: Vec<ExportReport>,
    terms: Terms,
    /// Where exports of the same chain have different records.
    differences: Vec<Difference>,
    /// The highest recorded heads of chains that should be in the exports, and are not.
    missing: Vec<Anchor>,
    /// The highest recorded heads of other chains that are in none of the exports: of some of them, and how many there are.
    absent: (Vec<Anchor>, usize),
    /// Those of [`Terms::of`] that no head is recorded of.
    unknown: Vec<String>,
    /// Whose heads are recorded.
    parties: Vec<String>,
    /// Heads that were left out, beyond [`crate::anchors::MAX_ANCHORED`] chains.
    left_out: u64,
    /// Whether chains were compared with anything.
    is_compared: bool,
}

/// Chains that are named, of those that are in none of the exports and need not be.
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
    /// The last head of each voucher that it has.
    vouched: BTreeMap<Voucher, Anchor>,
    /// The hashes of those of its records that another export ends with.
    ends: BTreeMap<u64, Sha256Hex>,
    /// The first of its records, from which on the exports together have all.
    begins: u64,
    /// Another export that has more of it.
    within: Option<Within>,
    /// Whether nothing proves it, though something should.
    is_unanchored: bool,
}

impl Report {
    /// Verifies exports, also against heads from elsewhere, if there are any.
    pub fn of(sources: &[Source<'_>], heads: Option<Vec<Anchor>>, terms: Terms) -> Self {
        let mut anchors = Anchors::default();
        let has_heads = heads.is_some();
        heads.into_iter().flatten().for_each(|head| anchors.add(head));
        let mut exports = Vec::new();
        for source in sources {
            let result = verified(source, |line| anchors.take(line));
            let chains = result.map(|chains| chains.into_iter().map(ChainReport::of).collect::<Vec<_>>());
            exports.push(ExportReport { name: source.name.clone(), result: chains });
        }
        let ends = Ends::of(&exports);
        for (source, export) in sources.iter().zip(&mut exports) {
            let Ok(chains) = &mut export.result else { continue };
            if let Err(error) = compare(source, chains, &anchors, &ends) {
                export.result = Err(error);
            }
        }
        let differences = overlap::join(&mut exports, sources);
        let is_compared = has_heads || are_compared(&exports);
        let left_out = anchors.left_out;
        let mut report = Self {
            exports,
            terms,
            differences,
            missing: Vec::new(),
            absent: (Vec::new(), 0),
            unknown: Vec::new(),
            parties: Vec::new(),
            left_out,
            is_compared,
        };
        report.judge(&anchors, has_heads);
        report
    }

    /// What was found.
    pub fn verdict(&self) -> Verdict {
        let fits = |export: &ExportReport| {
            export.result.as_ref().is_ok_and(|chains| chains.iter().all(|chain| chain.fits(&self.terms)))
        };
        if !self.differences.is_empty() || !self.missing.is_empty() || !self.exports.iter().all(fits) {
            return Verdict::Failed;
        }
        let is_proven =
            self.left_out == 0 && self.unknown.is_empty() && !self.chains().any(|chain| chain.is_unanchored);
        if is_proven || self.terms.allow_unanchored { Verdict::Fits } else { Verdict::Unanchored }
    }

    /// The chains of all exports that could be read.
    fn chains(&self) -> impl Iterator<Item = &ChainReport> {
        self.exports.iter().filter_map(|export| export.result.as_ref().ok()).flatten()
    }
}

/// Whether exports tell something of each other: a chain has heads of another one, or they are not all of the same chains. An export
/// that is given twice, or with an older one, is compared with nothing but itself.
fn are_compared(exports: &[ExportReport]) -> bool {
    let ids = |export: &ExportReport| -> BTreeSet<ChainId> {
        export.result.iter().flatten().map(|chain| chain.chain.head.chain.clone()).collect()
    };
    let all: BTreeSet<ChainId> = exports.iter().flat_map(ids).collect();
    let has_head = |chain: &ChainReport| chain.anchor.is_some();
    exports.iter().filter_map(|export| export.result.as_ref().ok()).flatten().any(has_head)
        || !exports.iter().any(|export| ids(export) == all)
        || (exports.len() > 1 && exports.iter().any(|export| export.result.is_err()))
}

/// Reads an export, and hands each line that fits to `seen`.
fn verified(source: &Source<'_>, mut seen: impl FnMut(&Line)) -> Result<Vec<Summary>, VerifyError> {
    let Opened { records, begins } = (source.open)().map_err(VerifyError::Open)?;
    let chains = verify(records, |_, line| seen(line))?;
    let (Some(named), Some(first)) = (begins, chains.first().map(|chain| chain.first)) else {
        return Ok(chains);
    };
    let why = match named {
        _ if named == first => return Ok(chains),
        1.. if named < first => Why::Missing { from: named, to: first - 1 },
        _ => Why::Misnamed { named },
    };
    Err(Misfit { line: 1, seq: Some(first), why }.into())
}

/// Reads an export again, and compares its chains with the heads that are recorded of them. Keeps what they are compared with
/// other exports of the same chains by.
fn compare(
    source: &Source<'_>,
    chains: &mut [ChainReport],
    anchors: &Anchors,
    ends: &Ends,
) -> Result<(), VerifyError> {
    let begun = chains.iter().map(|ChainReport { chain, .. }| {
        let id = chain.head.chain.clone();
        let comparison = Comparison::of(chain, anchors.of(&id));
        (id, comparison)
    });
    let mut comparisons: BTreeMap<ChainId, Comparison> = begun.collect();
    let mut kept: BTreeMap<ChainId, BTreeMap<u64, Sha256Hex>> = BTreeMap::new();
    if comparisons.keys().any(|id| !anchors.of(id).is_empty() || ends.concern(id)) {
        verified(source, |line| {
            if ends.have(line) {
                kept.entry(line.chain.clone()).or_default().insert(line.seq, line.hash.clone());
            }
            if let Some(comparison) = comparisons.get_mut(&line.chain) {
                comparison.take(line, anchors.of(&line.chain));
            }
        })?;
    }
    for report in chains {
        let id = &report.chain.head.chain;
        let comparison = comparisons.remove(id).unwrap_or_default();
        report.vouched.clone_from(comparison.vouched());
        report.ends = kept.remove(id).unwrap_or_default();
        report.anchor = comparison.outcome(&report.chain, anchors.of(id));
        if !ends.are_in(report) {
            return Err(VerifyError::Changed);
        }
    }
    Ok(())
}

impl ChainReport {
    fn of(chain: Summary) -> Self {
        Self {
            begins: chain.first,
            chain,
            anchor: None,
            vouched: BTreeMap::new(),
            ends: BTreeMap::new(),
            within: None,
            is_unanchored: false,
        }
    }

    /// How many records are missing before the first, of those that count for this chain.
    fn missing(&self) -> u64 {
        if self.within.is_some() { 0 } else { self.begins - 1 }
    }

    fn fits(&self, terms: &Terms) -> bool {
        let contradicts = match &self.anchor {
            Some((_, Standing::Replaced)) => true,
            // The end is that of the export which has more of the chain.
            Some((_, Standing::Cut)) => self.within.is_none(),
            Some((_, Standing::Kept | Standing::Older)) | None => false,
        };
        !contradicts && (terms.allow_retention || self.missing() == 0)
    }
}
