//! The questions after the faults: which promise does not hold.

use std::fmt;

use sentinel_core::plan::OnRecreate;
use sentinel_protocol::ids::{AttemptId, NodeName};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::to_operator::ReportedState;

use super::Simulation;

/// A promise that did not hold.
#[derive(Debug)]
pub struct Violation {
    pub invariant: &'static str,
    pub what: String,
}

impl Violation {
    pub fn new(invariant: &'static str, what: String) -> Self {
        Self { invariant, what }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

impl Simulation {
    pub(super) fn check(&mut self) -> Result<(), Violation> {
        self.check_current_run()?;
        if let Some(run) = self.cluster.released_without {
            return Err(Violation::new(
                "O12",
                format!("released before the end of run {run} was in History"),
            ));
        }
        for n in 0..self.nodes.len() {
            self.check_node(n)?;
        }
        self.check_once()?;
        for (id, sight) in &self.witness.seen {
            if !self.cluster.runs.get(&id.run).is_some_and(|targets| targets.contains(&id.node)) {
                return Err(Violation::new("O8", format!("{id} ran and no durable Run wanted it")));
            }
            self.check_tries(id)?;
            match self.history.attempts.get(id) {
                Some((ReportedState::Ended(ended), _)) => {
                    self.check_truth(id, &ended.outcome, sight.exit.as_ref())?
                }
                other => return Err(Violation::new("O2", format!("{id} ran, and History has {other:?}"))),
            }
        }
        self.tally.lost = self
            .history
            .attempts
            .values()
            .filter(|(state, _)| matches!(state, ReportedState::Ended(e) if matches!(e.outcome, Outcome::Lost { .. })))
            .count();
        Ok(())
    }

    /// O11: while the status is `Complete`, the witness saw every target of that Run succeed.
    pub(super) fn check_claim(&self) -> Result<(), Violation> {
        let Some(run) = self.cluster.claims_complete.filter(|_| !self.cluster.restored) else {
            return Ok(());
        };
        let succeeded = |node: &NodeName| {
            let mut of_node = self.witness.seen.iter().filter(|(id, _)| id.run == run && id.node == *node);
            of_node.any(|(_, sight)| matches!(sight.exit, Some(Outcome::Succeeded { .. })))
        };
        match self.cluster.runs.get(&run).into_iter().flatten().find(|node| !succeeded(node)) {
            Some(node) => Err(Violation::new("O11", format!("run {run} is Complete, and not so on {node}"))),
            None => Ok(()),
        }
    }

    /// O2: the Run has its verdict and every target its one Outcome, in the cluster and in History.
    fn check_current_run(&self) -> Result<(), Violation> {
        if self.cluster.gone {
            return Ok(());
        }
        let Some(run) = &self.cluster.recorded.run else {
            return Err(Violation::new("O2", "the Task never ran".to_owned()));
        };
        if run.finished_at.is_none() {
            return Err(Violation::new("O2", format!("run {} never ended: {:?}", run.number, run.counts)));
        }
        if self.history.runs.get(&run.number).is_none_or(|record| record.finished_at.is_none()) {
            return Err(Violation::new("O2", format!("the end of run {} is not in History", run.number)));
        }
        for node in &self.cluster.targets {
            let latest = self.history.executions(run.number).find(|(id, _)| id.node == *node);
            let Some((id, (ReportedState::Ended(ended), _))) = latest else {
                let what = format!("{node} has no outcome in run {}: {latest:?}", run.number);
                return Err(Violation::new("O2", what));
            };
            let again = self.cluster.plan.retry.allows(id.attempt, &ended.outcome);
            let same = run.stopping.is_none() && run.spec_hash == self.cluster.plan.spec_hash;
            // Evidence that came after the Run's end changes its record and nothing else; after a restore, History may
            // hold an Attempt of this id that was another spec's.
            let corrected_late = self.cluster.gave_up.contains(&run.number) || self.history.restored;
            if again && same && !corrected_late {
                let what = format!("{id} ended {:?} and was not tried again", ended.outcome);
                return Err(Violation::new("O2", what));
            }
        }
        Ok(())
    }

    /// A further Attempt follows one that ended, and not more often than allowed.
    fn check_tries(&self, id: &AttemptId) -> Result<(), Violation> {
        let before = AttemptId { attempt: id.attempt.saturating_sub(1), ..id.clone() };
        let ended = matches!(self.history.attempts.get(&before), Some((ReportedState::Ended(_), _)));
        if id.attempt > 3 || (id.attempt > 1 && !ended) {
            return Err(Violation::new("O10", format!("{id} ran, and {before} had not ended")));
        }
        Ok(())
    }

    /// O12: a Task whose spec may run only once has run nothing that History does not have, however it was deleted.
    fn check_once(&self) -> Result<(), Violation> {
        if self.cluster.plan.on_recreate == OnRecreate::Run || self.cluster.restored {
            return Ok(());
        }
        match self.witness.seen.keys().find(|id| self.cluster.deleted_without.contains(&id.run)) {
            Some(id) => Err(Violation::new(
                "O12",
                format!("{id} ran, and its Task went before its Run was in History"),
            )),
            None => Ok(()),
        }
    }

    /// Nothing is left on a node, and what it knows of an end is what History holds.
    fn check_node(&self, n: usize) -> Result<(), Violation> {
        let node = &self.nodes[n];
        if let (true, Some(id)) = (self.cluster.gone, node.living().next()) {
            return Err(Violation::new("O13", format!("{id} runs, and its Task is gone")));
        }
        if let Some(id) = node.owned().next() {
            return Err(Violation::new("O7", format!("{id} was never forgotten")));
        }
        for (id, (state, _)) in self.history.attempts.iter().filter(|(id, _)| id.node == node.name) {
            let (ReportedState::Ended(kept), Some(theirs)) = (state, node.end_of(id)) else { continue };
            // An Attempt that never ran may end as cancelled (by the tombstone) or as not started (by a later leader
            // that did not know of the cancellation).
            if kept.outcome != theirs.outcome && self.witness.seen.contains_key(id) {
                let what = format!("{id} ended {:?} and History has {:?}", theirs.outcome, kept.outcome);
                return Err(Violation::new("O3", what));
            }
        }
        Ok(())
    }

    /// O4: the reported exit is the observed one; `Lost` needs a fault that justifies it.
    fn check_truth(
        &self,
        id: &AttemptId,
        reported: &Outcome,
        seen: Option<&Outcome>,
    ) -> Result<(), Violation> {
        let node = self.nodes.iter().find(|node| node.name == id.node).unwrap();
        match (reported, seen) {
            (Outcome::Succeeded { .. } | Outcome::Failed { .. } | Outcome::Cancelled, seen)
                if seen != Some(reported) =>
            {
                Err(Violation::new("O4", format!("{id} was reported as {reported:?} and seen as {seen:?}")))
            }
            (Outcome::Lost { .. }, _) if !node.faulted.contains(id) && !self.troubled.contains(&id.node) => {
                Err(Violation::new("O4", format!("{id} is Lost without a fault")))
            }
            (Outcome::NotStarted | Outcome::StartTimedOut { .. }, _) => {
                Err(Violation::new("O4", format!("{id} ran and was reported as {reported:?}")))
            }
            _ => Ok(()),
        }
    }
}
