//! Pages of Runs and Executions of which some are in History, some on their way to it, some in memory, and some known from
//! a Task's status only.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use sentinel_core::reconcile::ledger::Origin;
use sentinel_core::reconcile::retry::Retry;
use sentinel_core::reconcile::rollout::HistoryLookup;
use sentinel_core::reconcile::run::Trigger;
use sentinel_operator::controller::ledgers::Page;
use sentinel_operator::controller::{Ledgers, LiveLedgers, RunFacts, Wake};
use sentinel_operator::gateway::Registry;
use sentinel_operator::history::archive::{Archived, Archiver, ArchiverOptions, ArchiverWork};
use sentinel_operator::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use sentinel_operator::history::{
    AttemptRecord, Entry, ExecutionQuery, History, PageToken, RunCounts, RunQuery, RunRecord, Source, Verdict,
};
use sentinel_operator::records::{Execution, Records};
use sentinel_operator::resource::{Task, manifest};
use sentinel_protocol::exit::ExitDetails;
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, RunNumber, SpecHash, TaskRef, TaskUid};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::request::Environment;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Ended, OutputSummary, Report, ReportedState, Running, Stage, Usage};
use serde_json::json;
use tokio::sync::mpsc;

/// Targets of each Run.
const TARGETS: usize = 12;

fn node(index: usize) -> NodeName {
    NodeName::new(format!("n{index:02}")).unwrap()
}

fn spec_hash() -> SpecHash {
    SpecHash::new("a".repeat(64)).unwrap()
}

fn started_at(run: u32) -> UnixMillis {
    UnixMillis(1_790_000_000_000 + i64::from(run) * 60_000)
}

fn id(task: &str, run: u32, index: usize) -> AttemptId {
    AttemptId { task: TaskUid::new(task).unwrap(), run: RunNumber(run), node: node(index), attempt: 1 }
}

fn ended(outcome: Outcome) -> ReportedState {
    ReportedState::Ended(Box::new(Ended {
        outcome,
        started_at: Some(UnixMillis(1)),
        ended_at: UnixMillis(2),
        usage: Usage::default(),
        output: OutputSummary::default(),
        exit: ExitDetails::default(),
    }))
}

/// How the Execution with this index stands in truth: each state comes up.
fn truth(index: usize) -> (&'static str, Option<ReportedState>) {
    match index % 4 {
        0 => ("Succeeded", Some(ended(Outcome::Succeeded { exit_code: 0 }))),
        1 => ("Failed", Some(ended(Outcome::Failed { exit_code: 3 }))),
        2 => ("Running", Some(ReportedState::Running(Running { started_at: UnixMillis(1), pid: 1 }))),
        _ => ("WaitingForNode", None),
    }
}

fn attempt(id: &AttemptId, state: &ReportedState) -> AttemptRecord {
    let end = match state {
        ReportedState::Ended(ended) => Some(ended),
        _ => None,
    };
    AttemptRecord {
        attempt: id.clone(),
        namespace: "default".into(),
        name: id.task.to_string(),
        run_started_at: started_at(id.run.0),
        spec_hash: spec_hash(),
        command: "true".into(),
        environment: Environment::Container,
        stage: state.stage(),
        started_at: Some(UnixMillis(1)),
        ended_at: end.map(|ended| ended.ended_at),
        outcome: end.map(|ended| ended.outcome.clone()),
        usage: Usage::default(),
        output: OutputSummary::default(),
        exit: ExitDetails::default(),
        source: Source::Agent,
        epoch: Epoch::from(1),
    }
}

fn run_record(task: &str, run: u32, verdict: Option<Verdict>) -> RunRecord {
    RunRecord {
        task_uid: TaskUid::new(task).unwrap(),
        namespace: "default".into(),
        name: task.into(),
        run: RunNumber(run),
        trigger: "SpecChange".into(),
        spec_hash: spec_hash(),
        command: "true".into(),
        started_at: started_at(run),
        finished_at: verdict.map(|_| started_at(run)),
        verdict,
        reason: None,
        counts: RunCounts { targets: TARGETS as u32, outcomes: BTreeMap::new() },
        epoch: Epoch::from(1),
    }
}

