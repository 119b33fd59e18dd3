//! A stage for the controller: everything around it is real but the agents, which do what a test tells them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use kube::runtime::reflector;
use sentinel_core::reconcile::ledger::{Applied, RunStage};
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_operator::audit::Audit;
use sentinel_operator::clock::Clock;
use sentinel_operator::cluster::{Cluster, EmbeddedCluster, NodeCache, TaskStore};
use sentinel_operator::controller::{
    CacheProgress, Caches, Counters, CurrentCeilings, Endings, Leadership, Parts, ReconcileRequests,
    RunStore, run,
};
use sentinel_operator::gateway::{AttemptFacts, LedgerSink as _};
use sentinel_operator::health::Health;
use sentinel_operator::history::archive::{Archived, Archiver, ArchiverOptions};
use sentinel_operator::history::record::{AttemptRecord, HistoryRecord, RecordSource};
use sentinel_operator::history::{ExecutionQuery, History};
use sentinel_operator::metrics::Registry;
use sentinel_operator::resource::stamp::Stamps;
use sentinel_operator::resource::{Task, manifest};
use sentinel_operator::traces::Traces;
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, RunNumber, SpecHash, TaskRef, TaskUid};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::request::Environment;
use sentinel_protocol::stage::Stage as Stages;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::Start;
use sentinel_protocol::to_operator::{Ended, OutputSummary, Refused, Report, ReportedState, Running, Usage};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::agents::{Agents, Delivered};
use super::history::SwitchedHistory;
use super::server::Server;

/// Paused time within which everything awaited must come.
const DEADLINE: Duration = Duration::from_hours(1);

/// A controller at work, and all around it.
pub(crate) struct Stage {
    pub(crate) cluster: EmbeddedCluster,
    /// The same as the operator has it.
    seam: Arc<dyn Cluster>,
    pub(crate) fleet: Arc<Agents>,
    pub(crate) history: Arc<SwitchedHistory>,
    clock: Clock,
    ceilings: CurrentCeilings,
    audit: Audit,
    operator: Operator,
}

/// What ends with an operator's process.
struct Operator {
    runs: RunStore,
    archiver: Archiver,
    counters: Arc<Counters>,
    stop: CancellationToken,
    work: Vec<tokio::task::JoinHandle<()>>,
}

/// A wall clock that follows the paused one.
fn clock() -> Clock {
    let start = tokio::time::Instant::now();
    let base = 1_790_000_000_000;
    Clock::from_fn(move || UnixMillis(base + i64::try_from(start.elapsed().as_millis()).unwrap()))
}

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(crate) fn task_ref(name: &str) -> TaskRef {
    TaskRef::new("default", name).unwrap()
}

impl Stage {
    /// Connected nodes of these names, and an operator.
    pub(crate) fn with_nodes(names: &[&str]) -> Self {
        Self::over(EmbeddedCluster::in_memory(clock()), names)
    }

    /// The same over a cluster whose Tasks are stamped with who asked.
    pub(crate) fn stamping(stamps: Stamps, names: &[&str]) -> Self {
        Self::over(EmbeddedCluster::in_memory(clock()).stamping(stamps), names)
    }

    /// The same over a cluster that is kept in a directory.
    pub(crate) fn in_directory(directory: &Path, names: &[&str]) -> Self {
        Self::over(EmbeddedCluster::in_directory(directory, clock()).unwrap(), names)
    }

    /// The same over a cluster that stores status and finalizer one by one, as an API server does. The second write
    /// takes until the server lets it pass.
    pub(crate) fn on_a_server(names: &[&str]) -> (Self, Arc<Server>) {
        let cluster = EmbeddedCluster::in_memory(clock());
        let server = Arc::new(Server::new(cluster.clone()));
        (Self::behind(cluster, server.clone(), CurrentCeilings::default(), names), server)
    }

    fn over(cluster: EmbeddedCluster, names: &[&str]) -> Self {
        let seam = Arc::new(cluster.clone());
        Self::behind(cluster, seam, CurrentCeilings::default(), names)
    }

    /// Stamped, with the ceilings of a file.
    pub(crate) fn within(ceilings: CurrentCeilings, stamps: Stamps, names: &[&str]) -> Self {
        let cluster = EmbeddedCluster::in_memory(clock()).stamping(stamps);
        let seam = Arc::new(cluster.clone());
        Self::behind(cluster, seam, ceilings, names)
    }

