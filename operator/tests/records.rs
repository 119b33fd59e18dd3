//! Pages of Runs and Executions that are partly in History, queued in the archiver, in memory, and in a Task's status.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use sentinel_core::reconcile::ledger::Origin;
use sentinel_core::reconcile::retry::Retry;
use sentinel_core::reconcile::rollout::HistoryLookup;
use sentinel_core::reconcile::run::Trigger;
use sentinel_operator::controller::{ReconcileRequests, RunFacts, RunStore, RunStoreReader, TrackedRun};
use sentinel_operator::gateway::Registry;
use sentinel_operator::history::archive::{Archived, Archiver, ArchiverOptions, ArchiverWork};
use sentinel_operator::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use sentinel_operator::history::{
    AttemptRecord, ExecutionQuery, History, HistoryRecord, OutcomeName, PageToken, RecordSource, RunCounts,
    RunQuery, RunRecord, RunVerdict, Span,
};
use sentinel_operator::records::{ExecutionStatus, Records};
use sentinel_operator::resource::{Task, manifest};
use sentinel_operator::traces::RunTrace;
use sentinel_protocol::exit::ExitDetails;
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, RunNumber, SpecHash, TaskRef, TaskUid};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::request::Environment;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Ended, OutputSummary, Report, ReportedState, Running, Usage};
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

/// The state of the Execution with this index: each one occurs.
fn state_of(index: usize) -> (&'static str, Option<ReportedState>) {
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
        trigger: Some("SpecChange".into()),
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
        source: RecordSource::Agent,
        epoch: Epoch::from(1),
    }
}

fn run_record(task: &str, run: u32, verdict: Option<RunVerdict>) -> RunRecord {
    RunRecord {
        task_uid: TaskUid::new(task).unwrap(),
        namespace: "default".into(),
        name: task.into(),
        run: RunNumber(run),
        trigger: "SpecChange".into(),
        spec_hash: spec_hash(),
        rerun_token: String::new(),
        rerun: None,
        requested_by: None,
        cancelled_by: None,
        approved_by: None,
        command: "true".into(),
        started_at: started_at(run),
        finished_at: verdict.map(|_| started_at(run)),
        verdict,
        reason: None,
        counts: RunCounts { targets: TARGETS as u32, outcomes: BTreeMap::new() },
        epoch: Epoch::from(1),
    }
}

