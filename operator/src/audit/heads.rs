//! Which heads of nodes are recorded: one that has changed, at most once a minute for each node, and some 16 a second of all.

use std::collections::HashMap;
use std::time::Duration;

use sentinel_audit::allowance::{Allowance, Terms};
use sentinel_protocol::audit::AuditHead;
use sentinel_protocol::ids::NodeName;
use tokio::time::Instant;

/// Heads of one node are recorded at most this often.
const EVERY: Duration = Duration::from_mins(1);

/// In all, one head in this time: a large fleet fills the chain otherwise.
const EACH: Duration = Duration::from_millis(60);

/// The same for a head that does not continue the one that was recorded last.
const SOON: Duration = Duration::from_secs(5);

/// Those of all nodes together; beyond, they are recorded like others.
const SOON_OF_ALL: Terms = Terms { at_once: 1_000, per_day: 1_000 };

/// Nodes that are remembered. Beyond, all are forgotten, and their next heads recorded.
const MAX_NODES: usize = 50_000;

/// The heads that were recorded last.
#[derive(Debug)]
pub(super) struct Heads {
    recorded: HashMap<NodeName, (Instant, AuditHead)>,
    /// In records.
    soon: Allowance,
    origin: Instant,
}

impl Default for Heads {
    fn default() -> Self {
        let soon = Allowance::full(SOON_OF_ALL, Duration::ZERO);
        Self { recorded: HashMap::new(), soon, origin: Instant::now() }
    }
}

impl Heads {
    /// Whether this head of a node is to be recorded now.
    pub(super) fn take(&mut self, node: &NodeName, head: &AuditHead) -> bool {
        let now = Instant::now();
        let nodes = u32::try_from(self.recorded.len()).unwrap_or(u32::MAX);
        if let Some((at, known)) = self.recorded.get(node) {
            let since = now.saturating_duration_since(*at);
            // One that was replaced, or went back, is recorded soon: it is what a chain that was tampered with shows.
            let continues = known.chain == head.chain && known.seq <= head.seq;
            let is_due = since >= EVERY.max(EACH.saturating_mul(nodes));
            let may_be_soon = !continues && known != head && since >= SOON;
            let is_taken = is_due || may_be_soon && self.soon.take(1, now - self.origin);
            if known == head || !is_taken {
                return false;
            }
        }
        if self.recorded.len() >= MAX_NODES && !self.recorded.contains_key(node) {
            self.recorded.clear();
        }
        self.recorded.insert(node.clone(), (now, head.clone()));
        true
    }
}

#[cfg(test)]
mod tests {
    use sentinel_protocol::ids::{ChainId, Sha256Hex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn chains_that_are_replaced_all_the_time_do_not_fill_the_chain() {
        let (mut heads, mut recorded) = (Heads::default(), 0);
        for round in 0..600 {
            for node in 0..100 {
                let chain = ChainId::new(format!("c-{round}")).unwrap();
                let head = AuditHead { chain, seq: 1, hash: Sha256Hex::new("a".repeat(64)).unwrap() };
                recorded += usize::from(heads.take(&NodeName::new(format!("n-{node}")).unwrap(), &head));
            }
            tokio::time::advance(SOON).await;
        }
        // In 50 minutes: those, and one a minute of each node.
        assert!((6_000..6_200).contains(&recorded), "{recorded}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_is_recorded_once_a_minute_and_soon_when_it_goes_back() {
        let head = |chain: &str, seq| AuditHead {
            chain: ChainId::new(chain).unwrap(),
            seq,
            hash: Sha256Hex::new("a".repeat(64)).unwrap(),
        };
        let (mut heads, node) = (Heads::default(), NodeName::new("n").unwrap());
        assert!(heads.take(&node, &head("c", 1)));
        assert!(!heads.take(&node, &head("c", 1)) && !heads.take(&node, &head("c", 2)));
        assert!(heads.take(&NodeName::new("m").unwrap(), &head("d", 1)));
        tokio::time::advance(EVERY).await;
        assert!(!heads.take(&node, &head("c", 1)), "nothing was recorded on the node");
        assert!(heads.take(&node, &head("c", 3)));
        assert!(!heads.take(&node, &head("c", 2)), "a hostile agent does not flood the chain");
        tokio::time::advance(SOON).await;
        assert!(heads.take(&node, &head("c", 2)), "its end was cut off");
        tokio::time::advance(SOON).await;
        assert!(heads.take(&node, &head("e", 9)), "it was replaced");
        for number in 0..2_000 {
            assert!(heads.take(&NodeName::new(format!("n-{number}")).unwrap(), &head("c", 1)));
        }
        tokio::time::advance(EVERY).await;
        assert!(!heads.take(&NodeName::new("n-7").unwrap(), &head("c", 2)));
        tokio::time::advance(EVERY * 2).await;
        assert!(heads.take(&NodeName::new("n-7").unwrap(), &head("c", 2)));
    }
}