    /// The same over a cluster that is kept in a directory, with the operator's audit records.
    pub(crate) fn audited(
        audit: Audit,
        directory: &Path,
        (ceilings, stamps): (CurrentCeilings, Stamps),
        names: &[&str],
    ) -> Self {
        let cluster = EmbeddedCluster::in_directory(directory, clock()).unwrap().stamping(stamps);
        let seam = Arc::new(cluster.clone());
        Self::recording(cluster, seam, (ceilings, audit), names)
    }

    fn behind(
        cluster: EmbeddedCluster,
        seam: Arc<dyn Cluster>,
        ceilings: CurrentCeilings,
        names: &[&str],
    ) -> Self {
        Self::recording(cluster, seam, (ceilings, Audit::default()), names)
    }

    fn recording(
        cluster: EmbeddedCluster,
        seam: Arc<dyn Cluster>,
        (ceilings, audit): (CurrentCeilings, Audit),
        names: &[&str],
    ) -> Self {
        cluster.set_nodes(names.iter().map(|name| (node(name), NodeFacts::default())).collect());
        let clock = clock();
        let fleet = Arc::new(Agents::new(cluster.clone(), clock.clone()));
        let history = Arc::new(SwitchedHistory::new(clock.clone()));
        let operator = Operator::start(&seam, &fleet, &history, (&clock, &ceilings, &audit));
        let stage = Self { cluster, seam, fleet, history, clock, ceilings, audit, operator };
        for name in names {
            stage.connect(name);
        }
        stage
    }

    /// The operator's process ends and another begins.
    pub(crate) async fn restart(&mut self) {
        for work in self.operator.work.drain(..) {
            work.abort();
            let _ = work.await;
        }
        let kept = (&self.clock, &self.ceilings, &self.audit);
        self.operator = Operator::start(&self.seam, &self.fleet, &self.history, kept);
    }

    pub(crate) async fn apply(&self, name: &str, spec: &str) {
        let text = format!(
            "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}, namespace: default}}\nspec: {spec}\n"
        );
        self.cluster.apply(manifest::read(&text).unwrap().remove(0)).await.unwrap();
    }

    /// A new Session of this node's agent, with its Inventory.
    pub(crate) fn connect(&self, name: &str) {
        let name = node(name);
        let (session, reports) = self.fleet.next_session(&name);
        self.operator.runs.inventory(&name, &session, &reports);
        self.fleet.set_live(&name, session);
        self.operator.runs.agent_changed(&name);
    }

    /// The agent of this node connects without its Journal: it owns nothing.
    pub(crate) fn connect_empty(&self, name: &str) {
        self.fleet.lose_journal(&node(name));
        self.connect(name);
    }

    pub(crate) fn disconnect(&self, name: &str) {
        self.fleet.disconnect(&node(name));
        self.operator.runs.agent_changed(&node(name));
    }

    /// An agent reports the Attempt that was last started; it goes to the run store and to the archive.
    pub(crate) fn report(&self, task: &str, run: u32, name: &str, state: ReportedState) {
        let (attempt, spec_hash) = self.fleet.last_started(task, run, name).expect("it was started");
        self.report_of(&attempt, spec_hash, state);
    }

    /// An agent reports an Attempt; it goes to the run store and to the archive.
    pub(crate) fn report_of(&self, attempt: &AttemptId, spec_hash: SpecHash, state: ReportedState) {
        let report = Report { attempt: attempt.clone(), spec_hash, state };
        self.fleet.own(&report);
        self.operator.runs.report(&report);
        let facts = self.operator.runs.facts(&attempt.task, attempt.run);
        if let Some(facts) = facts {
            let record = record(&report, facts.task.clone(), facts.started_at);
            self.operator.archiver.record(HistoryRecord::Attempt(Box::new(record))).unwrap();
        }
    }

    /// The agent of this node refuses the Attempt that it was last sent.
    pub(crate) fn refuse(&self, task: &str, run: u32, name: &str, refusal: Refusal) {
        let (attempt, spec_hash) = self.fleet.last_started(task, run, name).expect("it was started");
        let refused = Refused { attempt, spec_hash, refusal, offer: 0 };
        assert_eq!(self.operator.runs.refused(&refused, self.at()), Some(Applied::Changed));
    }

    /// What is known about an Attempt of a Run that is not tracked.
    pub(crate) fn earlier_facts(&self, attempt: &AttemptId) -> Option<AttemptFacts> {
        self.operator.runs.earlier_facts(attempt, &SpecHash::new("0".repeat(64)).unwrap())
    }

