//! Anchors: the heads of chains that other chains have recorded. A chain that ends before such a head was cut, and one that has
//! another record in its place was replaced from there on.
//!
//! A hash covers all records before it, so of the heads of one chain only the highest counts.

use std::collections::BTreeMap;

use sentinel_protocol::audit::AuditHead;
use sentinel_protocol::ids::{ChainId, Sha256Hex};

use crate::line::Line;
use crate::record::Record;
use crate::verify::Summary;

/// Most chains whose heads are kept; further ones are left out, and counted.
pub const MAX_ANCHORED: usize = 100_000;

/// A head that another chain has recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The head.
    pub head: AuditHead,
    /// Who keeps the chain, as the one that recorded it states.
    pub of: String,
    /// The record with it.
    pub recorded_by: (ChainId, u64),
    /// When it was recorded, by the clock of the recorder.
    pub time: String,
}

/// What a chain is compared with.
#[derive(Debug, Default)]
pub struct Anchors {
    highest: BTreeMap<ChainId, Anchor>,
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
        let is_known = match self.highest.get(&head.chain) {
            Some(known) if known.head.seq >= head.seq => return,
            known => known.is_some(),
        };
        if !is_known && self.highest.len() >= MAX_ANCHORED {
            self.left_out += 1;
            return;
        }
        let recorded_by = (line.chain.clone(), line.seq);
        let anchor = Anchor { head: head.clone(), of: of.to_string(), recorded_by, time: line.time.clone() };
        self.highest.insert(head.chain.clone(), anchor);
    }

    /// The highest head of a chain that another chain has recorded.
    pub fn of(&self, chain: &ChainId) -> Option<&Anchor> {
        self.highest.get(chain)
    }

    /// How many chains have one.
    pub fn len(&self) -> usize {
        self.highest.len()
    }

    /// Whether no chain has one.
    pub fn is_empty(&self) -> bool {
        self.highest.is_empty()
    }
}

/// What an anchor proves of a chain.
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

/// Compares a chain with its anchor. `hash_of` is the hash of the record with the anchor's number, where the chain has it here.
pub fn compare(chain: &Summary, anchor: &Anchor, hash_of: Option<&Sha256Hex>) -> Standing {
    if anchor.head.seq > chain.head.seq {
        return Standing::Cut;
    }
    match hash_of {
        Some(hash) if *hash == anchor.head.hash => Standing::Kept,
        Some(_) => Standing::Replaced,
        // The first line names the hash of the one before.
        None if anchor.head.seq + 1 == chain.first && chain.before == anchor.head.hash => Standing::Kept,
        None if anchor.head.seq + 1 == chain.first => Standing::Replaced,
        None => Standing::Older,
    }
}