/// Runs whose records are spread over all origins.
struct Fixture {
    records: Records,
    history: Arc<EmbeddedHistory>,
    /// Not started: records stay queued.
    archiving: Option<ArchiverWork>,
    /// Every Execution, in the order of pages, and its state.
    rows: BTreeMap<String, (&'static str, NodeName, RunNumber)>,
    _done: mpsc::Receiver<Archived>,
    _directory: tempfile::TempDir,
}

/// The records of Run 1, which has finished.
fn archived_run(note: &mut impl FnMut(&AttemptId, &'static str)) -> Vec<HistoryRecord> {
    let mut stored = vec![HistoryRecord::Run(Box::new(run_record("t", 1, Some(RunVerdict::Failed))))];
    for index in 0..TARGETS {
        let (state, known) = (["Succeeded", "Failed"][index % 2], state_of(index % 2).1.unwrap());
        note(&id("t", 1, index), state);
        stored.push(HistoryRecord::Attempt(Box::new(attempt(&id("t", 1, index), &known))));
    }
    stored
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let history =
            EmbeddedHistory::open(directory.path().join("h.db"), EmbeddedOptions::default()).unwrap();
        let history = Arc::new(history);
        history.prepare().await.unwrap();
        let (done_in, done) = mpsc::channel(4096);
        let (archiver, archiving) = Archiver::new(history.clone(), ArchiverOptions::default(), done_in);
        let ledgers = RunStore::new(ReconcileRequests::default());
        let live = RunStoreReader::new(ledgers.clone(), Arc::new(Registry::new()));
        let (tasks, mut tasks_writer) = reflector::store();
        let mut rows = BTreeMap::new();
        let mut note = |id: &AttemptId, state| {
            let accepted = ReportedState::Accepted;
            let key = PageToken::of_execution(&attempt(id, &accepted).execution()).to_string();
            rows.insert(key, (state, id.node.clone(), id.run));
        };
        // Run 1 is in History completely.
        let mut stored = archived_run(&mut note);
        // Run 2 has finished and has no ledger; History has an earlier state of a part of it, the rest is queued.
        stored.push(HistoryRecord::Run(Box::new(run_record("t", 2, None))));
        archiver.record(HistoryRecord::Run(Box::new(run_record("t", 2, Some(RunVerdict::Failed))))).unwrap();
        for index in 0..TARGETS {
            let (state, known) = (["Failed", "Succeeded"][index % 2], state_of((index + 1) % 2).1.unwrap());
            note(&id("t", 2, index), state);
            let end = attempt(&id("t", 2, index), &known);
            if index % 3 == 0 {
                let accepted = attempt(&id("t", 2, index), &ReportedState::Accepted);
                stored.push(HistoryRecord::Attempt(Box::new(accepted)));
            }
            if index % 4 == 1 {
                stored.push(HistoryRecord::Attempt(Box::new(end)));
            } else {
                archiver.record(HistoryRecord::Attempt(Box::new(end))).unwrap();
            }
        }
        // Run 3 is active: the ledger has every target, History and the archiver a part.
        let book = ledgers.get_or_insert(&TaskUid::new("t").unwrap(), &task_ref("t"));
        let targets: Arc<Vec<NodeName>> = Arc::new((0..TARGETS).map(node).collect());
        book.lock().current =
            Some(TrackedRun::new(facts("t", 3), targets, Origin::Begun, HistoryLookup::Done));
        for index in 0..TARGETS {
            let (state, known) = state_of(index);
            let attempt_id = id("t", 3, index);
            note(&attempt_id, state);
            let Some(known) = known else { continue };
            let state = known.clone();
            ledgers.report(&Report { attempt: attempt_id.clone(), spec_hash: spec_hash(), state });
            let record = HistoryRecord::Attempt(Box::new(attempt(&attempt_id, &known)));
            match index % 3 {
                0 => stored.push(record),
                1 => archiver.record(record).unwrap(),
                _ => {}
            }
        }
        history.record(stored).await.unwrap();
        // Another operator carries out Run 4 of another Task: only the Task's status shows it.
        let task = task_of_another("u", 4);
        let states = ["Succeeded", "Failed", "Running", "Pending"];
        states.iter().enumerate().for_each(|(index, state)| note(&id("u", 4, index), state));
        tasks_writer.apply_watcher_event(&Event::Apply(task));
        let records = Records::new(history.clone(), archiver, Arc::new(live), tasks);
        Self { records, history, archiving: Some(archiving), rows, _done: done, _directory: directory }
    }

    /// All matching rows, in pages of `limit`.
    async fn walk(
        &self,
        query: &ExecutionQuery,
        limit: u32,
        is_wanted: fn(&ExecutionStatus) -> bool,
    ) -> Vec<(String, String)> {
        let mut query = ExecutionQuery { limit, ..query.clone() };
        let mut walked = Vec::new();
        for _ in 0..1000 {
            let page = self.records.executions(query.clone(), is_wanted).await.unwrap();
            assert_eq!(page.partial, None);
            assert!(page.items.len() <= limit as usize, "{} rows of {limit}", page.items.len());
            for row in page.items {
                let key = PageToken::of_execution(&row.record).to_string();
                let state = row.waiting.as_ref().map(|waiting| waiting.state.to_owned());
                let stage = if row.record.stage == Stage::Running { "Running" } else { "Dispatched" };
                walked.push((
                    key,
                    state
                        .or(row.record.outcome.map(|outcome| outcome.to_string()))
                        .unwrap_or_else(|| stage.to_owned()),
                ));
            }
            // A token is valid wherever it came from.
            match page.next {
                Some(next) => query.after = Some(next.to_string().parse().unwrap()),
                None => return walked,
            }
        }
        panic!("the pages have no end");
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
        panic!("timed out: not archived");
    }
}

fn task_ref(name: &str) -> TaskRef {
    TaskRef::new("default", name).unwrap()
}

fn facts(task: &str, run: u32) -> RunFacts {
    RunFacts {
        rerun: None,
        task: task_ref(task),
        uid: TaskUid::new(task).unwrap(),
        run: RunNumber(run),
        spec_hash: spec_hash(),
        started_at: started_at(run),
        command: "true".into(),
        trigger: Trigger::SpecChange,
        retry: Retry::never(),
        requested_by: None,
        approved_by: None,
        request: None,
        signed: None,
        trace: RunTrace::default(),
    }
}

/// A Task with four targets in its status.
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
    // Rows are ordered by the start of their Run.
    let began = std::time::Duration::from_millis(started_at(run).0 as u64).as_secs();
    status["run"]["startedAt"] =
        json!(k8s_openapi::jiff::Timestamp::from_second(began as i64).unwrap().to_string());
    task.status = Some(serde_json::from_value(status).unwrap());
    task
}