    pub(crate) fn delivered(&self) -> Vec<Delivered> {
        self.fleet.delivered()
    }

    pub(crate) fn count_starts(&self) -> usize {
        self.delivered().iter().filter(|delivered| matches!(delivered, Delivered::Start(..))).count()
    }

    /// Waits for so many `Start`s in all; each with the Task as it was recorded then.
    pub(crate) async fn starts(&self, count: usize) -> Vec<(Start, Option<Box<Task>>)> {
        self.until_delivered(|delivered| {
            delivered.iter().filter(|delivered| matches!(delivered, Delivered::Start(..))).count() >= count
        })
        .await;
        let start = |delivered| match delivered {
            Delivered::Start(start, recorded) => Some((*start, recorded)),
            _ => None,
        };
        self.delivered().into_iter().filter_map(start).collect()
    }

    pub(crate) async fn until_delivered(&self, enough: impl Fn(&[Delivered]) -> bool) {
        self.wait("what was delivered", || self.fleet.has_delivered(&enough).then_some(())).await;
    }

    /// Waits until the Task is as wanted.
    pub(crate) async fn until(&self, name: &str, wanted: impl Fn(&Task) -> bool) -> Task {
        let read = || self.now(name).filter(|task| task.status.is_some() && wanted(task));
        self.wait(name, read).await
    }

    pub(crate) async fn until_gone(&self, name: &str) {
        self.wait(name, || self.now(name).is_none().then_some(())).await;
    }

    /// Waits until no Run is tracked.
    pub(crate) async fn until_untracked(&self) {
        self.wait("the run store", || self.operator.runs.is_empty().then_some(())).await;
    }

    /// Waits until nothing is tracked of this Task.
    pub(crate) async fn until_released(&self, task: &TaskUid) {
        let runs = &self.operator.runs;
        self.wait("the Task to be released", || runs.facts(task, RunNumber(1)).is_none().then_some(())).await;
    }

    /// Waits until the results of these nodes are archived.
    pub(crate) async fn until_archived(&self, names: &[&str]) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let mut archived = std::collections::HashSet::new();
            let mut query = ExecutionQuery::default();
            loop {
                let page = self.history.executions(query.clone()).await.unwrap();
                let ended = page.items.iter().filter(|execution| execution.stage == Stages::Ended);
                archived.extend(ended.map(|execution| execution.node.to_string()));
                match page.next {
                    Some(next) => query.after = Some(next),
                    None => break,
                }
            }
            if names.iter().all(|name| archived.contains(*name)) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "never archived: {names:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The time by the operator's clock.
    pub(crate) fn at(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Lets everything that is due without an input happen.
    pub(crate) async fn calm(&self) {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.operator.counters.all().into_iter().find(|(counter, _)| *counter == name).unwrap().1
    }

    /// Failed reconciles of this category.
    pub(crate) fn errors(&self, category: &str) -> u64 {
        self.operator.counters.errors(category)
    }

    /// Waits for a cluster event about a Task.
    pub(crate) async fn until_event(&self, name: &str, reason: &str) {
        self.wait(reason, || self.reasons(name).contains(&reason).then_some(())).await;
    }

    /// Reasons of the cluster events about a Task.
    pub(crate) fn reasons(&self, name: &str) -> Vec<&'static str> {
        let published = self.cluster.published().into_iter().filter(|event| event.task == task_ref(name));
        published.map(|event| event.notice.reason).collect()
    }

    /// Notes of the cluster events about a Task.
    pub(crate) fn notes(&self, name: &str) -> Vec<String> {
        let published = self.cluster.published().into_iter().filter(|event| event.task == task_ref(name));
        published.map(|event| event.notice.note).collect()
    }

    fn now(&self, name: &str) -> Option<Task> {
        self.cluster.get(task_ref(name)).now_or_never().unwrap().unwrap()
    }

