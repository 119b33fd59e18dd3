//! Several exports of one chain, such as an older and a newer one. They have to have the same records wherever they overlap; then
//! they count as one chain, with all that the exports have of it.
//!
//! The hash of a record covers all those before it. So two exports that each fit have the same records up to the last one of the
//! shorter export if that one has the same hash in both: one hash for each export is kept, however long they are. Only two exports
//! that differ are read once more, side by side, for the first record that does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use sentinel_protocol::ids::{ChainId, Sha256Hex};

use super::{ChainReport, ExportReport, Source};
use crate::anchors::Standing;
use crate::line::Line;
use crate::verify::lines_of;

/// Two exports that have different records of a chain.
#[derive(Debug)]
pub(super) struct Difference {
    /// The chain.
    pub(super) chain: ChainId,
    /// The first record that differs.
    pub(super) seq: u64,
    /// The names of the two.
    pub(super) files: [String; 2],
}

/// A chain of an export that another export has further records of.
#[derive(Debug)]
pub(super) struct Within {
    /// The name of the export that has the chain furthest.
    pub(super) file: String,
    /// The last record of that one.
    pub(super) last: u64,
    /// The records between the two that no export has, if there are any: then nothing shows that they belong together.
    pub(super) gap: Option<(u64, u64)>,
}

/// The numbers of the last records of each chain, where more than one export has it.
#[derive(Debug)]
pub(super) struct Ends(BTreeMap<ChainId, BTreeSet<u64>>);

impl Ends {
    pub(super) fn of(exports: &[ExportReport]) -> Self {
        let mut ends: BTreeMap<ChainId, (usize, BTreeSet<u64>)> = BTreeMap::new();
        for ChainReport { chain, .. } in chains(exports) {
            let (exports, numbers) = ends.entry(chain.head.chain.clone()).or_default();
            *exports += 1;
            numbers.insert(chain.head.seq);
        }
        Self(
            ends.into_iter()
                .filter(|(_, (exports, _))| *exports > 1)
                .map(|(id, (_, ends))| (id, ends))
                .collect(),
        )
    }

    /// Whether a record of this chain may have to be compared.
    pub(super) fn concern(&self, chain: &ChainId) -> bool {
        self.0.contains_key(chain)
    }

    /// Whether the hash of this line has to be kept.
    pub(super) fn have(&self, line: &Line) -> bool {
        self.0.get(&line.chain).is_some_and(|ends| ends.contains(&line.seq))
    }

    /// Whether each hash was kept that this chain has to be compared by.
    pub(super) fn are_in(&self, ChainReport { chain, ends, .. }: &ChainReport) -> bool {
        let numbers = self.0.get(&chain.head.chain).into_iter().flatten();
        numbers.filter(|seq| chain.contains(**seq)).all(|seq| ends.contains_key(seq))
    }
}

fn chains(exports: &[ExportReport]) -> impl Iterator<Item = &ChainReport> {
    exports.iter().filter_map(|export| export.result.as_ref().ok()).flatten()
}

/// Where a chain is: which export, and which of its chains.
type Place = (usize, usize);

