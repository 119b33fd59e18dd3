//! What is left to do for a Run that is over: archive all of it, then let the agents forget.

use sentinel_protocol::ids::NodeName;
use sentinel_protocol::to_operator::Stage;

use crate::conditions::Archive;
use crate::execution::Known;
use crate::ledger::{RunLedger, RunStage};
use crate::reconcile::Action;
use crate::rollout::AgentFacts;

/// What is left to do for a Run that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Settling {
    /// What to do now; asked again, it says the same until it is done.
    pub actions: Vec<Action>,
    /// Whether History holds all of it.
    pub archived: Archive,
    /// Whether nothing is left: the ledger may be dropped.
    pub settled: Settled,
}

/// Whether anything is left to do for a Run that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Nothing.
    Yes,
    /// Something.
    No,
}

/// What is left to do for a Run that is over.
///
/// What an agent reported is archived on its way in; what the operator concluded itself has no Journal behind it and
/// is archived from here. No agent forgets before everything is held.
pub fn settle(ledger: &RunLedger, agent: impl Fn(&NodeName) -> AgentFacts) -> Settling {
    let mut actions = Vec::new();
    let mut all = true;
    if let Some(record) = ledger.record()
        && ledger.run_archived() < Some(RunStage::of(record))
    {
        all = false;
        actions.push(Action::ArchiveRun(Box::new(record.clone())));
    }
    let tries = || {
        ledger.executions().flat_map(|(node, execution)| execution.attempts().map(move |tried| (node, tried)))
    };
    for (node, tried) in tries() {
        let Some(ended) = tried.ended().filter(|_| tried.archived != Some(Stage::Ended)) else { continue };
        all = false;
        if matches!(tried.known, Known::Concluded(_)) {
            let attempt = ledger.attempt_of(node, tried.number);
            actions.push(Action::Conclude { attempt, ended: Box::new(ended.clone()) });
        }
    }
    if !all {
        return Settling { actions, archived: Archive::Behind, settled: Settled::No };
    }
    let mut settled = Settled::Yes;
    for (node, tried) in tries().filter(|(_, tried)| tried.ended().is_some()) {
        // Only what an agent may hold needs forgetting; one that is away is told after its next Inventory.
        if tried.held && agent(node).session.is_some() {
            settled = Settled::No;
            actions.push(Action::Forget(ledger.attempt_of(node, tried.number)));
        }
    }
    Settling { actions, archived: Archive::Current, settled }
}
