//! A stage for the controller: everything around it is real but the agents, who do what a test says, and History,
//! which is a map that can be away.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use kube::runtime::reflector;
use sentinel_core::reconcile::ledger::RunStage;
use sentinel_core::reconcile::rollout::{ActiveAttempt, AgentFacts};
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_core::time::Monotonic;
use sentinel_operator::clock::Clock;
use sentinel_operator::cluster::{EmbeddedCluster, NodeCache, TaskStore};
use sentinel_operator::controller::fleet::Owned;
use sentinel_operator::controller::{Caches, Counters, Fleet, Lead, Ledgers, Moments, Parts, Wake, run};
use sentinel_operator::history::archive::{Archived, Archiver, ArchiverOptions};
use sentinel_operator::history::query::MAX_PAGE;
use sentinel_operator::history::record::{AttemptRecord, Entry, ExecutionRecord, RunRecord, Source};
use sentinel_operator::history::{
    Answer, ExecutionQuery, History, HistoryError, OutputSegment, Page, PageToken, RunQuery, rank,
};
use sentinel_operator::resource::{Task, manifest};
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, SessionId, SpecHash, TaskRef, TaskUid};
use sentinel_protocol::log::LogRecord;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::request::Environment;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Cancel, Forget, Start};
use sentinel_protocol::to_operator::{
    Ended, OutputSummary, Report, ReportedState, Running, Stage as Stages, Usage,
};
use sentinel_protocol::version::Version;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Time, on the clock that does not wait, within which everything awaited must come.
const DEADLINE: Duration = Duration::from_hours(1);

