//! What is left to do for a Run that is over: archive it, then have the agents forget it.

use sentinel_protocol::ids::NodeName;
use sentinel_protocol::stage::Stage;

use super::action::Action;
use super::conditions::Archive;
use super::execution::{AttemptPhase, Execution};
use super::ledger::{RunLedger, RunStage};
use super::rollout::AgentFacts;

/// What is left to do for a Run that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// What to do now. The same until it is done.
    pub actions: Vec<Action>,
    /// Whether History has all of it.
    pub archived: Archive,
    /// Nothing is left to do: the ledger may be dropped.
    pub settled: bool,
}

/// What is left to do for a Run that is over.
///
/// Reports are archived as they arrive. The operator's own conclusions are in no Journal, so they are archived from here.
/// Each target is settled separately: an agent may forget once History has the Run's record and every Attempt of its
/// node, whatever the other nodes still owe.
pub fn settle(ledger: &RunLedger, agent: impl Fn(&NodeName) -> AgentFacts) -> Settlement {
    let mut actions = Vec::new();
    let mut all = true;
    if let Some(record) = ledger.record()
        && ledger.run_archived() < Some(RunStage::of(record))
    {
        all = false;
        actions.push(Action::ArchiveRun(Box::new(record.clone())));
    }
    let run_held = all;
    let mut forgets = Vec::new();
    for (node, execution) in ledger.executions() {
        let mut node_held = true;
        for attempt in execution.attempts() {
            let Some(ended) = attempt.ended().filter(|_| attempt.archived != Some(Stage::Ended)) else {
                continue;
            };
            node_held = false;
            if matches!(attempt.phase, AttemptPhase::Concluded(_)) {
                let attempt = ledger.attempt_of(node, attempt.number);
                actions.push(Action::Conclude { attempt, ended: Box::new(ended.clone()) });
            }
        }
        all &= node_held;
        if run_held && node_held {
            forgets.extend(forgets_of(ledger, node, execution, &agent));
        }
    }
    let settled = all && forgets.is_empty();
    actions.extend(forgets);
    Settlement { actions, archived: if all { Archive::Current } else { Archive::Behind }, settled }
}

/// Only owned Attempts need a `Forget`; an agent without a Session gets it after its next Inventory.
fn forgets_of(
    ledger: &RunLedger,
    node: &NodeName,
    execution: &Execution,
    agent: impl Fn(&NodeName) -> AgentFacts,
) -> Vec<Action> {
    let held = || execution.attempts().filter(|attempt| attempt.owned && attempt.ended().is_some());
    if held().next().is_none() || agent(node).session.is_none() {
        return Vec::new();
    }
    held().map(|attempt| Action::Forget(ledger.attempt_of(node, attempt.number))).collect()
}

#[cfg(test)]
mod tests {
    use sentinel_protocol::ids::{RunNumber, SessionId, SpecHash, TaskUid};
    use sentinel_protocol::outcome::Outcome;
    use sentinel_protocol::time::UnixMillis;
    use sentinel_protocol::to_operator::{Ended, Report, ReportedState};

    use super::super::ledger::Origin;
    use super::*;

    /// One node's output never arrived, so its result was never archived, and no other node was sent its Forget.
    #[test]
    fn unarchived_result_of_one_node_delays_no_other_nodes_forget() {
        let hash = SpecHash::new("a".repeat(64)).unwrap();
        let mut ledger =
            RunLedger::new(TaskUid::new("u").unwrap(), RunNumber(1), hash.clone(), Origin::Begun);
        for node in ["honest", "liar"] {
            let ended = Ended::without_record(Outcome::Succeeded { exit_code: 0 }, UnixMillis(1));
            let attempt = format!("u/1/{node}/1").parse().unwrap();
            let state = ReportedState::Ended(Box::new(ended));
            ledger.apply_report(&Report { attempt, spec_hash: hash.clone(), state });
        }
        let honest = "u/1/honest/1".parse().unwrap();
        ledger.note_archived(&honest, Stage::Ended);
        let session = SessionId::new("s").unwrap();
        let settling =
            settle(&ledger, |_| AgentFacts { session: Some(session.clone()), ..AgentFacts::default() });
        assert_eq!(settling.actions, [Action::Forget(honest)]);
        assert_eq!((settling.archived, settling.settled), (Archive::Behind, false));
    }
}
