//! Attempts that agents own and no ledger knows: they are cancelled, archived and forgotten.

use std::sync::Arc;
use std::time::Duration;

use sentinel_core::reconcile::orphan::{OrphanAction, Owner, decide_orphan};
use sentinel_protocol::ids::TaskUid;
use sentinel_protocol::to_agent::{Cancel, Forget, ToAgent};
use tokio_util::sync::CancellationToken;

use super::ledger_sink::LedgerSink;
use super::metrics::GatewayMetrics;
use super::registry::{OwnedAttempt, Registry};

/// What is noted within this time is handled by one sweep.
const TOGETHER: Duration = Duration::from_secs(1);

/// Sweeps every `every`, and soon after an Attempt without a ledger was reported or archived, until `stop`. `owner` finds the Task of an Attempt without a ledger; `None` while the Tasks
/// have not all been listed or reconciled.
pub async fn run(
    registry: Registry,
    ledgers: Arc<dyn LedgerSink>,
    owner: impl Fn(&TaskUid) -> Option<Owner> + Send + Sync,
    metrics: GatewayMetrics,
    every: Duration,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
            () = async { registry.orphan_noted().await; tokio::time::sleep(TOGETHER).await } => {}
        }
        sweep(&registry, &*ledgers, &owner, &metrics);
    }
}

/// Reads all that connected agents own, and sends `Cancel` or `Forget` for each orphan.
pub fn sweep(
    registry: &Registry,
    ledgers: &dyn LedgerSink,
    owner: impl Fn(&TaskUid) -> Option<Owner>,
    metrics: &GatewayMetrics,
) {
    let epoch = registry.epoch();
    let dropped = registry.drop_orphans(|task| owner(task) == Some(Owner::Gone));
    if dropped > 0 {
        metrics.results.dropped.add(dropped as u64);
        tracing::warn!(
            dropped,
            "agents own more ended attempts of deleted tasks than are kept; they will report them again"
        );
    }
    for owned in registry.all_owned() {
        let OwnedAttempt { attempt, spec_hash, stage, archived } = owned;
        let owner = match ledgers.facts(&attempt) {
            Some(facts) if facts.spec_hash == spec_hash => continue,
            Some(_) => Owner::OtherSpec,
            None => match owner(&attempt.task) {
                Some(owner) => owner,
                None => continue,
            },
        };
        let node = attempt.node.clone();
        let message = match decide_orphan(attempt.run, stage, archived, owner) {
            OrphanAction::Keep => continue,
            OrphanAction::Cancel => ToAgent::Cancel(Cancel { attempt, spec_hash, epoch, requested_by: None }),
            OrphanAction::Forget => ToAgent::Forget(Forget { attempt, epoch }),
        };
        // If it is not queued, the next sweep sends it again.
        registry.send(&node, &message);
    }
}