/// What an agent was delivered.
#[derive(Debug, Clone)]
pub(crate) enum Delivered {
    Start(Box<Start>, Option<Box<Task>>),
    Cancel(#[expect(dead_code, reason = "shown when a test fails")] Cancel),
    Forget(#[expect(dead_code, reason = "shown when a test fails")] Forget),
}

/// The agents of a stage.
pub(crate) struct Agents {
    cluster: EmbeddedCluster,
    moments: Moments,
    sessions: Mutex<HashMap<NodeName, SessionId>>,
    heard: Mutex<HashMap<NodeName, Monotonic>>,
    delivered: Mutex<Vec<Delivered>>,
    owned: Mutex<BTreeMap<(TaskUid, NodeName), BTreeMap<ActiveAttempt, Report>>>,
    refusals: AtomicU32,
    next_session: AtomicU32,
    version: AtomicU16,
}

impl Agents {
    /// The agents are of a release that speaks this version.
    pub(crate) fn speak(&self, version: Version) {
        self.version.store(version.0, Ordering::Relaxed);
    }

    /// The next messages find no room.
    pub(crate) fn refuse_next(&self, messages: u32) {
        self.refusals.store(messages, Ordering::Relaxed);
    }

    fn tell(&self, node: &NodeName, delivered: impl FnOnce() -> Delivered) -> Option<SessionId> {
        if self
            .refusals
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
        {
            return None;
        }
        let session = self.sessions.lock().unwrap().get(node).cloned()?;
        self.delivered.lock().unwrap().push(delivered());
        Some(session)
    }
}

impl Fleet for Agents {
    fn agent(&self, node: &NodeName) -> AgentFacts {
        let session = self.sessions.lock().unwrap().get(node).cloned();
        let last_seen = match session {
            Some(_) => Some(self.moments.moment()),
            None => self.heard.lock().unwrap().get(node).copied(),
        };
        AgentFacts { session, last_seen, ..AgentFacts::default() }
    }

    fn living(&self, task: &TaskUid, node: &NodeName) -> Option<ActiveAttempt> {
        let owned = self.owned.lock().unwrap();
        let runs = owned.get(&(task.clone(), node.clone()))?;
        let lives = |(_, report): &(&ActiveAttempt, &Report)| report.state.stage() != Stages::Ended;
        runs.iter().filter(lives).map(|(attempt, _)| *attempt).max()
    }

    fn speaks(&self, _: &NodeName) -> Option<Version> {
        Some(Version(self.version.load(Ordering::Relaxed)))
    }

    fn start(&self, start: Start) -> Option<SessionId> {
        let recorded = self.cluster.get(start.task.clone()).now_or_never().unwrap().unwrap();
        let (node, attempt, spec_hash) =
            (start.attempt.node.clone(), start.attempt.clone(), start.spec_hash.clone());
        let session = self.tell(&node, || Delivered::Start(Box::new(start), recorded.map(Box::new)))?;
        let report = Report { attempt: attempt.clone(), spec_hash, state: ReportedState::Accepted };
        let key = living(&attempt);
        let mut owned = self.owned.lock().unwrap();
        owned.entry((attempt.task, node)).or_default().entry(key).or_insert(report);
        Some(session)
    }

    fn cancel(&self, cancel: Cancel) -> Option<SessionId> {
        self.tell(&cancel.attempt.node.clone(), || Delivered::Cancel(cancel))
    }

    fn forget(&self, forget: Forget) -> Option<SessionId> {
        let AttemptId { task, node, .. } = &forget.attempt;
        if let Some(runs) = self.owned.lock().unwrap().get_mut(&(task.clone(), node.clone())) {
            runs.remove(&living(&forget.attempt));
        }
        self.tell(&forget.attempt.node.clone(), || Delivered::Forget(forget))
    }

    fn owned(&self, task: &TaskUid) -> Vec<Owned> {
        let owned = self.owned.lock().unwrap();
        let sessions = self.sessions.lock().unwrap();
        let of = |node: &NodeName| {
            let runs = owned.get(&(task.clone(), node.clone()));
            runs.into_iter().flat_map(BTreeMap::values).cloned().collect()
        };
        sessions
            .iter()
            .map(|(node, session)| Owned { node: node.clone(), session: session.clone(), reports: of(node) })
            .collect()
    }
}

/// A History that is a map, and can be away.
#[derive(Default)]
pub(crate) struct MapHistory {
    attempts: Mutex<BTreeMap<String, AttemptRecord>>,
    runs: Mutex<BTreeMap<String, RunRecord>>,
    away: AtomicBool,
}

impl MapHistory {
    pub(crate) fn go_away(&self) {
        self.away.store(true, Ordering::Relaxed);
    }

    pub(crate) fn come_back(&self) {
        self.away.store(false, Ordering::Relaxed);
    }

    fn there(&self) -> Result<(), HistoryError> {
        if self.away.load(Ordering::Relaxed) {
            let after = Duration::from_secs(1);
            return Err(HistoryError::TimedOut { action: "answer", store: "the map".to_owned(), after });
        }
        Ok(())
    }
}

impl History for MapHistory {
    fn prepare(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn check(&self) -> Answer<'_, ()> {
        Box::pin(async { self.there() })
    }

    fn record(&self, entries: Vec<Entry>) -> Answer<'_, ()> {
        Box::pin(async move {
            self.there()?;
            for entry in entries {
                match entry {
                    Entry::Attempt(new) => {
                        let mut attempts = self.attempts.lock().unwrap();
                        let id = new.attempt.sort_key();
                        if attempts.get(&id).is_none_or(|old| rank::of_attempt(old) <= rank::of_attempt(&new))
                        {
                            attempts.insert(id, *new);
                        }
                    }
                    Entry::Run(new) => {
                        let mut runs = self.runs.lock().unwrap();
                        if runs.get(&new.id()).is_none_or(|old| rank::of_run(old) <= rank::of_run(&new)) {
                            runs.insert(new.id(), *new);
                        }
                    }
                    Entry::Execution(_) => {}
                }
            }
            Ok(())
        })
    }

    fn append_output(&self, _: Vec<OutputSegment>) -> Answer<'_, ()> {
        Box::pin(async { self.there() })
    }

