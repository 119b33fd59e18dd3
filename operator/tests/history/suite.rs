//! The contract of every History: records and pages. Runners are in `history_contract.rs` for the real stores, and beside
//! each fake: mount this file as `suite` and `stores` at the root of a test crate, then call `record_contract!`.
#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sentinel_operator::history::{
    AttemptRecord, ExecutionQuery, ExecutionRecord, History, HistoryRecord, OutcomeName, Page, Ran,
    RunCounts, RunQuery, RunRecord, RunVerdict, Span, outcome_of,
};
use sentinel_protocol::ids::{AttemptId, Epoch, RunNumber, SpecHash};
use sentinel_protocol::outcome::{InterruptReason, LostReason, Outcome, StartFailure};
use sentinel_protocol::refusal::Refusal;

use crate::stores::ManualClock;
use crate::stores::fixtures::{
    accepted, attempt_id, ended, finished, history_record, lost, node, run_record, running, uid,
};

/// One test per contract test of the given modules; `$run` makes a [`Site`] and passes it to the test.
macro_rules! contract_tests {
    ($run:path, $($module:ident: [$($test:ident),+ $(,)?]),+ $(,)?) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $run(stringify!($test), async |site| crate::$module::$test(site).await).await;
            }
        )+)+
    };
}

/// The contract of records and pages.
macro_rules! record_contract {
    ($run:path) => {
        contract_tests! { $run, suite: [
            prepare_and_check_are_repeatable,
            every_outcome_is_read_back,
            runs_are_read_back_newest_first,
            repeated_writes_change_nothing,
            evidence_replaces_lost_and_never_the_reverse,
            an_execution_shows_its_latest_attempt,
            a_finished_run_stays_finished,
            racing_writers_keep_the_record_that_knows_most,
            batches_of_long_records_are_stored_and_replaced,
            lists_apply_every_condition,
            runs_are_listed_by_time_and_trigger,
            what_another_task_ran_is_found,
            rejects_a_limit_out_of_bounds,
            pages_have_no_gap_and_no_repeat_while_rows_arrive,
            ten_thousand_records_are_stored_and_listed,
            reads_that_are_not_polled_hold_up_no_others,
        ] }
    };
}

/// A History of its own for one test.
pub(crate) struct Site {
    pub(crate) history: Arc<dyn History>,
    /// The clock that the History measures expiry by.
    pub(crate) clock: ManualClock,
    /// Random cases per property.
    pub(crate) cases: u32,
}

pub(super) async fn store(site: &Site, records: &[AttemptRecord]) {
    site.history.record(records.iter().map(history_record).collect()).await.unwrap();
}

pub(super) async fn attempt(site: &Site, id: &AttemptId) -> Option<AttemptRecord> {
    site.history.attempt(id.clone()).await.unwrap()
}

async fn executions(site: &Site, query: ExecutionQuery) -> Page<ExecutionRecord> {
    site.history.executions(query).await.unwrap()
}

pub(super) async fn of_task(site: &Site, task: &str) -> Vec<ExecutionRecord> {
    executions(site, ExecutionQuery { task_uid: Some(uid(task)), ..ExecutionQuery::default() }).await.items
}

async fn runs(site: &Site, query: RunQuery) -> Page<RunRecord> {
    site.history.runs(query).await.unwrap()
}

pub(crate) async fn prepare_and_check_are_repeatable(site: &Site) {
    for _ in 0..3 {
        site.history.prepare().await.unwrap();
        site.history.check().await.unwrap();
    }
}

