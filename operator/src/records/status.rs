//! What the status of a Task says of its latest Run, in the words of History. An operator that does not lead knows no
//! more, and neither does one that has just taken the lead.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt as _;
use sentinel_core::reconcile::conditions::{self, kind};
use sentinel_protocol::exit::ExitDetails;
use sentinel_protocol::ids::{Epoch, NodeName, RunNumber, SpecHash, TaskUid};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::Stage;

use super::live::{Awaited, Execution, Extent, Scope, Waiting};
use crate::history::{ExecutionRecord, RunCounts, RunRecord, Source, Verdict};
use crate::resource::status::{NodeStatus, RunStatus};
use crate::resource::{Task, recorded};

/// The latest Run of a Task, as its status has it.
pub(super) struct StatusRun<'a> {
    task: &'a Task,
    run: &'a RunStatus,
    facts: Facts,
}

struct Facts {
    uid: TaskUid,
    namespace: String,
    name: String,
    number: RunNumber,
    spec_hash: SpecHash,
    started_at: UnixMillis,
}

impl<'a> StatusRun<'a> {
    /// The latest Run of a Task, if it has one that is in scope and of which the status can say anything new: what is
    /// over and archived is in History.
    pub(super) fn of(task: &'a Task, scope: &Scope) -> Option<Self> {
        let run = task.status.as_ref()?.run.as_ref()?;
        let facts = Facts {
            uid: TaskUid::new(task.uid()?).ok()?,
            namespace: task.namespace().unwrap_or_default(),
            name: task.name_any(),
            number: RunNumber(u32::try_from(run.number).ok()?),
            spec_hash: SpecHash::new(run.spec_hash.as_str()).ok()?,
            started_at: millis(run.started_at.as_ref()?),
        };
        let found = Self { task, run, facts };
        let facts = &found.facts;
        let wanted = scope.has_task(&facts.namespace, &facts.name, &facts.uid) && scope.has_run(facts.number);
        (wanted && (scope.extent == Extent::All || !found.is_archived())).then_some(found)
    }

    pub(super) fn task_uid(&self) -> &TaskUid {
        &self.facts.uid
    }

    pub(super) fn number(&self) -> RunNumber {
        self.facts.number
    }

    pub(super) fn is_finished(&self) -> bool {
        self.run.finished_at.is_some()
    }

    /// Whether nothing more of it is started: what has ended is not tried again.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_finished() || self.run.stopping.is_some()
    }

    fn is_archived(&self) -> bool {
        let conditions = self.task.status.iter().flat_map(|status| &status.conditions);
        let mut archived = conditions.filter(|condition| condition.type_ == kind::ARCHIVED);
        self.is_finished() && archived.any(|condition| condition.status == "True")
    }

    fn nodes(&self) -> impl Iterator<Item = &'a NodeStatus> {
        self.task.status.iter().flat_map(|status| &status.nodes)
    }

    /// Targets of which the status names neither state nor Outcome.
    pub(super) fn unlisted(&self) -> u64 {
        let listed = self.nodes().count().max(self.run.targets.len());
        u64::try_from(self.run.target_count).unwrap_or(0).saturating_sub(listed as u64)
    }

    /// Its record.
    pub(super) fn record(&self) -> RunRecord {
        let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
        for node in self.nodes().filter(|node| !is_open(&node.state)) {
            *outcomes.entry(node.state.clone()).or_default() += 1;
        }
        let read = recorded::read(self.task).ok().and_then(|read| read.run);
        let cancelled = matches!(self.run.stopping.as_deref(), Some("Cancelled" | "Deleted"));
        RunRecord {
            task_uid: self.facts.uid.clone(),
            namespace: self.facts.namespace.clone(),
            name: self.facts.name.clone(),
            run: self.facts.number,
            trigger: self.run.trigger.clone(),
            spec_hash: self.facts.spec_hash.clone(),
            command: String::new(),
            started_at: self.facts.started_at,
            finished_at: self.run.finished_at.as_ref().map(millis),
            verdict: match self.run.verdict.as_deref() {
                Some("Complete") => Some(Verdict::Complete),
                Some(_) if cancelled => Some(Verdict::Cancelled),
                Some(_) => Some(Verdict::Failed),
                None => None,
            },
            reason: read
                .filter(|run| run.finished_at.is_some())
                .map(|run| conditions::progress_message(&run)),
            counts: RunCounts { targets: u32::try_from(self.run.target_count).unwrap_or(0), outcomes },
            epoch: Epoch::ZERO,
        }
    }

    /// Its Executions, as far as the status lists them.
    pub(super) fn executions(&self, scope: &Scope) -> Vec<Execution> {
        let mut rows: BTreeMap<NodeName, Execution> = BTreeMap::new();
        for target in &self.run.targets {
            if let Ok(node) = NodeName::new(target.as_str()) {
                let unsaid = NodeStatus { state: "Pending".to_owned(), ..NodeStatus::default() };
                rows.insert(node.clone(), self.execution(node, &unsaid));
            }
        }
        for said in self.nodes() {
            if let Ok(node) = NodeName::new(said.node.as_str()) {
                rows.insert(node.clone(), self.execution(node, said));
            }
        }
        rows.into_iter().filter(|(node, _)| scope.has_node(node)).map(|(_, row)| row).collect()
    }

    fn execution(&self, node: NodeName, said: &NodeStatus) -> Execution {
        let attempt = said.attempt.and_then(|number| u32::try_from(number).ok()).unwrap_or(1);
        let (waiting, stage) = match said.state.as_str() {
            "Dispatched" => (Some(("Dispatched", Awaited::Start)), Stage::Accepted),
            // Only of a target that is to be tried again does the status say more than the word.
            "Pending" if !said.message.is_empty() => (Some(("Pending", Awaited::Retry)), Stage::Accepted),
            "Pending" => (Some(("Pending", Awaited::Start)), Stage::Accepted),
            "WaitingForNode" => (Some(("WaitingForNode", Awaited::Start)), Stage::Accepted),
            "Running" => (None, Stage::Running),
            _ => (None, Stage::Ended),
        };
        let ended = stage == Stage::Ended;
        let unsent = waiting.is_some_and(|(state, _)| state != "Dispatched") && said.attempt.is_none();
        let concluded = matches!(said.state.as_str(), "Lost" | "NotStarted" | "StartTimedOut");
        let retry = waiting.is_some_and(|(_, what)| what == Awaited::Retry);
        Execution {
            record: ExecutionRecord {
                task_uid: self.facts.uid.clone(),
                namespace: self.facts.namespace.clone(),
                name: self.facts.name.clone(),
                run: self.facts.number,
                node,
                run_started_at: self.facts.started_at,
                attempt: if unsent && !retry { 0 } else { attempt },
                stage,
                outcome: ended.then(|| said.state.clone()),
                exit_code: said.exit_code.and_then(|code| u8::try_from(code).ok()),
                message: if ended { said.message.clone() } else { String::new() },
                started_at: said.started_at.as_ref().map(millis),
                ended_at: said.finished_at.as_ref().map(millis),
                spec_hash: self.facts.spec_hash.clone(),
                command: String::new(),
                exit: ExitDetails::default(),
                source: if ended && !concluded { Source::Agent } else { Source::Operator },
                epoch: Epoch::ZERO,
            },
            waiting: waiting.map(|(state, what)| Waiting { state, message: said.message.clone(), what }),
        }
    }
}

fn is_open(state: &str) -> bool {
    matches!(state, "Pending" | "WaitingForNode" | "Dispatched" | "Running")
}

fn millis(time: &MicroTime) -> UnixMillis {
    UnixMillis(time.0.as_millisecond())
}
