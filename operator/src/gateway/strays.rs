//! Attempts that agents own and nobody asks for any more: ended, archived, forgotten.

use std::sync::Arc;
use std::time::Duration;

use sentinel_core::reconcile::orphan::{OrphanAction, Owner, decide_orphan};
use sentinel_protocol::ids::TaskUid;
use sentinel_protocol::to_agent::{Cancel, Forget, ToAgent};
use tokio_util::sync::CancellationToken;

use super::books::Books;
use super::registry::{OwnedAttempt, Registry};

/// Looks at all that connected agents own, every `every` until `stop`, and sends `Cancel` or `Forget` for what is
/// stray. `owner` says whose an Attempt without a ledger is; `None` when nobody can say yet.
pub async fn sweep(
    registry: Registry,
    books: Arc<dyn Books>,
    owner: impl Fn(&TaskUid) -> Option<Owner> + Send + Sync,
    every: Duration,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        look(&registry, &*books, &owner);
    }
}

/// One look.
pub fn look(registry: &Registry, books: &dyn Books, owner: impl Fn(&TaskUid) -> Option<Owner>) {
    let epoch = registry.epoch();
    let is_gone = |task: &TaskUid| owner(task) == Some(Owner::Gone);
    let dropped = registry.drop_strays(is_gone);
    if dropped > 0 {
        tracing::warn!(
            dropped,
            "agents own more ended attempts of deleted tasks than are kept; they report them again"
        );
    }
    for owned in registry.all_owned() {
        let OwnedAttempt { attempt, spec_hash, stage, archived } = owned;
        let owner = match books.facts(&attempt) {
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
            OrphanAction::Cancel => ToAgent::Cancel(Cancel { attempt, spec_hash, epoch }),
            OrphanAction::Forget => ToAgent::Forget(Forget { attempt, epoch }),
        };
        // Not taken: the next look says it again.
        registry.send(&node, &message);
    }
}