    fn output(&self, _: AttemptId, _: u64, _: usize) -> Answer<'_, Vec<LogRecord>> {
        Box::pin(async { self.there().map(|()| Vec::new()) })
    }

    fn output_end(&self, _: AttemptId, from: u64) -> Answer<'_, u64> {
        Box::pin(async move { self.there().map(|()| from) })
    }

    fn attempt(&self, id: AttemptId) -> Answer<'_, Option<AttemptRecord>> {
        Box::pin(async move {
            self.there()?;
            Ok(self.attempts.lock().unwrap().get(&id.sort_key()).cloned())
        })
    }

    fn executions(&self, query: ExecutionQuery) -> Answer<'_, Page<ExecutionRecord>> {
        Box::pin(async move {
            self.there()?;
            let attempts = self.attempts.lock().unwrap();
            let wanted = |record: &&AttemptRecord| {
                Some(&record.attempt.task) == query.task_uid.as_ref() && Some(record.attempt.run) == query.run
            };
            let mut latest: BTreeMap<PageToken, ExecutionRecord> = BTreeMap::new();
            // In the order of their ids: of an Execution, the latest Attempt comes last.
            for row in attempts.values().filter(wanted).map(AttemptRecord::execution) {
                latest.insert(PageToken::of_execution(&row), row);
            }
            Ok(page(latest, query.limit, query.after.as_ref()))
        })
    }

    fn runs(&self, query: RunQuery) -> Answer<'_, Page<RunRecord>> {
        Box::pin(async move {
            self.there()?;
            let runs = self.runs.lock().unwrap();
            let wanted = |run: &&RunRecord| {
                Some(&run.task_uid) == query.task_uid.as_ref() && Some(run.run) == query.run
            };
            let wanted = runs.values().filter(wanted).cloned();
            let rows = wanted.map(|run| (PageToken::of_run(&run), run)).collect();
            Ok(page(rows, query.limit, query.after.as_ref()))
        })
    }
}

/// A page of rows in order, as a History gives it: at most 500.
fn page<T>(rows: BTreeMap<PageToken, T>, limit: u32, after: Option<&PageToken>) -> Page<T> {
    let limit = if limit == 0 { MAX_PAGE } else { limit } as usize;
    let mut rows = rows.into_iter().filter(|(key, _)| after.is_none_or(|after| key > after));
    let taken: Vec<(PageToken, T)> = rows.by_ref().take(limit).collect();
    let more = rows.next().is_some();
    let next = taken.last().filter(|_| more).map(|(key, _)| key.clone());
    Page { items: taken.into_iter().map(|(_, row)| row).collect(), next }
}

/// A controller at work, and all around it.
pub(crate) struct Stage {
    pub(crate) cluster: EmbeddedCluster,
    pub(crate) fleet: Arc<Agents>,
    pub(crate) history: Arc<MapHistory>,
    moments: Moments,
    operator: Operator,
}

/// What goes with an operator's process.
struct Operator {
    ledgers: Ledgers,
    archiver: Archiver,
    counters: Arc<Counters>,
    stop: CancellationToken,
    work: Vec<tokio::task::JoinHandle<()>>,
}

/// A wall clock that goes with the paused one.
fn clock() -> Clock {
    let start = tokio::time::Instant::now();
    let base = 1_790_000_000_000;
    Clock::from_fn(move || UnixMillis(base + i64::try_from(start.elapsed().as_millis()).unwrap()))
}

