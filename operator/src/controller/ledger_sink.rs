//! The run store as the gateway writes to it.

use sentinel_core::reconcile::ledger::{Applied, Origin, RunStage};
use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, SessionId, SpecHash, TaskUid};
use sentinel_protocol::request::Environment;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Refused, Report};

use super::run_store::RunStore;
use crate::gateway::{AttemptFacts, LedgerSink, Standing};

impl LedgerSink for RunStore {
    fn report(&self, report: &Report) -> Option<Applied> {
        self.report(report)
    }

    fn refused(&self, refused: &Refused, at: UnixMillis) -> Option<Applied> {
        self.refused(refused, at)
    }

    fn inventory(&self, node: &NodeName, session: &SessionId, reports: &[Report]) {
        self.inventory(node, session, reports);
    }

    fn archived(&self, attempt: &AttemptId, stage: Stage) {
        self.archived(attempt, stage);
    }

    fn archived_run(&self, task: &TaskUid, run: RunNumber, stage: RunStage) {
        self.archived_run(task, run, stage);
    }

    fn agent_changed(&self, node: &NodeName) {
        self.agent_changed(node);
    }

    fn standing(&self, attempt: &AttemptId, spec_hash: Option<&SpecHash>) -> Standing {
        self.standing(attempt, spec_hash)
    }

    fn awaits_node(&self, node: &NodeName) -> bool {
        self.awaits_node(node)
    }

    fn facts(&self, attempt: &AttemptId) -> Option<AttemptFacts> {
        let (facts, origin) = self.facts_and_origin(&attempt.task, attempt.run)?;
        // `output.limit` can be edited during a Run, and an earlier operator may have started this under another.
        let request = facts.request.as_ref();
        let output_limit = request.filter(|_| origin == Origin::Begun).map(|r| r.output.limit);
        Some(AttemptFacts {
            task: facts.task.clone(),
            spec_hash: facts.spec_hash.clone(),
            run_started_at: facts.started_at,
            trigger: Some(facts.trigger.as_str().to_owned()),
            command: facts.command.clone(),
            environment: request.map_or(Environment::Container, |request| request.environment),
            output_limit,
        })
    }

    fn earlier_facts(&self, attempt: &AttemptId, spec_hash: &SpecHash) -> Option<AttemptFacts> {
        let task = self.get(&attempt.task)?;
        let runs = task.lock();
        if runs.get(attempt.run).is_some() {
            return None;
        }
        let run = runs.recent.iter().find(|run| run.number == attempt.run)?;
        Some(AttemptFacts {
            task: task.task().clone(),
            spec_hash: spec_hash.clone(),
            run_started_at: run.started_at,
            trigger: Some(run.trigger.as_str().to_owned()),
            // Nothing records what it ran, and where; the hash is only what the agent states.
            command: String::new(),
            environment: Environment::Container,
            output_limit: None,
        })
    }
}
