//! Removes nodes from the registry once they have left the cluster, so that it does not grow as nodes come and go.
//!
//! A node is removed when its Node object does not exist, its agent has no Session, and no Run still needs to know when
//! the agent was last seen.

use std::sync::Arc;
use std::time::Duration;

use sentinel_core::time::Monotonic;
use sentinel_protocol::ids::NodeName;
use tokio_util::sync::CancellationToken;

use super::ledger_sink::LedgerSink;
use super::registry::Registry;
use crate::clock::Clock;
use crate::cluster::NodeCache;

/// After this long without a Session a node is removed even when a Run needs it: longer than any
/// `timeouts.unreachable` (720 h), so every Run has concluded about it.
const RETENTION: Duration = Duration::from_hours(721);

/// Removes departed nodes every `every` until `stop`, from when all Nodes have been listed.
pub async fn run(
    registry: Registry,
    ledgers: Arc<dyn LedgerSink>,
    nodes: NodeCache,
    clock: Clock,
    every: Duration,
    stop: CancellationToken,
) {
    let sweep = async {
        nodes.wait_until_complete().await;
        loop {
            tokio::time::sleep(every).await;
            let existing = nodes.nodes();
            remove_departed(&registry, &*ledgers, |node| existing.contains_key(node), clock.monotonic());
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = sweep => {}
    }
}

/// Removes departed nodes once; returns how many. `exists` tells whether a node has a Node object.
pub fn remove_departed(
    registry: &Registry,
    ledgers: &dyn LedgerSink,
    exists: impl Fn(&NodeName) -> bool,
    now: Monotonic,
) -> usize {
    let retention = RETENTION.as_millis() as u64;
    let removed = registry.remove_departed(|node, last_seen| {
        let is_overdue = last_seen.is_none_or(|seen| now.since(seen) >= retention);
        !exists(node) && (is_overdue || !ledgers.awaits_node(node))
    });
    if removed > 0 {
        tracing::info!(removed, "removed nodes that have left the cluster");
    }
    removed
}
