//! The state of every Run: for each Task its [`TaskRuns`].
//!
//! The gateway writes what agents report, the archive what History holds, and the controller what it did. Whatever
//! changes a Run requests a reconcile of its Task. Every lock here is held briefly, and never across an await.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use kube::ResourceExt;
use kube::runtime::reflector::Store;
use sentinel_audit::record::EndedBy;
use sentinel_core::reconcile::ledger::{Applied, MAX_ATTEMPTS, Origin, RunStage};
use sentinel_core::reconcile::orphan::{self, Owner};
use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, SessionId, SpecHash, TaskRef, TaskUid};
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Refused, Report, ReportedState};

use super::endings::Endings;
use super::requests::{ReconcileRequests, Urgency};
use super::task_runs::{RunFacts, Runs, TaskRuns, TrackedRun};
use crate::gateway::Standing;
use crate::resource::Task;

/// What is added to a node's time to have that of the operator, milliseconds; `None` when it is not known.
type ClockOffset = Box<dyn Fn(&NodeName) -> Option<i64> + Send + Sync>;

/// The Runs of all Tasks. Clones share them.
#[derive(Debug, Clone)]
pub struct RunStore(Arc<Tasks>);

struct Tasks {
    runs: RwLock<HashMap<TaskUid, Arc<TaskRuns>>>,
    requests: ReconcileRequests,
    listed: AtomicBool,
    endings: Endings,
    offset: ClockOffset,
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasks").field("runs", &self.runs).finish_non_exhaustive()
    }
}

impl RunStore {
    /// An empty store; changes request reconciles through `requests`.
    pub fn new(requests: ReconcileRequests) -> Self {
        Self::noting(requests, Endings::default(), |_| None)
    }

    /// The same, with ends noted. `offset` is what is added to a node's time to have that of the operator, milliseconds.
    pub fn noting(
        requests: ReconcileRequests,
        endings: Endings,
        offset: impl Fn(&NodeName) -> Option<i64> + Send + Sync + 'static,
    ) -> Self {
        let (runs, listed, offset) = (RwLock::default(), AtomicBool::new(false), Box::new(offset));
        Self(Arc::new(Tasks { runs, requests, listed, endings, offset }))
    }

    /// Where ends of Runs and Attempts are noted.
    pub(super) fn endings(&self) -> &Endings {
        &self.0.endings
    }

    /// Applies a Report. `None` when its Run is not tracked: the Attempt may be an orphan (see [`RunStore::owner`]), and
    /// is read from the gateway when its Run is tracked later.
    pub fn report(&self, report: &Report) -> Option<Applied> {
        self.update(&report.attempt.task, report.attempt.run, |run| {
            let foreign = report.spec_hash == run.facts.spec_hash && !run.is_target(&report.attempt.node);
            let applied = if foreign { Applied::NeverDispatched } else { run.ledger.apply_report(report) };
            if applied == Applied::Changed {
                self.note(run, report);
                let is_last = matches!(report.state, ReportedState::Ended(_)) && run.note_end();
                return (applied, Some(if is_last { Urgency::AtOnce } else { Urgency::AfterRest }));
            }
            // An agent that reports an Attempt of a settled Run has not received its Forget.
            (applied, run.settled.then_some(Urgency::AfterRest))
        })
    }

    /// Notes a Report that has changed the ledger.
    fn note(&self, run: &TrackedRun, report: &Report) {
        let (endings, attempt) = (&self.0.endings, &report.attempt);
        match &report.state {
            ReportedState::Accepted => {}
            ReportedState::Running(_) => endings.started(run, attempt),
            ReportedState::Ended(ended) => {
                let offset = (self.0.offset)(&attempt.node).unwrap_or_default();
                endings.attempt(run, attempt, (ended, EndedBy::Agent), offset);
            }
        }
    }

    /// Whether an Attempt that an agent names can have been started: on a frozen target, under a number that was in use.
    pub fn standing(&self, attempt: &AttemptId, spec_hash: Option<&SpecHash>) -> Standing {
        if attempt.attempt > MAX_ATTEMPTS {
            return Standing::Unstarted;
        }
        let Some(task) = self.get(&attempt.task) else { return Standing::Unknown };
        let runs = task.lock();
        let Some(run) = runs.get(attempt.run) else {
            let current = runs.current.as_ref().map(|run| run.facts.run);
            let credible = current.is_none_or(|current| orphan::is_credible(attempt.run, current));
            return if credible { Standing::Unknown } else { Standing::Unstarted };
        };
        // Of another spec under the same number, in a restored cluster, neither targets nor Attempts are known.
        let other_spec = spec_hash.is_some_and(|hash| *hash != run.facts.spec_hash);
        let started =
            run.ledger.may_have_started(&attempt.node, attempt.attempt) && run.is_target(&attempt.node);
        if other_spec || started { Standing::Started } else { Standing::Unstarted }
    }

