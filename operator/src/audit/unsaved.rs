//! Heads of chains that History does not have yet: of each chain the highest, and of each node a bounded number of chains.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sentinel_protocol::audit::AuditHead;
use sentinel_protocol::ids::{ChainId, NodeName};
use tokio::time::Instant;

/// A node that states another chain than before is believed at most this often: each chain has rows of its own in History.
const NEW_CHAIN_EVERY: Duration = Duration::from_hours(1);

/// Nodes that are remembered. Beyond, all are forgotten.
const MAX_NODES: usize = 50_000;

/// Heads that wait for History.
#[derive(Debug, Default)]
pub(super) struct Unsaved(Mutex<Heads>);

#[derive(Debug, Default)]
struct Heads {
    waiting: HashMap<(String, ChainId), AuditHead>,
    /// The last head of each node, and since when it has its chain.
    known: HashMap<NodeName, (Instant, AuditHead)>,
}

impl Unsaved {
    /// A node states the head of its chain.
    pub(super) fn note(&self, node: &NodeName, head: &AuditHead) {
        let now = Instant::now();
        let mut heads = self.lock();
        let since = match heads.known.get(node) {
            Some((_, known)) if known == head => return,
            Some((since, known)) if known.chain == head.chain => *since,
            Some((since, _)) if now.saturating_duration_since(*since) < NEW_CHAIN_EVERY => return,
            _ => now,
        };
        if heads.known.len() >= MAX_NODES && !heads.known.contains_key(node) {
            heads.known.clear();
            heads.waiting.clear();
        }
        heads.known.insert(node.clone(), (since, head.clone()));
        heads.put(node.as_str(), head.clone());
    }

    /// Takes what waits.
    pub(super) fn take(&self) -> Vec<(String, AuditHead)> {
        let waiting = std::mem::take(&mut self.lock().waiting);
        waiting.into_iter().map(|((of, _), head)| (of, head)).collect()
    }

    /// Puts back what History did not take.
    pub(super) fn put_back(&self, heads: Vec<(String, AuditHead)>) {
        let mut waiting = self.lock();
        for (of, head) in heads {
            waiting.put(&of, head);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Heads> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heads {
    fn put(&mut self, of: &str, head: AuditHead) {
        let key = (of.to_owned(), head.chain.clone());
        match self.waiting.get_mut(&key) {
            Some(known) if known.seq >= head.seq => {}
            Some(known) => *known = head,
            None => drop(self.waiting.insert(key, head)),
        }
    }
}

#[cfg(test)]
mod tests {
    use sentinel_protocol::ids::Sha256Hex;

    use super::*;

    fn head(chain: &str, seq: u64) -> AuditHead {
        AuditHead { chain: ChainId::new(chain).unwrap(), seq, hash: Sha256Hex::new("a".repeat(64)).unwrap() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_highest_head_waits_and_a_hostile_agent_causes_few_chains() {
        let (unsaved, node) = (Unsaved::default(), NodeName::new("n").unwrap());
        for seq in [1, 3, 2] {
            unsaved.note(&node, &head("c", seq));
        }
        assert_eq!(unsaved.take(), [("n".to_owned(), head("c", 3))]);
        assert_eq!(unsaved.take(), []);
        unsaved.note(&node, &head("c", 2));
        assert_eq!(unsaved.take(), [], "nothing was recorded on the node");
        for number in 0..100 {
            unsaved.note(&node, &head(&format!("d{number}"), 1));
        }
        assert_eq!(unsaved.take(), []);
        tokio::time::advance(NEW_CHAIN_EVERY).await;
        for number in 0..100 {
            unsaved.note(&node, &head(&format!("d{number}"), 1));
        }
        assert_eq!(unsaved.take(), [("n".to_owned(), head("d0", 1))]);
    }

    #[tokio::test]
    async fn what_history_did_not_take_is_put_back_unless_a_later_head_came() {
        let (unsaved, node) = (Unsaved::default(), NodeName::new("n").unwrap());
        unsaved.note(&node, &head("c", 1));
        let failed = unsaved.take();
        unsaved.note(&node, &head("c", 2));
        unsaved.put_back(failed);
        assert_eq!(unsaved.take(), [("n".to_owned(), head("c", 2))]);
        unsaved.put_back(vec![("operator".to_owned(), head("o", 5))]);
        assert_eq!(unsaved.take(), [("operator".to_owned(), head("o", 5))]);
    }
}
