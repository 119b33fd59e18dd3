//! Keeps the heads of audit chains in History: those of the nodes that are connected here, and the operator's own.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::audit::Audit;
use crate::clock::Clock;
use crate::history::{AuditHeadRecord, History};

/// How often.
const EVERY: Duration = Duration::from_mins(1);

/// Heads in one write.
const BATCH: usize = 1000;

/// Records heads for as long as it is polled. What History does not take waits for the next time.
pub(super) async fn run(audit: Audit, history: Arc<dyn History>, clock: Clock) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut heads = audit.take_unsaved();
        while !heads.is_empty() {
            let rest = heads.split_off(heads.len().min(BATCH));
            let recorded_at = clock.now();
            let record = |(of, head): &(String, _)| AuditHeadRecord {
                of: of.clone(),
                head: Clone::clone(head),
                recorded_at,
            };
            if let Err(error) = history.record_audit_heads(heads.iter().map(record).collect()).await {
                heads.extend(rest);
                tracing::warn!(%error, heads = heads.len(), "unable to record the heads of audit chains in History; will retry in a minute");
                audit.put_back(heads);
                break;
            }
            heads = rest;
        }
    }
}