    /// Applies the refusal of a `Start`. `None` when its Run is not tracked.
    pub fn refused(&self, refused: &Refused, at: UnixMillis) -> Option<Applied> {
        self.update(&refused.attempt.task, refused.attempt.run, |run| {
            let foreign = !run.is_target(&refused.attempt.node);
            let applied =
                if foreign { Applied::NeverDispatched } else { run.ledger.apply_refusal(refused, at) };
            if applied == Applied::Changed {
                self.0.endings.refused(refused);
            }
            (applied, when(applied == Applied::Changed))
        })
    }

    /// Applies a complete Inventory: `reports`, of any Task, over a live Session. To be called before the Session counts
    /// as live in [`super::fleet::Fleet::agent`].
    pub fn inventory(&self, node: &NodeName, session: &SessionId, reports: &[Report]) {
        let mut owned: HashMap<&TaskUid, Vec<AttemptId>> = HashMap::new();
        for report in reports {
            self.report(report);
            owned.entry(&report.attempt.task).or_default().push(report.attempt.clone());
        }
        for (uid, task) in self.all() {
            let owned = owned.get(&uid).map_or(&[][..], Vec::as_slice);
            let mut concerned = !owned.is_empty();
            for run in task.lock().all_mut() {
                run.ledger.apply_inventory(node, session, owned);
                concerned |= run.concerns(node);
            }
            if concerned {
                self.request(&task);
            }
        }
    }

    /// History holds this Attempt up to this stage.
    pub fn archived(&self, attempt: &AttemptId, stage: Stage) {
        self.update(&attempt.task, attempt.run, |run| {
            ((), when(run.ledger.note_archived(attempt, stage) == Applied::Changed))
        });
    }

    /// History holds the record of this Run up to this stage.
    pub fn archived_run(&self, task: &TaskUid, run: RunNumber, stage: RunStage) {
        self.update(task, run, |run| {
            let previous = run.ledger.run_archived();
            run.ledger.note_run_archived(stage);
            ((), when(previous < Some(stage)))
        });
    }

    /// The agent of this node connected, disconnected or was received from again. Requests reconciles of the Tasks that
    /// may wait for it.
    pub fn agent_changed(&self, node: &NodeName) {
        self.request_where(|runs| runs.all().any(|run| run.concerns(node)));
    }

    /// Nodes were added, removed or relabelled. Requests reconciles of the Tasks with unsettled Runs.
    pub fn nodes_changed(&self) {
        self.request_where(|runs| runs.held_by_ceiling || runs.all().any(|run| !run.settled));
    }

    /// The ceilings have changed: what is held may begin.
    pub(super) fn ceilings_changed(&self) {
        self.request_where(|runs| runs.held_by_ceiling);
    }

    /// Whether a Run that is not settled targets this node.
    pub fn awaits_node(&self, node: &NodeName) -> bool {
        self.all().iter().any(|(_, task)| task.lock().all().any(|run| run.concerns(node)))
    }

    fn request_where(&self, concerned: impl Fn(&Runs) -> bool) {
        for (_, task) in self.all() {
            if concerned(&task.lock()) {
                self.request(&task);
            }
        }
    }

    /// What never changes about a Run; `None` when it is not tracked.
    pub fn facts(&self, task: &TaskUid, run: RunNumber) -> Option<Arc<RunFacts>> {
        self.facts_and_origin(task, run).map(|(facts, _)| facts)
    }

    /// The same, and whether this operator began that Run itself.
    pub(super) fn facts_and_origin(&self, task: &TaskUid, run: RunNumber) -> Option<(Arc<RunFacts>, Origin)> {
        let task = self.get(task)?;
        task.lock().get(run).map(|run| (run.facts.clone(), run.ledger.origin()))
    }

    /// All Tasks have been listed: from now on one that is not in the cache is deleted.
    ///
    /// Noted here because `Store::wait_until_ready` keeps the waker of one waiter only.
    pub fn note_listed(&self) {
        self.0.listed.store(true, Ordering::Release);
    }

    /// Whether all Tasks have been listed.
    pub fn are_listed(&self) -> bool {
        self.0.listed.load(Ordering::Acquire)
    }

    /// The owner of an Attempt whose Run is not tracked. `None` while it is not known: the Tasks have not been listed, or
    /// its Task has not been reconciled.
    pub fn owner(&self, task: &TaskUid, tasks: &Store<Task>) -> Option<Owner> {
        if let Some(task) = self.get(task) {
            return task.lock().current.as_ref().map(|run| Owner::AtRun(run.facts.run));
        }
        let exists = tasks.find(|found| found.uid().as_deref() == Some(task.as_str())).is_some();
        (self.are_listed() && !exists).then_some(Owner::Gone)
    }

