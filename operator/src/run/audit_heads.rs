//! Keeps the heads of audit chains in History: those of the nodes that are connected here, and the operator's own.

use std::sync::Arc;
use std::time::Duration;

use crate::audit::Audit;
use crate::clock::Clock;
use crate::history::{AuditHeadRecord, History};

/// How often, and how soon at first: an operator may not live long.
const EVERY: Duration = Duration::from_mins(1);
const FIRST: Duration = Duration::from_secs(4);

/// Heads in one write.
const BATCH: usize = 1000;

/// Records heads for as long as it is polled. What History does not take waits for the next time.
pub(super) async fn run(audit: Audit, history: Arc<dyn History>, clock: Clock) {
    let mut wait = FIRST;
    loop {
        tokio::time::sleep(wait).await;
        wait = EVERY.min(wait * 2);
        record(&audit, &*history, &clock).await;
    }
}

async fn record(audit: &Audit, history: &dyn History, clock: &Clock) {
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
            let waiting = heads.len();
            tracing::warn!(%error, heads = waiting, "unable to record the heads of audit chains in History; will retry");
            audit.put_back(heads);
            return;
        }
        heads = rest;
    }
}