    async fn wait<T>(&self, what: &str, read: impl Fn() -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            if let Some(found) = read() {
                return found;
            }
            if tokio::time::Instant::now() > deadline {
                let tasks = self.cluster.list(None).await.unwrap();
                panic!(
                    "waited in vain for {what}\n{}\n{:?}",
                    serde_json::to_string(&tasks).unwrap(),
                    self.delivered()
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Operator {
    fn start(
        cluster: &Arc<dyn Cluster>,
        fleet: &Arc<Agents>,
        history: &Arc<SwitchedHistory>,
        (clock, ceilings, audit): (&Clock, &CurrentCeilings, &Audit),
    ) -> Self {
        let requests = ReconcileRequests::default();
        let endings = Endings::new(&Registry::new(), Traces::off(), audit.clone(), clock.clone());
        let runs = RunStore::noting(requests.clone(), endings, |_| None);
        let (done, archived) = mpsc::channel(64);
        let (archiver, archive) = Archiver::new(history.clone(), ArchiverOptions::default(), done);
        let (nodes, nodes_writer) = NodeCache::new();
        let (tasks, tasks_writer) = reflector::store();
        let parts = Parts {
            cluster: cluster.clone(),
            fleet: fleet.clone(),
            runs: runs.clone(),
            history: history.clone(),
            archiver: archiver.clone(),
            nodes,
            clock: clock.clone(),
            leadership: Leadership::always(Epoch::from(1), clock.reading()).1,
            health: Health::new(),
            metrics: Registry::new(),
            stamps: cluster.stamps(),
            ceilings: ceilings.clone(),
        };
        let (progress, _) = tokio::sync::watch::channel(CacheProgress::default());
        let caches = Caches { tasks_writer, tasks, nodes_writer, progress };
        let (counters, stop) = (Arc::new(Counters::default()), CancellationToken::new());
        let work = vec![
            tokio::spawn(archive.run()),
            tokio::spawn(apply_archived(archived, runs.clone())),
            tokio::spawn(run(parts, caches, requests, counters.clone(), stop.clone())),
            tokio::spawn(ceilings.clone().keep_current(runs.clone(), Registry::new(), stop.clone())),
        ];
        Self { runs, archiver, counters, stop, work }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn apply_archived(mut archived: mpsc::Receiver<Archived>, runs: RunStore) {
    while let Some(archived) = archived.recv().await {
        match archived {
            Archived::Attempt { id, stage, .. } => runs.archived(&id, stage),
            Archived::Run { task_uid, run, verdict } => {
                let stage = if verdict.is_some() { RunStage::Finished } else { RunStage::Begun };
                runs.archived_run(&task_uid, run, stage);
            }
            _ => {}
        }
    }
}

fn record(report: &Report, task: TaskRef, run_started_at: UnixMillis) -> AttemptRecord {
    let (started_at, ended) = match &report.state {
        ReportedState::Accepted => (None, None),
        ReportedState::Running(running) => (Some(running.started_at), None),
        ReportedState::Ended(ended) => (ended.started_at, Some(ended)),
    };
    AttemptRecord {
        attempt: report.attempt.clone(),
        namespace: task.namespace.into(),
        name: task.name.into(),
        run_started_at,
        trigger: None,
        spec_hash: report.spec_hash.clone(),
        command: String::new(),
        environment: Environment::Container,
        stage: report.state.stage(),
        started_at,
        ended_at: ended.map(|ended| ended.ended_at),
        outcome: ended.map(|ended| ended.outcome.clone()),
        usage: Usage::default(),
        output: OutputSummary::default(),
        exit: ended.map(|ended| ended.exit.clone()).unwrap_or_default(),
        source: RecordSource::Agent,
        epoch: Epoch::from(1),
    }
}

pub(crate) fn running() -> ReportedState {
    ReportedState::Running(Running { started_at: UnixMillis(1_790_000_000_123), pid: 1 })
}

pub(crate) fn ended(outcome: Outcome) -> ReportedState {
    ReportedState::Ended(Box::new(Ended {
        outcome,
        started_at: Some(UnixMillis(1_790_000_000_123)),
        ended_at: UnixMillis(1_790_000_001_456),
        usage: Usage::default(),
        output: OutputSummary::default(),
        exit: sentinel_protocol::exit::ExitDetails::default(),
    }))
}

pub(crate) fn succeeded() -> ReportedState {
    ended(Outcome::Succeeded { exit_code: 0 })
}

pub(crate) fn failed(exit_code: u8) -> ReportedState {
    ended(Outcome::Failed { exit_code })
}

/// Status of a condition; empty when it is absent.
pub(crate) fn condition<'a>(task: &'a Task, kind: &str) -> &'a str {
    let conditions = task.status.as_ref().map_or(&[][..], |status| &status.conditions);
    conditions.iter().find(|condition| condition.type_ == kind).map_or("", |condition| &condition.status)
}

pub(crate) fn phase(task: &Task) -> &str {
    task.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}