    /// The Runs of a Task, made when they do not exist.
    pub fn get_or_insert(&self, uid: &TaskUid, task: &TaskRef) -> Arc<TaskRuns> {
        if let Some(runs) = self.get(uid) {
            return runs;
        }
        let mut all = self.0.runs.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(uid.clone()).or_insert_with(|| Arc::new(TaskRuns::new(task.clone()))).clone()
    }

    /// Requests a reconcile of the Task.
    pub fn request(&self, task: &TaskRuns) {
        self.0.requests.add(task.task(), Urgency::AfterRest);
    }

    /// Drops the Runs of Tasks that do not exist any more. What agents still own of them is orphaned.
    pub fn retain(&self, exists: impl Fn(&TaskUid, &TaskRef) -> bool) {
        let mut all = self.0.runs.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|uid, runs| exists(uid, runs.task()));
    }

    /// Number of Tasks in it.
    pub fn len(&self) -> usize {
        self.0.runs.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether it has no Task.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn get(&self, uid: &TaskUid) -> Option<Arc<TaskRuns>> {
        self.0.runs.read().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    pub(super) fn all(&self) -> Vec<(TaskUid, Arc<TaskRuns>)> {
        let all = self.0.runs.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(uid, runs)| (uid.clone(), runs.clone())).collect()
    }

    /// Changes a Run, and requests a reconcile where `change` returns how urgent it is beside its answer.
    fn update<T>(
        &self,
        task: &TaskUid,
        run: RunNumber,
        change: impl FnOnce(&mut TrackedRun) -> (T, Option<Urgency>),
    ) -> Option<T> {
        let task = self.get(task)?;
        let (answer, urgency) = change(task.lock().get_mut(run)?);
        if let Some(urgency) = urgency {
            self.0.requests.add(task.task(), urgency);
        }
        Some(answer)
    }
}

/// How urgent a change is that is not the last that a Run waits for.
fn when(changed: bool) -> Option<Urgency> {
    changed.then_some(Urgency::AfterRest)
}

#[cfg(test)]
mod tests {
    use sentinel_core::reconcile::retry::Retry;
    use sentinel_core::reconcile::rollout::HistoryLookup;
    use sentinel_core::reconcile::run::Trigger;
    use sentinel_protocol::to_operator::Running;

    use super::*;
    use crate::traces::RunTrace;

    #[test]
    fn only_started_attempts_of_frozen_targets_are_accepted() {
        let store = RunStore::new(ReconcileRequests::default());
        let task = TaskRef::new("ops", "job").unwrap();
        let uid = TaskUid::new("u").unwrap();
        let spec_hash = SpecHash::new("a".repeat(64)).unwrap();
        let other = SpecHash::new("b".repeat(64)).unwrap();
        let facts = RunFacts {
            task: task.clone(),
            uid: uid.clone(),
            run: RunNumber(7),
            spec_hash: spec_hash.clone(),
            rerun: None,
            started_at: UnixMillis(1),
            command: "true".to_owned(),
            trigger: Trigger::SpecChange,
            retry: Retry::never(),
            requested_by: None,
            approved_by: None,
            request: None,
            signed: None,
            trace: RunTrace::default(),
        };
        let targets = Arc::new(vec![NodeName::new("n").unwrap()]);
        let runs = store.get_or_insert(&uid, &task);
        runs.lock().current = Some(TrackedRun::new(facts, targets, Origin::Begun, HistoryLookup::Done));
        let standing = |id: &str, hash: &SpecHash| store.standing(&id.parse().unwrap(), Some(hash));
        assert_eq!(standing("u/7/n/1", &spec_hash), Standing::Started);
        assert_eq!(standing("u/7/n/2", &spec_hash), Standing::Unstarted, "attempt 2 without a retry");
        assert_eq!(standing("u/7/m/1", &spec_hash), Standing::Unstarted, "not a target");
        assert_eq!(standing("u/7/n/2", &other), Standing::Started, "another future of a restored cluster");
        assert_eq!(standing("u/7/n/22", &other), Standing::Unstarted);
        assert_eq!(standing("u/6/n/1", &spec_hash), Standing::Unknown, "an earlier run");
        assert_eq!(standing("u/4294967295/n/1", &spec_hash), Standing::Unstarted, "the last possible run");
        assert_eq!(standing("v/1/n/1", &spec_hash), Standing::Unknown);
        assert_eq!(standing("v/1/n/22", &spec_hash), Standing::Unstarted);
        let report = Report {
            attempt: "u/7/m/1".parse().unwrap(),
            spec_hash,
            state: ReportedState::Running(Running { started_at: UnixMillis(1), pid: 1 }),
        };
        assert_eq!(store.report(&report), Some(Applied::NeverDispatched));
        assert_eq!(runs.lock().current.as_ref().map(|run| run.ledger.executions().count()), Some(0));
    }
}