/// Everything that can be asked, spread over the places where it can be.
struct World {
    records: Records,
    history: Arc<EmbeddedHistory>,
    /// Not at work: what is handed over stays on its way.
    archiving: Option<ArchiverWork>,
    /// Every Execution that there is, in the order of pages, and how it stands.
    rows: BTreeMap<String, (&'static str, NodeName, RunNumber)>,
    _done: mpsc::Receiver<Archived>,
    _directory: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let history =
            EmbeddedHistory::open(directory.path().join("h.db"), EmbeddedOptions::default()).unwrap();
        let history = Arc::new(history);
        history.prepare().await.unwrap();
        let (done_in, done) = mpsc::channel(4096);
        let (archiver, archiving) = Archiver::new(history.clone(), ArchiverOptions::default(), done_in);
        let ledgers = Ledgers::new(Wake::default());
        let live = LiveLedgers::new(ledgers.clone(), Arc::new(Registry::new()));
        let (tasks, mut tasks_writer) = reflector::store();
        let mut rows = BTreeMap::new();
        let mut note = |id: &AttemptId, state| {
            let stands_in = ReportedState::Accepted;
            let key = PageToken::of_execution(&attempt(id, &stands_in).execution()).to_string();
            rows.insert(key, (state, id.node.clone(), id.run));
        };
        // Run 1 is in History, all of it.
        let mut stored = vec![Entry::Run(Box::new(run_record("t", 1, Some(Verdict::Failed))))];
        for index in 0..TARGETS {
            let (state, known) = (["Succeeded", "Failed"][index % 2], truth(index % 2).1.unwrap());
            note(&id("t", 1, index), state);
            stored.push(Entry::Attempt(Box::new(attempt(&id("t", 1, index), &known))));
        }
        // Run 2 is over and no ledger is open for it; History has a part of it as it was, the rest is on its way.
        stored.push(Entry::Run(Box::new(run_record("t", 2, None))));
        archiver.record(Entry::Run(Box::new(run_record("t", 2, Some(Verdict::Failed))))).unwrap();
        for index in 0..TARGETS {
            let (state, known) = (["Failed", "Succeeded"][index % 2], truth((index + 1) % 2).1.unwrap());
            note(&id("t", 2, index), state);
            let end = attempt(&id("t", 2, index), &known);
            if index % 3 == 0 {
                let accepted = attempt(&id("t", 2, index), &ReportedState::Accepted);
                stored.push(Entry::Attempt(Box::new(accepted)));
            }
            if index % 4 == 1 {
                stored.push(Entry::Attempt(Box::new(end)));
            } else {
                archiver.record(Entry::Attempt(Box::new(end))).unwrap();
            }
        }
        // Run 3 is under way: the ledger knows every target, History and the archiver a part.
        let book = ledgers.open(&TaskUid::new("t").unwrap(), &task_ref("t"));
        let targets: Arc<Vec<NodeName>> = Arc::new((0..TARGETS).map(node).collect());
        book.pages().current = Some(Page::new(facts("t", 3), targets, Origin::Begun, HistoryLookup::Done));
        for index in 0..TARGETS {
            let (state, known) = truth(index);
            let attempt_id = id("t", 3, index);
            note(&attempt_id, state);
            let Some(known) = known else { continue };
            ledgers.report(&Report {
                attempt: attempt_id.clone(),
                spec_hash: spec_hash(),
                state: known.clone(),
            });
            let record = Entry::Attempt(Box::new(attempt(&attempt_id, &known)));
            match index % 3 {
                0 => stored.push(record),
                1 => archiver.record(record).unwrap(),
                _ => {}
            }
        }
        history.record(stored).await.unwrap();
        // Another operator carries out Run 4 of another Task: only its status tells of it.
        let told = task_of_another("u", 4);
        for index in 0..4 {
            note(&id("u", 4, index), ["Succeeded", "Failed", "Running", "Pending"][index]);
        }
        tasks_writer.apply_watcher_event(&Event::Apply(told));
        let records = Records::new(history.clone(), archiver, Arc::new(live), tasks);
        Self { records, history, archiving: Some(archiving), rows, _done: done, _directory: directory }
    }

    /// All rows that fit, page by page of so many.
    async fn walk(
        &self,
        query: &ExecutionQuery,
        limit: u32,
        fits: fn(&Execution) -> bool,
    ) -> Vec<(String, String)> {
        let mut query = ExecutionQuery { limit, ..query.clone() };
        let mut walked = Vec::new();
        for _ in 0..1000 {
            let page = self.records.executions(query.clone(), fits).await.unwrap();
            assert_eq!(page.partial, None);
            assert!(page.items.len() <= limit as usize, "{} rows of {limit}", page.items.len());
            for row in page.items {
                let key = PageToken::of_execution(&row.record).to_string();
                let state = row.waiting.as_ref().map(|waiting| waiting.state.to_owned());
                let stage = if row.record.stage == Stage::Running { "Running" } else { "Dispatched" };
                walked.push((key, state.or(row.record.outcome).unwrap_or_else(|| stage.to_owned())));
            }
            // A token is good for as long as its row, whoever gave it.
            match page.next {
                Some(next) => query.after = Some(next.to_string().parse().unwrap()),
                None => return walked,
            }
        }
        panic!("the pages do not end");
    }

    fn expected(&self, wanted: impl Fn(&str, &NodeName, RunNumber) -> bool) -> Vec<(String, String)> {
        let rows = self.rows.iter().filter(|(_, (state, node, run))| wanted(state, node, *run));
        rows.map(|(key, (state, ..))| (key.clone(), (*state).to_owned())).collect()
    }