/// Compares all exports of each chain, and has those with the same records count as one chain.
pub(super) fn join(exports: &mut [ExportReport], sources: &[Source<'_>]) -> Vec<Difference> {
    let mut places: BTreeMap<ChainId, Vec<Place>> = BTreeMap::new();
    for (index, export) in exports.iter().enumerate() {
        for (at, chain) in export.result.iter().flatten().enumerate() {
            places.entry(chain.chain.head.chain.clone()).or_default().push((index, at));
        }
    }
    let several = places.into_iter().filter(|(_, places)| places.len() > 1);
    several.flat_map(|(id, places)| join_chain(exports, sources, &id, places)).collect()
}

fn join_chain(
    exports: &mut [ExportReport],
    sources: &[Source<'_>],
    id: &ChainId,
    mut places: Vec<Place>,
) -> Vec<Difference> {
    places.sort_by_key(|place| {
        let chain = chain_at(exports, *place).map(|chain| &chain.chain);
        chain.map(|chain| (Reverse(chain.head.seq), chain.first))
    });
    let Some((longest, others)) = places.split_first() else { return Vec::new() };
    let (mut joined, mut apart) = (vec![*longest], Vec::new());
    let mut differences = Vec::new();
    for other in others {
        match relation(exports, &joined, *other) {
            Relation::Same => joined.push(*other),
            Relation::Apart(gap) => {
                set_within(exports, *longest, *other, Some(gap));
                apart.push(*other);
            }
            Relation::Differs { from, seq } => {
                let files = [from, *other].map(|(index, _)| exports[index].name.clone());
                let seq = first_difference(&sources[from.0], &sources[other.0], id).unwrap_or(seq);
                differences.push(Difference { chain: id.clone(), seq, files });
            }
        }
    }
    for part in &joined[1..] {
        merge(exports, *longest, *part);
        set_within(exports, *longest, *part, None);
    }
    // Behind a gap they have to fit each other all the same.
    if apart.len() > 1 {
        differences.extend(join_chain(exports, sources, id, apart));
    }
    differences
}

fn chain_at(exports: &[ExportReport], (index, at): Place) -> Option<&ChainReport> {
    exports.get(index)?.result.as_ref().ok()?.get(at)
}

fn chain_at_mut(exports: &mut [ExportReport], (index, at): Place) -> Option<&mut ChainReport> {
    exports.get_mut(index)?.result.as_mut().ok()?.get_mut(at)
}

/// How an export of a chain relates to those that count as one.
enum Relation {
    /// The same records, where they overlap.
    Same,
    /// Other records, at the latest that of this number.
    Differs { from: Place, seq: u64 },
    /// Records between them are in neither.
    Apart((u64, u64)),
}

fn relation(exports: &[ExportReport], joined: &[Place], other: Place) -> Relation {
    let parts = || joined.iter().filter_map(|place| Some((*place, chain_at(exports, *place)?)));
    let begin = parts().min_by_key(|(_, part)| part.chain.first);
    let (Some(other), Some((from, begin))) = (chain_at(exports, other), begin) else { return Relation::Same };
    let head = &other.chain.head;
    let same_or = |from: Place, hash: Option<&Sha256Hex>| {
        if hash == Some(&head.hash) { Relation::Same } else { Relation::Differs { from, seq: head.seq } }
    };
    // All of them end later, and none of them has a gap to the others.
    if let Some((from, part)) = parts().find(|(_, part)| part.chain.contains(head.seq)) {
        return same_or(from, part.ends.get(&head.seq));
    }
    if head.seq + 1 == begin.chain.first {
        return same_or(from, Some(&begin.chain.before));
    }
    Relation::Apart((head.seq + 1, begin.chain.first - 1))
}

/// The first record that differs in two exports, as they are now.
fn first_difference(one: &Source<'_>, other: &Source<'_>, chain: &ChainId) -> Option<u64> {
    let mut one = lines_of((one.open)().ok()?.records, chain);
    let mut other = lines_of((other.open)().ok()?.records, chain);
    let (mut a, mut b) = (one.next()?, other.next()?);
    loop {
        if a.seq == b.seq && a.hash != b.hash {
            return Some(a.seq);
        }
        let (of_one, of_other) = (a.seq <= b.seq, b.seq <= a.seq);
        if of_one {
            a = one.next()?;
        }
        if of_other {
            b = other.next()?;
        }
    }
}

fn set_within(exports: &mut [ExportReport], longest: Place, part: Place, gap: Option<(u64, u64)>) {
    let file = exports[longest.0].name.clone();
    let Some(last) = chain_at(exports, longest).map(|chain| chain.chain.head.seq) else { return };
    if let Some(part) = chain_at_mut(exports, part) {
        part.within = Some(Within { file, last, gap });
    }
}

/// Adds to the longest what is known of a part: its first records, and which heads it has.
fn merge(exports: &mut [ExportReport], longest: Place, part: Place) {
    let Some(part) = chain_at(exports, part) else { return };
    let (first, vouched, anchor) = (part.chain.first, part.vouched.clone(), part.anchor.clone());
    let Some(longest) = chain_at_mut(exports, longest) else { return };
    longest.begins = longest.begins.min(first);
    for (voucher, anchor) in vouched {
        let known = longest.vouched.entry(voucher).or_insert_with(|| anchor.clone());
        if known.head.seq < anchor.head.seq {
            *known = anchor;
        }
    }
    if let (Some((known, standing @ Standing::Older)), Some((anchor, Standing::Kept))) =
        (&mut longest.anchor, anchor)
    {
        (*known, *standing) = (anchor, Standing::Kept);
    }
}
