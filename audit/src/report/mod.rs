//! The verification of several exports together: each alone, and each chain against the heads that the others, and History, have
//! recorded. `trust` judges what those prove, and `text` has the report for people.

mod text;
mod trust;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead};

use sentinel_protocol::ids::ChainId;

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
    /// The highest recorded heads of chains that should be in the exports, and are not.
    missing: Vec<Anchor>,
    /// The highest recorded heads of other chains that are in none of the exports: of some of them, and how many there are.
    absent: (Vec<Anchor>, usize),
    /// Those of [`Terms::of`] that no head is recorded of.
    unknown: Vec<String>,
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
        for (source, export) in sources.iter().zip(&mut exports) {
            let Ok(chains) = &mut export.result else { continue };
            if let Err(error) = compare(source, chains, &anchors) {
                export.result = Err(error);
            }
        }
        let is_compared = has_heads || sources.len() > 1;
        let left_out = anchors.left_out;
        let mut report = Self {
            exports,
            terms,
            missing: Vec::new(),
            absent: (Vec::new(), 0),
            unknown: Vec::new(),
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
        if !self.missing.is_empty() || !self.exports.iter().all(fits) {
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

/// Reads an export again, and compares its chains with the heads that are recorded of them.
fn compare(source: &Source<'_>, chains: &mut [ChainReport], anchors: &Anchors) -> Result<(), VerifyError> {
    let begun = chains.iter().map(|ChainReport { chain, .. }| {
        let id = chain.head.chain.clone();
        let comparison = Comparison::of(chain, anchors.of(&id));
        (id, comparison)
    });
    let mut comparisons: BTreeMap<ChainId, Comparison> = begun.collect();
    if comparisons.keys().any(|id| !anchors.of(id).is_empty()) {
        verified(source, |line| {
            if let Some(comparison) = comparisons.get_mut(&line.chain) {
                comparison.take(line, anchors.of(&line.chain));
            }
        })?;
    }
    for ChainReport { chain, anchor, vouched, .. } in chains {
        let comparison = comparisons.remove(&chain.head.chain).unwrap_or_default();
        vouched.clone_from(comparison.vouched());
        *anchor = comparison.outcome(chain, anchors.of(&chain.head.chain));
    }
    Ok(())
}

impl ChainReport {
    fn of(chain: Summary) -> Self {
        Self { chain, anchor: None, vouched: BTreeMap::new(), is_unanchored: false }
    }

    fn fits(&self, terms: &Terms) -> bool {
        let contradicts = matches!(self.anchor, Some((_, Standing::Cut | Standing::Replaced)));
        !contradicts && (terms.allow_retention || self.chain.missing() == 0)
    }
}
