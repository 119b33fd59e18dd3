//! The ledgers that a gateway of a test writes to.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use sentinel_core::reconcile::ledger::{Applied, RunStage};
use sentinel_operator::gateway::{AttemptFacts, LedgerSink, Standing};
use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, SessionId, SpecHash, TaskRef, TaskUid};
use sentinel_protocol::request::Environment;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Refused, Report};

use super::spec_hash;

/// A call of the gateway to the controller's ledgers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LedgerCall {
    Report(Report),
    Refused(Refused),
    Inventory(NodeName, Vec<AttemptId>),
    Archived(AttemptId, Stage),
    AgentChanged(NodeName),
}

/// Ledgers that record their calls. Every Attempt is known unless a test changes that.
#[derive(Default)]
pub(crate) struct RecordingLedgers {
    pub(crate) calls: Mutex<Vec<LedgerCall>>,
    pub(crate) unknown: Mutex<Vec<TaskUid>>,
    /// Nodes that an unsettled Run targets.
    pub(crate) awaited: Mutex<Vec<NodeName>>,
    /// The highest Attempt that was started of each Execution; all are when it is 0.
    pub(crate) started: AtomicU32,
    /// What the status of unknown Tasks records of their Runs.
    pub(crate) earlier: Mutex<Option<AttemptFacts>>,
    /// How often it was asked for.
    pub(crate) earlier_asked: AtomicU32,
    /// `output.limit` of every Run; none when it is 0.
    pub(crate) output_limit: AtomicU64,
}

impl RecordingLedgers {
    pub(crate) fn calls(&self) -> Vec<LedgerCall> {
        self.calls.lock().unwrap().clone()
    }

    fn push(&self, call: LedgerCall) {
        self.calls.lock().unwrap().push(call);
    }

    fn knows(&self, task: &TaskUid) -> bool {
        !self.unknown.lock().unwrap().contains(task)
    }
}

impl LedgerSink for RecordingLedgers {
    fn report(&self, report: &Report) -> Option<Applied> {
        self.push(LedgerCall::Report(report.clone()));
        self.knows(&report.attempt.task).then_some(Applied::Changed)
    }

    fn refused(&self, refused: &Refused, _at: UnixMillis) -> Option<Applied> {
        self.push(LedgerCall::Refused(refused.clone()));
        Some(Applied::Changed)
    }

    fn inventory(&self, node: &NodeName, _session: &SessionId, reports: &[Report]) {
        self.push(LedgerCall::Inventory(node.clone(), reports.iter().map(|r| r.attempt.clone()).collect()));
    }

    fn archived(&self, attempt: &AttemptId, stage: Stage) {
        self.push(LedgerCall::Archived(attempt.clone(), stage));
    }

    fn archived_run(&self, _task: &TaskUid, _run: RunNumber, _stage: RunStage) {}

    fn agent_changed(&self, node: &NodeName) {
        self.push(LedgerCall::AgentChanged(node.clone()));
    }

    fn standing(&self, attempt: &AttemptId, _spec_hash: Option<&SpecHash>) -> Standing {
        let started = self.started.load(Ordering::Relaxed);
        match () {
            () if !self.knows(&attempt.task) => Standing::Unknown,
            () if started > 0 && attempt.attempt > started => Standing::Unstarted,
            () => Standing::Started,
        }
    }

    fn awaits_node(&self, node: &NodeName) -> bool {
        self.awaited.lock().unwrap().contains(node)
    }

    fn earlier_facts(&self, _attempt: &AttemptId, _spec_hash: &SpecHash) -> Option<AttemptFacts> {
        self.earlier_asked.fetch_add(1, Ordering::Relaxed);
        self.earlier.lock().unwrap().clone()
    }

    fn facts(&self, attempt: &AttemptId) -> Option<AttemptFacts> {
        let limit = self.output_limit.load(Ordering::Relaxed);
        self.knows(&attempt.task).then(|| AttemptFacts {
            output_limit: (limit > 0).then_some(limit),
            task: TaskRef::new("ops", "job").unwrap(),
            spec_hash: spec_hash(),
            run_started_at: UnixMillis(1),
            trigger: Some("SpecChange".into()),
            command: "true".into(),
            environment: Environment::Container,
        })
    }
}