pub(crate) async fn every_outcome_is_read_back(site: &Site) {
    let outcomes = [
        Outcome::Succeeded { exit_code: 0 },
        Outcome::Failed { exit_code: 255 },
        Outcome::Signaled { signal: 9 },
        Outcome::StartFailed {
            reason: StartFailure::ProgramNotFound,
            message: "no such program: \"x\"\n€".into(),
        },
        Outcome::StartTimedOut { why: None },
        Outcome::TimedOut,
        Outcome::IdleTimedOut,
        Outcome::OomKilled { peak: Some(64 << 20) },
        Outcome::Cancelled,
        Outcome::CancelFailed { pids: vec![1, 2, i32::MAX] },
        Outcome::Refused {
            refusal: Refusal::DiskLow {
                free: 1,
                needed: 1 << 40,
                directory: Some("/var/lib/sentinel".into()),
            },
        },
        Outcome::Refused { refusal: Refusal::StaleEpoch { seen: Epoch::from(7) } },
        Outcome::Skipped { message: "another platform".into() },
        Outcome::Interrupted { reason: InterruptReason::SupervisorDied },
        Outcome::Lost { reason: LostReason::StartUnproven },
        Outcome::NotStarted,
    ];
    for (run, outcome) in (1..).zip(outcomes) {
        let id = attempt_id("outcomes", run, "web-1.example");
        let record = ended(&id, outcome);
        store(site, std::slice::from_ref(&record)).await;
        assert_eq!(attempt(site, &id).await, Some(record.clone()));
        let query = ExecutionQuery {
            task_uid: Some(uid("outcomes")),
            run: Some(RunNumber(run)),
            ..Default::default()
        };
        let rows = executions(site, query).await.items;
        assert_eq!(rows, [record.execution()]);
        // In full, also out of the row of an earlier release, which has the name alone.
        let named = ExecutionRecord { outcome_details: None, ..rows[0].clone() };
        for row in [&rows[0], &named] {
            assert_eq!(Some(outcome_of(&*site.history, row).await.unwrap()), record.outcome);
        }
    }
    assert_eq!(attempt(site, &attempt_id("outcomes", 99, "web-1.example")).await, None);
}

pub(crate) async fn runs_are_read_back_newest_first(site: &Site) {
    let begun = run_record("runs", 1);
    let over = finished(
        &run_record("runs", 2),
        RunVerdict::Failed,
        &[(OutcomeName::Succeeded, 2), (OutcomeName::Lost, 1)],
    );
    let entries = [&begun, &over].map(|run| HistoryRecord::Run(Box::new(run.clone())));
    site.history.record(entries.to_vec()).await.unwrap();
    let page = runs(site, RunQuery { task_uid: Some(uid("runs")), ..RunQuery::default() }).await;
    assert_eq!(page.items, [over, begun], "newest first");
    assert_eq!(page.next, None);
}

pub(crate) async fn repeated_writes_change_nothing(site: &Site) {
    let id = attempt_id("repeated", 1, "n");
    let records = [accepted(&id), running(&id), ended(&id, Outcome::Failed { exit_code: 3 })];
    for _ in 0..3 {
        store(site, &records).await;
        assert_eq!(attempt(site, &id).await.as_ref(), records.last());
        assert_eq!(of_task(site, "repeated").await, [records[2].execution()]);
    }
    for record in &records {
        store(site, std::slice::from_ref(record)).await;
    }
    assert_eq!(attempt(site, &id).await.as_ref(), records.last(), "an earlier stage has undone a later one");
}

pub(crate) async fn evidence_replaces_lost_and_never_the_reverse(site: &Site) {
    let id = attempt_id("lost", 1, "n");
    let newer = AttemptRecord { epoch: Epoch::from(9), ..lost(&id) };
    let evidence = ended(&id, Outcome::Succeeded { exit_code: 0 });
    store(site, &[lost(&id)]).await;
    store(site, &[AttemptRecord { epoch: Epoch::from(99), ..running(&id) }]).await;
    assert_eq!(attempt(site, &id).await, Some(lost(&id)), "a start is not an end");
    store(site, std::slice::from_ref(&newer)).await;
    assert_eq!(attempt(site, &id).await, Some(newer.clone()), "the newer leader's conclusion");
    store(site, std::slice::from_ref(&evidence)).await;
    assert_eq!(attempt(site, &id).await, Some(evidence.clone()));
    store(site, &[newer, lost(&id)]).await;
    assert_eq!(attempt(site, &id).await, Some(evidence.clone()));
    assert_eq!(of_task(site, "lost").await, [evidence.execution()]);
}

pub(crate) async fn an_execution_shows_its_latest_attempt(site: &Site) {
    let id = attempt_id("retried", 1, "n");
    let retry = AttemptId { attempt: 2, ..id.clone() };
    store(site, &[running(&retry)]).await;
    store(site, &[ended(&id, Outcome::Failed { exit_code: 1 })]).await;
    assert_eq!(of_task(site, "retried").await, [running(&retry).execution()]);
    store(site, &[ended(&retry, Outcome::NotStarted)]).await;
    assert_eq!(of_task(site, "retried").await, [ended(&retry, Outcome::NotStarted).execution()]);
}

