//! Anchors: the heads of chains that were recorded elsewhere, by other chains or in History. A chain that ends before such a
//! head was cut, and one that has another record in its place was replaced from there on.
//!
//! All recorded heads of a chain count, and not the highest alone: who writes a chain anew continues it, and has the later
//! heads of the new one recorded too. What shows the change is a head from before.

use std::collections::BTreeMap;

use sentinel_protocol::audit::AuditHead;
use sentinel_protocol::ids::ChainId;

use crate::line::Line;
use crate::record::Record;
use crate::verify::Summary;

/// Most chains whose heads are kept; further ones are left out, and counted.
pub const MAX_ANCHORED: usize = 100_000;

/// Most heads that are kept in all; beyond, every other one of each chain is left out, and never the highest.
pub const MAX_HEADS: usize = 400_000;

/// A head that was recorded elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The head.
    pub head: AuditHead,
    /// Who keeps the chain, as the one that recorded it states.
    pub of: String,
    /// Where it is recorded.
    pub recorded_by: Recorder,
    /// When it was recorded, by the clock of the recorder.
    pub time: String,
}

impl Anchor {
    /// Who states this head of whom: what makes one anchor as good as another.
    fn voucher(&self) -> Voucher {
        Voucher { by: self.by().cloned(), of: self.of.clone() }
    }

    /// The chain that it is recorded in; `None` for History.
    pub fn by(&self) -> Option<&ChainId> {
        match &self.recorded_by {
            Recorder::Chain(chain, _) => Some(chain),
            Recorder::History => None,
        }
    }

    fn key(&self) -> (u64, &str, Option<&ChainId>, &str) {
        (self.head.seq, self.head.hash.as_str(), self.by(), self.of.as_str())
    }
}

/// Where heads of a chain are recorded, and whose chain it is according to them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Voucher {
    /// The chain that recorded them; `None` for History.
    pub by: Option<ChainId>,
    /// Who keeps the chain.
    pub of: String,
}

/// Where a head is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorder {
    /// In this record of this chain.
    Chain(ChainId, u64),
    /// In History.
    History,
}

/// What chains are compared with.
#[derive(Debug, Default)]
pub struct Anchors {
    /// Those of each chain, by number, hash and where they are recorded.
    chains: BTreeMap<ChainId, Vec<Anchor>>,
    heads: usize,
    /// Heads of further chains, beyond [`MAX_ANCHORED`].
    pub left_out: u64,
}

impl Anchors {
    /// Takes in a line that was verified.
    pub fn take(&mut self, line: &Line) {
        let Some(Record::HeadSeen { of, head }) = &line.record else { return };
        // A chain proves nothing about itself.
        if head.chain == line.chain {
            return;
        }
        let recorded_by = Recorder::Chain(line.chain.clone(), line.seq);
        self.add(Anchor { head: head.clone(), of: of.to_string(), recorded_by, time: line.time.clone() });
    }

    /// Takes in a head.
    pub fn add(&mut self, anchor: Anchor) {
        if !self.chains.contains_key(&anchor.head.chain) && self.chains.len() >= MAX_ANCHORED {
            self.left_out += 1;
            return;
        }
        let known = self.chains.entry(anchor.head.chain.clone()).or_default();
        let (seq, hash, _, of) = anchor.key();
        // What History has need not be kept for each chain that has it too.
        if known.binary_search_by(|other| other.key().cmp(&(seq, hash, None, of))).is_ok() {
            return;
        }
        let Err(at) = known.binary_search_by(|other| other.key().cmp(&anchor.key())) else { return };
        known.insert(at, anchor);
        self.heads += 1;
        if self.heads > MAX_HEADS {
            self.thin();
        }
    }

    fn thin(&mut self) {
        for known in self.chains.values_mut() {
            let last = known.len().saturating_sub(1);
            let mut at = 0..;
            known.retain(|_| at.next().is_some_and(|at: usize| at % 2 == 1 || at == last));
        }
        self.heads = self.chains.values().map(Vec::len).sum();
    }

    /// The recorded heads of a chain, the highest last.
    pub fn of(&self, chain: &ChainId) -> &[Anchor] {
        self.chains.get(chain).map_or(&[], Vec::as_slice)
    }

    /// The recorded heads of each chain, the highest last.
    pub fn all(&self) -> impl Iterator<Item = &[Anchor]> {
        self.chains.values().map(Vec::as_slice)
    }
}

/// What anchors prove of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has this record: nothing up to there was changed or removed since.
    Kept,
    /// It ends before: its end was cut off.
    Cut,
    /// Its record of this number has another hash: it was replaced, or two writers continued the same chain.
    Replaced,
    /// The export begins after it: the record was removed by retention.
    Older,
}

/// A chain that is compared with its anchors, line by line.
#[derive(Debug, Default)]
pub struct Comparison {
    /// The first that the chain contradicts.
    replaced: Option<Anchor>,
    /// The last that the chain has.
    kept: Option<Anchor>,
    /// The last of each voucher that is of a record of the export.
    vouched: BTreeMap<Voucher, Anchor>,
}

impl Comparison {
    /// Of a chain, before its lines.
    pub fn of(chain: &Summary, anchors: &[Anchor]) -> Self {
        let mut comparison = Self::default();
        // The first line names the hash of the one before.
        for anchor in anchors.iter().filter(|anchor| anchor.head.seq.checked_add(1) == Some(chain.first)) {
            comparison.compare(anchor, chain.before == anchor.head.hash);
        }
        // That hash is known to all who know the head: it proves nothing about the records that follow.
        comparison.vouched.clear();
        comparison
    }

    /// Compares a line of the chain, in their order.
    pub fn take(&mut self, line: &Line, anchors: &[Anchor]) {
        let from = anchors.partition_point(|anchor| anchor.head.seq < line.seq);
        for anchor in anchors[from..].iter().take_while(|anchor| anchor.head.seq == line.seq) {
            self.compare(anchor, anchor.head.hash == line.hash);
        }
    }

    fn compare(&mut self, anchor: &Anchor, is_same: bool) {
        if is_same {
            self.kept = Some(anchor.clone());
            self.vouched.insert(anchor.voucher(), anchor.clone());
        } else {
            self.replaced.get_or_insert_with(|| anchor.clone());
        }
    }

    /// The last head of each voucher that is of a record of the export, and that it has.
    pub fn vouched(&self) -> &BTreeMap<Voucher, Anchor> {
        &self.vouched
    }

    /// What the anchors prove, once all lines were compared, and the one that shows it; `None` without anchors.
    pub fn outcome(self, chain: &Summary, anchors: &[Anchor]) -> Option<(Anchor, Standing)> {
        let highest = anchors.last()?;
        if let Some(anchor) = self.replaced {
            return Some((anchor, Standing::Replaced));
        }
        if highest.head.seq > chain.head.seq {
            return Some((highest.clone(), Standing::Cut));
        }
        let kept = self.kept.map(|anchor| (anchor, Standing::Kept));
        kept.or_else(|| Some((highest.clone(), Standing::Older)))
    }
}