/// Which of a Task's Attempts on a node it is.
fn living(attempt: &AttemptId) -> ActiveAttempt {
    ActiveAttempt { run: attempt.run, attempt: attempt.attempt }
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

    /// The same over a cluster that is kept in a directory.
    pub(crate) fn in_directory(directory: &Path, names: &[&str]) -> Self {
        Self::over(EmbeddedCluster::in_directory(directory, clock()).unwrap(), names)
    }

    fn over(cluster: EmbeddedCluster, names: &[&str]) -> Self {
        cluster.set_nodes(names.iter().map(|name| (node(name), NodeFacts::default())).collect());
        let moments = Moments::new(clock());
        let fleet = Arc::new(Agents {
            cluster: cluster.clone(),
            moments: moments.clone(),
            sessions: Mutex::default(),
            heard: Mutex::default(),
            delivered: Mutex::default(),
            owned: Mutex::default(),
            refusals: AtomicU32::new(0),
            next_session: AtomicU32::new(1),
            version: AtomicU16::new(3),
        });
        let history = Arc::new(MapHistory::default());
        let operator = Operator::start(&cluster, &fleet, &history, &moments);
        let stage = Self { cluster, fleet, history, moments, operator };
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
        self.operator = Operator::start(&self.cluster, &self.fleet, &self.history, &self.moments);
    }

    pub(crate) async fn apply(&self, name: &str, spec: &str) {
        let text = format!(
            "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}, namespace: default}}\nspec: {spec}\n"
        );
        self.cluster.apply(manifest::read(&text).unwrap().remove(0)).await.unwrap();
    }

    /// A new Session of this node's agent, with its Inventory.
    pub(crate) fn connect(&self, name: &str) {
        let number = self.fleet.next_session.fetch_add(1, Ordering::Relaxed);
        let session = SessionId::new(format!("s-{number}")).unwrap();
        let owned = self.fleet.owned.lock().unwrap();
        let of = |((_, owner), runs): (&(TaskUid, NodeName), &BTreeMap<ActiveAttempt, Report>)| {
            if owner.as_str() == name { runs.values().cloned().collect() } else { Vec::new() }
        };
        let reports: Vec<Report> = owned.iter().flat_map(of).collect();
        drop(owned);
        self.operator.ledgers.inventory(&node(name), &session, &reports);
        self.fleet.sessions.lock().unwrap().insert(node(name), session);
        self.operator.ledgers.agent_changed(&node(name));
    }

    /// The agent of this node comes back without its Journal: it owns nothing.
    pub(crate) fn connect_empty(&self, name: &str) {
        self.fleet.owned.lock().unwrap().retain(|(_, owner), _| owner.as_str() != name);
        self.connect(name);
    }

    pub(crate) fn disconnect(&self, name: &str) {
        self.fleet.sessions.lock().unwrap().remove(&node(name));
        self.fleet.heard.lock().unwrap().insert(node(name), self.moments.moment());
        self.operator.ledgers.agent_changed(&node(name));
    }

    /// An agent reports; the gateway tells the ledger and archives it.
    pub(crate) fn report(&self, task: &str, run: u32, name: &str, state: ReportedState) {
        let starts = self.fleet.delivered.lock().unwrap();
        let of = |delivered: &Delivered| match delivered {
            Delivered::Start(start, _)
                if start.task.name == task
                    && start.attempt.run.0 == run
                    && start.attempt.node.as_str() == name =>
            {
                Some((start.attempt.clone(), start.spec_hash.clone()))
            }
            _ => None,
        };
        let (attempt, spec_hash) = starts.iter().rev().find_map(of).expect("it was started");
        drop(starts);
        self.report_of(&attempt, spec_hash, state);
    }

    /// What was started of a Task.
    pub(crate) fn attempts(&self, task: &str) -> Vec<(AttemptId, SpecHash)> {
        let of = |delivered: &Delivered| match delivered {
            Delivered::Start(start, _) if start.task.name == task => {
                Some((start.attempt.clone(), start.spec_hash.clone()))
            }
            _ => None,
        };
        self.fleet.delivered.lock().unwrap().iter().filter_map(of).collect()
    }

    /// An agent reports an Attempt; the gateway tells the ledger and archives it.
    pub(crate) fn report_of(&self, attempt: &AttemptId, spec_hash: SpecHash, state: ReportedState) {
        let report = Report { attempt: attempt.clone(), spec_hash, state };
        let key = (attempt.task.clone(), attempt.node.clone());
        self.fleet.owned.lock().unwrap().entry(key).or_default().insert(living(attempt), report.clone());
        self.operator.ledgers.report(&report);
        let facts = self.operator.ledgers.facts(&attempt.task, attempt.run);
        if let Some(facts) = facts {
            let record = record(&report, facts.task.clone(), facts.started_at);
            self.operator.archiver.record(Entry::Attempt(Box::new(record))).unwrap();
        }
    }

    pub(crate) fn delivered(&self) -> Vec<Delivered> {
        self.fleet.delivered.lock().unwrap().clone()
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
        self.wait("what was delivered", || enough(&self.fleet.delivered.lock().unwrap()).then_some(())).await;
    }

    /// Waits until the Task is as wanted.
    pub(crate) async fn until(&self, name: &str, wanted: impl Fn(&Task) -> bool) -> Task {
        let look = || self.now(name).filter(|task| task.status.is_some() && wanted(task));
        self.wait(name, look).await
    }

    pub(crate) async fn until_gone(&self, name: &str) {
        self.wait(name, || self.now(name).is_none().then_some(())).await;
    }

    /// Waits until no book is open.
    pub(crate) async fn until_closed(&self) {
        self.wait("books", || self.operator.ledgers.is_empty().then_some(())).await;
    }

    /// Waits until the results of these nodes are archived.
    pub(crate) async fn until_archived(&self, names: &[&str]) {
        let held = |name: &&str| {
            let attempts = self.history.attempts.lock().unwrap();
            attempts
                .values()
                .any(|record| record.attempt.node.as_str() == *name && record.stage == Stages::Ended)
        };
        self.wait("the archive", || names.iter().all(held).then_some(())).await;
    }

    /// Waits for a while in which everything that is going to happen by itself does.
    pub(crate) async fn calm(&self) {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.operator.counters.all().into_iter().find(|(counter, _)| *counter == name).unwrap().1
    }

    /// Reasons of the cluster events about a Task.
    pub(crate) fn reasons(&self, name: &str) -> Vec<&'static str> {
        let published = self.cluster.published().into_iter().filter(|event| event.task == task_ref(name));
        published.map(|event| event.notice.reason).collect()
    }

    fn now(&self, name: &str) -> Option<Task> {
        self.cluster.get(task_ref(name)).now_or_never().unwrap().unwrap()
    }

    async fn wait<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look() {
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
        cluster: &EmbeddedCluster,
        fleet: &Arc<Agents>,
        history: &Arc<MapHistory>,
        moments: &Moments,
    ) -> Self {
        let wake = Wake::default();
        let ledgers = Ledgers::new(wake.clone());
        let (done, archived) = mpsc::channel(64);
        let (archiver, archive) = Archiver::new(history.clone(), ArchiverOptions::default(), done);
        let (nodes, nodes_writer) = NodeCache::new();
        let (tasks, tasks_writer) = reflector::store();
        let parts = Parts {
            cluster: Arc::new(cluster.clone()),
            fleet: fleet.clone(),
            ledgers: ledgers.clone(),
            history: history.clone(),
            archiver: archiver.clone(),
            nodes,
            moments: moments.clone(),
            lead: Lead::always(Epoch::from(1), moments.now()).1,
        };
        let (bell, _) = tokio::sync::watch::channel(sentinel_operator::controller::Seen::default());
        let caches = Caches { tasks_writer, tasks, nodes_writer, bell };
        let (counters, stop) = (Arc::new(Counters::default()), CancellationToken::new());
        let work = vec![
            tokio::spawn(archive.run()),
            tokio::spawn(hear_of_the_archive(archived, ledgers.clone())),
            tokio::spawn(run(parts, caches, wake, counters.clone(), stop.clone())),
        ];
        Self { ledgers, archiver, counters, stop, work }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn hear_of_the_archive(mut archived: mpsc::Receiver<Archived>, ledgers: Ledgers) {
    while let Some(archived) = archived.recv().await {
        match archived {
            Archived::Attempt { id, stage, .. } => ledgers.archived(&id, stage),
            Archived::Run { task_uid, run, verdict } => {
                let stage = if verdict.is_some() { RunStage::Finished } else { RunStage::Begun };
                ledgers.archived_run(&task_uid, run, stage);
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
        source: Source::Agent,
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

/// Status of a condition; empty when it is not there.
pub(crate) fn condition<'a>(task: &'a Task, kind: &str) -> &'a str {
    let conditions = task.status.as_ref().map_or(&[][..], |status| &status.conditions);
    conditions.iter().find(|condition| condition.type_ == kind).map_or("", |condition| &condition.status)
}

pub(crate) fn phase(task: &Task) -> &str {
    task.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}