pub(crate) async fn a_finished_run_stays_finished(site: &Site) {
    let begun = run_record("over", 1);
    let with_lost =
        finished(&begun, RunVerdict::Failed, &[(OutcomeName::Succeeded, 2), (OutcomeName::Lost, 1)]);
    let corrected = finished(&begun, RunVerdict::Complete, &[(OutcomeName::Succeeded, 3)]);
    for run in
        [&with_lost, &begun, &corrected, &with_lost, &RunRecord { epoch: Epoch::from(8), ..begun.clone() }]
    {
        site.history.record(vec![HistoryRecord::Run(Box::new(run.clone()))]).await.unwrap();
    }
    let page = runs(site, RunQuery { namespace: Some("ops".to_owned()), ..RunQuery::default() }).await;
    assert_eq!(page.items, [corrected]);
}

pub(crate) async fn batches_of_long_records_are_stored_and_replaced(site: &Site) {
    let ids: Vec<_> = (0..12).map(|n| attempt_id("long", 1, &format!("n{n:02}"))).collect();
    let record = |id: &AttemptId, letter: &str, epoch: u64| {
        let command = letter.repeat(1 << 20);
        let skipped = ended(id, Outcome::Skipped { message: letter.into() });
        AttemptRecord { epoch: Epoch::new(epoch).unwrap(), command, ..skipped }
    };
    // More than goes into one round trip; the second time as changes.
    for (letter, epoch) in [("a", 1), ("b", 2)] {
        store(site, &ids.iter().map(|id| record(id, letter, epoch)).collect::<Vec<_>>()).await;
    }
    for id in ids {
        assert!(attempt(site, &id).await == Some(record(&id, "b", 2)), "{id}");
    }
}

/// From the begin of a Run to that of another.
fn span(since: Option<u32>, until: Option<u32>) -> Span {
    let began = |run: u32| accepted(&attempt_id("t", run, "n")).run_started_at;
    Span { since: since.map(began), until: until.map(began) }
}

pub(crate) async fn runs_are_listed_by_time_and_trigger(site: &Site) {
    let run = |number: u32| {
        let trigger = if number.is_multiple_of(2) { "RerunToken" } else { "SpecChange" };
        let started_at = span(Some(number), None).since.unwrap();
        RunRecord { trigger: trigger.to_owned(), started_at, ..run_record("spans", number) }
    };
    let all: Vec<RunRecord> = (1..=6).map(run).collect();
    let records = all.iter().map(|run| HistoryRecord::Run(Box::new(run.clone()))).collect();
    site.history.record(records).await.unwrap();
    let numbers = async |began, trigger: Option<&str>, after| {
        let trigger = trigger.map(str::to_owned);
        let query = RunQuery { began, trigger, after, limit: 2, ..RunQuery::default() };
        let page = runs(site, query).await;
        (page.items.iter().map(|run| run.run.0).collect::<Vec<_>>(), page.next)
    };
    let all = Span::default();
    assert_eq!(numbers(all, None, None).await.0, [6, 5]);
    assert_eq!(numbers(all, Some("SpecChange"), None).await.0, [5, 3]);
    assert_eq!(numbers(span(None, Some(4)), None, None).await.0, [3, 2], "the end is not in the span");
    assert_eq!(numbers(span(Some(6), None), None, None).await, (vec![6], None), "the begin is");
    // The pages of a span have no gap and no repeat.
    let (first, next) = numbers(span(Some(2), Some(6)), None, None).await;
    let (second, end) = numbers(span(Some(2), Some(6)), None, next).await;
    assert_eq!((first, second, end), (vec![5, 4], vec![3, 2], None));
}

pub(crate) async fn what_another_task_ran_is_found(site: &Site) {
    let run = |task: &str, number: u32, hash: char, token: &str| RunRecord {
        spec_hash: SpecHash::new(hash.to_string().repeat(64)).unwrap(),
        rerun_token: token.to_owned(),
        ..run_record(task, number)
    };
    let rerun = RunRecord { rerun: Some("again".to_owned()), ..run("first", 2, 'a', "") };
    let over = finished(&run("first", 1, 'a', ""), RunVerdict::Failed, &[(OutcomeName::Failed, 3)]);
    let no_targets = RunCounts { targets: 0, ..RunCounts::default() };
    let records = [
        over.clone(),
        rerun.clone(),
        run("first", 3, 'a', "token"),
        run("first", 4, 'b', ""),
        run("second", 5, 'c', ""),
        RunRecord { counts: no_targets, ..run("second", 6, 'a', "") },
        RunRecord { name: "other".to_owned(), ..run("third", 7, 'a', "") },
        RunRecord { namespace: "other".to_owned(), ..run("fourth", 8, 'a', "") },
    ];
    let entries = records.iter().map(|run| HistoryRecord::Run(Box::new(run.clone()))).collect();
    site.history.record(entries).await.unwrap();
    let ran = async |hash: char, token: &str, not_by: &str| {
        let ran = Ran {
            spec_hash: SpecHash::new(hash.to_string().repeat(64)).unwrap(),
            rerun_token: token.to_owned(),
            not_by: uid(not_by),
        };
        let (namespace, task) = (Some("ops".to_owned()), Some("disk-report".to_owned()));
        runs(site, RunQuery { namespace, task, ran: Some(ran), ..RunQuery::default() }).await.items
    };
    assert_eq!(ran('a', "", "second").await, [rerun, over], "the newest first, and none without targets");
    assert_eq!(ran('a', "token", "second").await, [records[2].clone()]);
    assert_eq!(ran('b', "", "second").await, [records[3].clone()]);
    assert_eq!(ran('c', "", "second").await, [], "its own is not meant");
    assert_eq!(ran('a', "", "first").await, []);
    assert_eq!(ran('a', "other", "second").await, []);
    assert_eq!(ran('d', "", "second").await, []);
}

