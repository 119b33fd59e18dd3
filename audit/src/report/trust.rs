//! What recorded heads prove of a chain, which states nothing about itself that counts: who writes it anew chooses its id,
//! its first record and what it claims to be of.
//!
//! With heads of History, a chain is anchored if History has a head of it, or a chain that is anchored has. Chains of nodes
//! vouch for those of operators only, as nothing else is recorded in them: a node in the wrong hands could otherwise vouch for a
//! new chain of another one. Without heads of History, each export vouches for the others.

use std::collections::BTreeSet;

use sentinel_protocol::ids::ChainId;

use super::{ChainReport, MAX_NAMED, Report};
use crate::anchors::{Anchor, Anchors, Standing, Voucher};

/// Whose chains those of operators are.
const OPERATOR: &str = "operator";

/// How the writer of a node's chain begins.
const ON_NODE: &str = "node-agent on ";

/// How that of an operator's chain does.
const ON_HOST: &str = "operator on ";

impl Report {
    /// Judges the chains, and those that are in none of the exports.
    pub(super) fn judge(&mut self, anchors: &Anchors, has_heads: bool) {
        let present: BTreeSet<ChainId> = self.chains().map(|chain| chain.chain.head.chain.clone()).collect();
        let absent: Vec<&[Anchor]> = anchors.all().filter(|known| !present.contains(id(known))).collect();
        let trust = Trust::of(self, anchors, has_heads);
        let of = &self.terms.of;
        let concerns = |known: &[Anchor]| of.is_empty() || of.iter().any(|of| is_of(known, of));
        // One file alone is compared with nothing but what it has itself.
        let is_compared = self.is_compared;
        let replaceable = absent.iter().copied().filter(|known| is_compared && concerns(known));
        let replaceable: Vec<&[Anchor]> = replaceable.collect();
        let mut parties = BTreeSet::new();
        for chain in self.exports.iter_mut().filter_map(|export| export.result.as_mut().ok()).flatten() {
            trust.settle(chain, &replaceable);
            parties.extend(trust.parties(chain));
        }
        let is_unanchored = self.chains().any(|chain| chain.is_unanchored);
        // Without --of, any of them may be the one that an unanchored chain has taken the place of.
        let is_required = |known: &[Anchor]| {
            let is_suspected = is_unanchored || known.iter().any(|anchor| parties.contains(&anchor.of));
            if of.is_empty() { is_suspected } else { concerns(known) }
        };
        let (required, others): (Vec<_>, Vec<_>) = absent.into_iter().partition(|known| is_required(known));
        let highest = |known: &&[Anchor]| known.last().cloned();
        let missing = required.iter().filter_map(highest).collect();
        let named = others.iter().filter_map(highest).take(MAX_NAMED).collect();
        let is_unknown = |of: &&String| !anchors.all().any(|known| is_of(known, of));
        let unknown = of.iter().filter(is_unknown).cloned().collect();
        let parties: BTreeSet<String> = anchors.all().flatten().map(|anchor| anchor.of.clone()).collect();
        self.parties = parties.into_iter().collect();
        (self.missing, self.absent, self.unknown) = (missing, (named, others.len()), unknown);
    }
}

/// Whether a chain is the one stated, or is recorded as one of the node or operator stated.
fn is_of(known: &[Anchor], stated: &str) -> bool {
    id(known).as_str() == stated || known.iter().any(|anchor| anchor.of == stated)
}

fn id(known: &[Anchor]) -> &ChainId {
    // Of each chain that anchors are kept of there is one.
    &known[0].head.chain
}

struct Trust {
    has_heads: bool,
    /// The chains that something vouches for.
    anchored: BTreeSet<ChainId>,
    /// The chains that may vouch for those of nodes.
    of_operators: BTreeSet<ChainId>,
}

impl Trust {
    fn of(report: &Report, anchors: &Anchors, has_heads: bool) -> Self {
        let of_operators = report
            .chains()
            .filter(|chain| is_of_operator(chain, anchors))
            .map(|chain| chain.chain.head.chain.clone())
            .collect();
        let mut trust = Self { has_heads, anchored: BTreeSet::new(), of_operators };
        loop {
            let known = trust.anchored.len();
            for ChainReport { chain, vouched, .. } in report.chains() {
                if !trust.anchored.contains(&chain.head.chain) && vouched.keys().any(|by| trust.counts(by)) {
                    trust.anchored.insert(chain.head.chain.clone());
                }
            }
            if trust.anchored.len() == known {
                return trust;
            }
        }
    }

    /// Whether what it vouches for is proven thereby.
    fn counts(&self, voucher: &Voucher) -> bool {
        let Some(by) = &voucher.by else { return true };
        let is_rooted = !self.has_heads || self.anchored.contains(by);
        is_rooted && (voucher.of == OPERATOR || self.of_operators.contains(by))
    }

    /// Those heads of a chain that prove something of it.
    fn proofs<'a>(&self, chain: &'a ChainReport) -> impl Iterator<Item = &'a Anchor> {
        chain.vouched.iter().filter(|(voucher, _)| self.counts(voucher)).map(|(_, anchor)| anchor)
    }

    fn settle(&self, chain: &mut ChainReport, absent: &[&[Anchor]]) {
        let proof = self.proofs(chain).max_by_key(|anchor| anchor.head.seq).cloned();
        // What proves the export that has more of it proves its records too.
        let is_part = chain.within.as_ref().is_some_and(|within| within.gap.is_none());
        chain.is_unanchored = !is_part && proof.is_none() && {
            let is_older = chain.anchor.is_some();
            let id = &chain.chain.head.chain;
            self.has_heads || is_older || absent.iter().any(|known| may_replace(id, known))
        };
        if let (Some(proof), Some((anchor, Standing::Kept))) = (proof, &mut chain.anchor) {
            *anchor = proof;
        }
    }

    /// Whose chain it is: as it is recorded, and as it claims.
    fn parties(&self, chain: &ChainReport) -> BTreeSet<String> {
        let mut parties: BTreeSet<String> = self.proofs(chain).map(|anchor| anchor.of.clone()).collect();
        if let Some(writer) = &chain.chain.writer {
            parties.extend(writer.strip_prefix(ON_NODE).map(str::to_owned));
            parties.extend(writer.starts_with(ON_HOST).then(|| OPERATOR.to_owned()));
        }
        parties
    }
}

/// Whether it is the chain of an operator, by what is recorded of it, and else by what it claims.
fn is_of_operator(chain: &ChainReport, anchors: &Anchors) -> bool {
    let known = anchors.of(&chain.chain.head.chain);
    if known.iter().any(|anchor| anchor.by().is_none() && anchor.of == OPERATOR) {
        return true;
    }
    let claims_node = chain.chain.writer.as_ref().is_some_and(|writer| writer.starts_with(ON_NODE));
    !claims_node && known.iter().all(|anchor| anchor.of == OPERATOR)
}

/// Whether a chain that nothing vouches for may have taken the place of one that is in none of the exports, where those are all
/// that is known: another chain has recorded the absent one. Nodes record operators' chains each, and replace none of them.
fn may_replace(chain: &ChainId, absent: &[Anchor]) -> bool {
    let by = |is_own: bool| absent.iter().any(|anchor| (anchor.by() == Some(chain)) == is_own);
    let is_of_operator = absent.iter().all(|anchor| anchor.of == OPERATOR);
    by(false) && !(is_of_operator && by(true))
}