fn any(_: &ExecutionStatus) -> bool {
    true
}

#[tokio::test]
async fn pages_have_no_gap_or_repeat_across_origins() {
    let mut fixture = Fixture::new().await;
    for archived in [false, true] {
        for limit in [1, 2, 3, 5, 7, 11, 12, 13, 40, 500] {
            let all = ExecutionQuery::default();
            assert_eq!(
                fixture.walk(&all, limit, any).await,
                fixture.expected(|_, _, _| true),
                "limit {limit}"
            );
            for outcome in [OutcomeName::Succeeded, OutcomeName::Failed, OutcomeName::Lost] {
                let query = ExecutionQuery { outcome: Some(outcome), ..all.clone() };
                let expected = fixture.expected(|state, _, _| state == outcome.as_str());
                assert_eq!(fixture.walk(&query, limit, any).await, expected, "{outcome}, limit {limit}");
            }
            let query = ExecutionQuery { node: Some(node(2)), ..all.clone() };
            let expected = fixture.expected(|_, on, _| *on == node(2));
            assert_eq!(fixture.walk(&query, limit, any).await, expected, "a node, limit {limit}");
            let query = ExecutionQuery { run: Some(RunNumber(2)), task: Some("t".into()), ..all.clone() };
            let expected = fixture.expected(|_, _, run| run == RunNumber(2));
            assert_eq!(fixture.walk(&query, limit, any).await, expected, "a Run, limit {limit}");
            let began = Span { since: Some(started_at(2)), until: Some(started_at(4)) };
            let query = ExecutionQuery { began, ..all.clone() };
            let expected = fixture.expected(|_, _, run| (2..4).contains(&run.0));
            assert_eq!(fixture.walk(&query, limit, any).await, expected, "a span, limit {limit}");
            let query = ExecutionQuery { trigger: Some("RerunToken".into()), ..all.clone() };
            assert_eq!(fixture.walk(&query, limit, any).await, [], "a trigger, limit {limit}");
            let waits = |row: &ExecutionStatus| row.waiting.is_some();
            let expected = fixture.expected(|state, _, _| matches!(state, "WaitingForNode" | "Pending"));
            assert_eq!(fixture.walk(&all, limit, waits).await, expected, "waiting, limit {limit}");
        }
        if !archived {
            fixture.archive_all().await;
        }
    }
}

#[tokio::test]
async fn runs_are_listed_once_across_origins() {
    let fixture = Fixture::new().await;
    for limit in 1..=5 {
        let mut query = RunQuery { limit, ..RunQuery::default() };
        let mut seen = Vec::new();
        loop {
            let page = fixture.records.runs(query.clone()).await.unwrap();
            seen.extend(page.items.into_iter().map(|run| (run.run.0, run.verdict)));
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        let over = Some(RunVerdict::Failed);
        assert_eq!(seen, [(4, None), (3, None), (2, over), (1, over)], "limit {limit}");
        let began = Span { since: Some(started_at(2)), until: Some(started_at(4)) };
        let mut query = RunQuery { limit, began, ..RunQuery::default() };
        let mut seen = Vec::new();
        loop {
            let page = fixture.records.runs(query.clone()).await.unwrap();
            seen.extend(page.items.into_iter().map(|run| run.run.0));
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, [3, 2], "a span, limit {limit}");
    }
}

#[tokio::test]
async fn history_overrides_an_older_status() {
    let fixture = Fixture::new().await;
    // The status shows the failed Attempt 1; Attempt 2 has succeeded since.
    let second = AttemptId { attempt: 2, ..id("u", 4, 1) };
    let record = attempt(&second, &ended(Outcome::Succeeded { exit_code: 0 }));
    fixture.history.record(vec![HistoryRecord::Attempt(Box::new(record))]).await.unwrap();
    let count = async |outcome: OutcomeName| {
        let query =
            ExecutionQuery { task: Some("u".into()), outcome: Some(outcome), ..ExecutionQuery::default() };
        fixture.walk(&query, 500, any).await.len()
    };
    assert_eq!((count(OutcomeName::Failed).await, count(OutcomeName::Succeeded).await), (0, 2));
}