pub(crate) async fn lists_apply_every_condition(site: &Site) {
    let mut records = Vec::new();
    for (namespace, name, task) in [("a", "x", "ax"), ("a", "y", "ay"), ("b", "x", "bx")] {
        for run in 1..=3 {
            for on in ["n1", "n2"] {
                let id = attempt_id(task, run, on);
                let outcome = if on == "n1" { Outcome::TimedOut } else { Outcome::Failed { exit_code: 2 } };
                let record = if run == 3 { running(&id) } else { ended(&id, outcome) };
                let trigger = if run == 1 { "SpecChange" } else { "RerunToken" };
                records.push(AttemptRecord {
                    trigger: (on == "n1").then(|| trigger.to_owned()),
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    ..record
                });
            }
        }
    }
    store(site, &records).await;
    let any = ExecutionQuery::default;
    let queries = [
        any(),
        ExecutionQuery { namespace: Some("a".to_owned()), ..any() },
        ExecutionQuery { namespace: Some("b".to_owned()), task: Some("x".to_owned()), ..any() },
        ExecutionQuery { task: Some("x".to_owned()), ..any() },
        ExecutionQuery { task_uid: Some(uid("ay")), ..any() },
        ExecutionQuery { task_uid: Some(uid("ay")), run: Some(RunNumber(2)), ..any() },
        ExecutionQuery { node: Some(node("n2")), ..any() },
        ExecutionQuery { outcome: Some(OutcomeName::TimedOut), ..any() },
        ExecutionQuery {
            namespace: Some("a".to_owned()),
            outcome: Some(OutcomeName::Failed),
            node: Some(node("n2")),
            ..any()
        },
        ExecutionQuery { namespace: Some("unknown".to_owned()), ..any() },
        ExecutionQuery { trigger: Some("RerunToken".to_owned()), ..any() },
        ExecutionQuery { trigger: Some("SpecChange".to_owned()), node: Some(node("n2")), ..any() },
        ExecutionQuery { began: span(Some(2), None), ..any() },
        ExecutionQuery { began: span(None, Some(2)), ..any() },
        ExecutionQuery { began: span(Some(2), Some(3)), task: Some("x".to_owned()), ..any() },
        ExecutionQuery { began: span(Some(3), Some(2)), ..any() },
    ];
    for query in queries {
        let mut expected: Vec<_> = records
            .iter()
            .map(AttemptRecord::execution)
            .filter(|e| query.namespace.as_ref().is_none_or(|n| *n == e.namespace))
            .filter(|e| query.task.as_ref().is_none_or(|n| *n == e.name))
            .filter(|e| query.task_uid.as_ref().is_none_or(|n| *n == e.task_uid))
            .filter(|e| query.run.is_none_or(|n| n == e.run))
            .filter(|e| query.trigger.is_none() || query.trigger == e.trigger)
            .filter(|e| query.began.has(e.run_started_at))
            .filter(|e| query.node.as_ref().is_none_or(|n| *n == e.node))
            .filter(|e| query.outcome.is_none_or(|n| Some(n) == e.outcome))
            .collect();
        expected.sort_by_key(|e| (std::cmp::Reverse(e.run_started_at), e.task_uid.clone(), e.node.clone()));
        assert_eq!(executions(site, query.clone()).await.items, expected, "{query:?}");
    }
}