    async fn archive_all(&mut self) {
        let archiving = tokio::spawn(self.archiving.take().unwrap().run());
        for _ in 0..2000 {
            let query = ExecutionQuery { run: Some(RunNumber(2)), limit: 500, ..ExecutionQuery::default() };
            let page = self.history.executions(query).await.unwrap();
            if page.items.iter().filter(|row| row.outcome.is_some()).count() == TARGETS {
                archiving.abort();
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("not archived");
    }
}

fn task_ref(name: &str) -> TaskRef {
    TaskRef::new("default", name).unwrap()
}

fn facts(task: &str, run: u32) -> RunFacts {
    RunFacts {
        task: task_ref(task),
        uid: TaskUid::new(task).unwrap(),
        run: RunNumber(run),
        spec_hash: spec_hash(),
        started_at: started_at(run),
        command: "true".into(),
        trigger: Trigger::SpecChange,
        retry: Retry::never(),
        request: None,
    }
}

/// A Task of which four targets are in its status.
fn task_of_another(name: &str, run: u32) -> Task {
    let text = format!(
        "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}, namespace: default}}\nspec: {{targets: {{all: true}}, run: {{command: [\"true\"]}}}}\n"
    );
    let mut task = manifest::read(&text).unwrap().remove(0);
    task.metadata.uid = Some(name.to_owned());
    let at = "2026-09-21T14:17:20.000000Z";
    let mut status = json!({
        "observedGeneration": 1,
        "run": {
            "number": run, "trigger": "SpecChange", "specHash": "a".repeat(64), "startedAt": at,
            "targets": ["n00", "n01", "n02", "n03"], "targetCount": 4,
        },
        "nodes": [
            {"node": "n01", "state": "Failed", "exitCode": 3, "message": "exited with code 3"},
            {"node": "n02", "state": "Running"},
            {"node": "n00", "state": "Succeeded", "exitCode": 0},
        ],
    });
    // The time at which the Run began is what its rows are ordered by.
    let began = std::time::Duration::from_millis(started_at(run).0 as u64).as_secs();
    status["run"]["startedAt"] =
        json!(k8s_openapi::jiff::Timestamp::from_second(began as i64).unwrap().to_string());
    task.status = Some(serde_json::from_value(status).unwrap());
    task
}

fn any(_: &Execution) -> bool {
    true
}

#[tokio::test]
async fn pages_have_neither_gap_nor_repeat_where_memory_meets_history() {
    let mut world = World::new().await;
    for archived in [false, true] {
        for limit in [1, 2, 3, 5, 7, 11, 12, 13, 40, 500] {
            let all = ExecutionQuery::default();
            assert_eq!(world.walk(&all, limit, any).await, world.expected(|_, _, _| true), "limit {limit}");
            for outcome in ["Succeeded", "Failed", "Lost"] {
                let query = ExecutionQuery { outcome: Some(outcome.into()), ..all.clone() };
                let expected = world.expected(|state, _, _| state == outcome);
                assert_eq!(world.walk(&query, limit, any).await, expected, "{outcome}, limit {limit}");
            }
            let query = ExecutionQuery { node: Some(node(2)), ..all.clone() };
            let expected = world.expected(|_, on, _| *on == node(2));
            assert_eq!(world.walk(&query, limit, any).await, expected, "a node, limit {limit}");
            let query = ExecutionQuery { run: Some(RunNumber(2)), task: Some("t".into()), ..all.clone() };
            let expected = world.expected(|_, _, run| run == RunNumber(2));
            assert_eq!(world.walk(&query, limit, any).await, expected, "a Run, limit {limit}");
            let waits = |row: &Execution| row.waiting.is_some();
            let expected = world.expected(|state, _, _| matches!(state, "WaitingForNode" | "Pending"));
            assert_eq!(world.walk(&all, limit, waits).await, expected, "what waits, limit {limit}");
        }
        if !archived {
            world.archive_all().await;
        }
    }
}

#[tokio::test]
async fn runs_are_listed_once_wherever_they_are_known() {
    let world = World::new().await;
    for limit in 1..=5 {
        let mut query = RunQuery { limit, ..RunQuery::default() };
        let mut seen = Vec::new();
        loop {
            let page = world.records.runs(query.clone()).await.unwrap();
            seen.extend(page.items.into_iter().map(|run| (run.run.0, run.verdict)));
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        let over = Some(Verdict::Failed);
        assert_eq!(seen, [(4, None), (3, None), (2, over), (1, over)], "limit {limit}");
    }
}

/// History may hold more than the status of a Task that another operator carries out.
#[tokio::test]
async fn what_history_knows_better_than_a_status_is_listed_under_its_own_outcome() {
    let world = World::new().await;
    // The status has this one as failed with attempt 1; a second one succeeded.
    let second = AttemptId { attempt: 2, ..id("u", 4, 1) };
    let record = attempt(&second, &ended(Outcome::Succeeded { exit_code: 0 }));
    world.history.record(vec![Entry::Attempt(Box::new(record))]).await.unwrap();
    let count = async |outcome: &str| {
        let query = ExecutionQuery {
            task: Some("u".into()),
            outcome: Some(outcome.into()),
            ..ExecutionQuery::default()
        };
        world.walk(&query, 500, any).await.len()
    };
    assert_eq!((count("Failed").await, count("Succeeded").await), (0, 2));
}
