//! The fleet as the controller sees it, and the controller's ledgers as the gateway sees them.

use sentinel_core::reconcile::ledger::{Applied, RunStage};
use sentinel_core::reconcile::rollout::{ActiveAttempt, AgentFacts};
use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, SessionId, SpecHash, TaskUid};
use sentinel_protocol::request::Environment;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Cancel, Forget, Start, ToAgent};
use sentinel_protocol::to_operator::{Refused, Report, Stage};
use sentinel_protocol::version::Version;

use super::books::{AttemptFacts, Books, Standing};
use super::registry::Registry;
use crate::controller::fleet::{Fleet, Owned};
use crate::controller::ledgers::Ledgers;

impl Fleet for Registry {
    fn agent(&self, node: &NodeName) -> AgentFacts {
        let (session, last_seen) = self.standing(node);
        AgentFacts { session, last_seen, ..AgentFacts::default() }
    }

    fn living(&self, task: &TaskUid, node: &NodeName) -> Option<ActiveAttempt> {
        self.living_of(task, node)
    }

    fn speaks(&self, node: &NodeName) -> Option<Version> {
        self.version_of(node)
    }

    fn start(&self, mut start: Start) -> Option<SessionId> {
        start.credit = self.initial_credit();
        let node = start.attempt.node.clone();
        self.send(&node, &ToAgent::Start(Box::new(start)))
    }

    fn cancel(&self, cancel: Cancel) -> Option<SessionId> {
        let node = cancel.attempt.node.clone();
        self.send(&node, &ToAgent::Cancel(cancel))
    }

    fn forget(&self, forget: Forget) -> Option<SessionId> {
        let node = forget.attempt.node.clone();
        self.send(&node, &ToAgent::Forget(forget))
    }

    fn owned(&self, task: &TaskUid) -> Vec<Owned> {
        self.owned_of(task)
    }
}

impl Books for Ledgers {
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

    fn facts(&self, attempt: &AttemptId) -> Option<AttemptFacts> {
        let facts = self.facts(&attempt.task, attempt.run)?;
        // `output.limit` can be edited during a Run, and one before us may have started this under another.
        let request = facts.request.as_ref();
        let output_limit = request.filter(|_| self.began(&attempt.task, attempt.run)).map(|r| r.output.limit);
        Some(AttemptFacts {
            task: facts.task.clone(),
            spec_hash: facts.spec_hash.clone(),
            run_started_at: facts.started_at,
            command: facts.command.clone(),
            environment: facts.request.as_ref().map_or(Environment::Container, |request| request.environment),
            output_limit,
        })
    }
}