pub(crate) async fn rejects_a_limit_out_of_bounds(site: &Site) {
    let query = ExecutionQuery { limit: 501, ..ExecutionQuery::default() };
    let error = site.history.executions(query).await.unwrap_err();
    assert_eq!(error.to_string(), "limit 501 is not within 1 to 500");
    let error = site.history.runs(RunQuery { limit: u32::MAX, ..RunQuery::default() }).await.unwrap_err();
    assert_eq!(error.category(), "InvalidQuery");
}

pub(crate) async fn pages_have_no_gap_and_no_repeat_while_rows_arrive(site: &Site) {
    let first: Vec<_> =
        (1..=20).flat_map(|run| ["a", "b", "c"].map(|on| running(&attempt_id("paged", run, on)))).collect();
    store(site, &first).await;
    let mut query =
        ExecutionQuery { namespace: Some("ops".to_owned()), limit: 7, ..ExecutionQuery::default() };
    let (mut read, mut arriving) = (Vec::new(), 21);
    loop {
        let page = executions(site, query.clone()).await;
        assert!(page.items.len() <= 7);
        read.extend(page.items);
        // Meanwhile newer ones arrive, and those that are listed change.
        store(site, &[running(&attempt_id("paged", arriving, "a"))]).await;
        let ended_now = arriving - 20;
        store(site, &[ended(&attempt_id("paged", ended_now, "b"), Outcome::TimedOut)]).await;
        arriving += 1;
        match page.next {
            // A token survives its text.
            Some(token) => query.after = Some(token.to_string().parse().unwrap()),
            None => break,
        }
    }
    let listed: Vec<_> = read.iter().map(|e| (e.run.0, e.node.to_string())).collect();
    let expected: Vec<_> =
        (1..=20).rev().flat_map(|run| ["a", "b", "c"].map(|on| (run, on.to_owned()))).collect();
    assert_eq!(listed, expected);
}

pub(crate) async fn racing_writers_keep_the_record_that_knows_most(site: &Site) {
    for run in 1..=100 {
        let ids: Vec<_> = (0..8).map(|n| attempt_id("race", run, &format!("n{n}"))).collect();
        // Every other time they find something to replace.
        if run % 2 == 0 {
            store(site, &ids.iter().map(accepted).collect::<Vec<_>>()).await;
        }
        let write = |record: fn(&AttemptId) -> AttemptRecord| {
            let records: Vec<_> = ids.iter().map(record).map(|record| history_record(&record)).collect();
            let history = Arc::clone(&site.history);
            tokio::spawn(async move { history.record(records).await.unwrap() })
        };
        let writers = [
            write(running),
            write(lost),
            write(|id| ended(id, Outcome::OomKilled { peak: Some(64 << 20) })),
            write(running),
        ];
        for writer in writers {
            writer.await.unwrap();
        }
        for id in &ids {
            assert_eq!(attempt(site, id).await, Some(ended(id, Outcome::OomKilled { peak: Some(64 << 20) })));
        }
    }
}

pub(crate) async fn ten_thousand_records_are_stored_and_listed(site: &Site) {
    let ids: Vec<_> =
        (0..10_000).map(|n| attempt_id("many", 1 + n / 1000, &format!("node-{n:05}"))).collect();
    for batch in ids.chunks(500) {
        store(site, &batch.iter().map(running).collect::<Vec<_>>()).await;
    }
    for batch in ids.chunks(500) {
        store(site, &batch.iter().map(|id| ended(id, Outcome::TimedOut)).collect::<Vec<_>>()).await;
    }
    let mut query = ExecutionQuery { namespace: Some("ops".to_owned()), ..ExecutionQuery::default() };
    let mut listed = HashSet::new();
    loop {
        let page = executions(site, query.clone()).await;
        listed.extend(page.items.into_iter().map(|execution| {
            assert_eq!(execution.outcome, Some(OutcomeName::TimedOut));
            execution.id()
        }));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(listed.len(), 10_000);
}

/// Clients that do not read had kept the places of their reads, and with them the archive from everyone else.
pub(crate) async fn reads_that_are_not_polled_hold_up_no_others(site: &Site) {
    let history = &site.history;
    history.prepare().await.unwrap();
    let read = || history.runs(RunQuery { limit: 1, ..RunQuery::default() });
    let mut stalled: Vec<_> = (0..200).map(|_| read()).collect();
    for read in &mut stalled {
        // Some wait from here on, some have their answer already: none is polled again.
        let _ = futures_util::poll!(read);
    }
    let other = tokio::time::timeout(Duration::from_secs(20), read()).await;
    assert!(matches!(other, Ok(Ok(_))), "a read beside others that are not polled: {other:?}");
}
