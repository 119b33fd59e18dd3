//! What every History promises, tried on the embedded one and on MongoDB.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "it is a test")]

mod stores;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sentinel_operator::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use sentinel_operator::history::mongo::{MongoHistory, MongoOptions};
use sentinel_operator::history::{
    AttemptRecord, Entry, ExecutionQuery, ExecutionRecord, History, Page, RunQuery, RunRecord, Source,
    Verdict,
};
use sentinel_protocol::ids::{AttemptId, Epoch, RunNumber};
use sentinel_protocol::outcome::{InterruptReason, LostReason, Outcome, StartFailure};
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::Stage;
use stores::fixtures::{
    T0, accepted, attempt_entry, attempt_id, ended, finished, log, lost, node, places, read_all, rest_of,
    run_record, running, segments, uid,
};
use stores::parts::{parts, unique};
use stores::{Hands, eventually};

const RETENTION: Duration = Duration::from_hours(1);

/// A History of its own for one test.
struct Site {
    history: Arc<dyn History>,
    hands: Hands,
    /// Random cases that can be afforded.
    cases: u32,
}

macro_rules! contract {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            use super::History as _;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let folder = tempfile::tempdir().unwrap();
                    let hands = super::Hands::new();
                    let options = super::EmbeddedOptions { retention: super::RETENTION, clock: hands.clock() };
                    let history = super::EmbeddedHistory::open(folder.path().join("history.db"), options).unwrap();
                    history.prepare().await.unwrap();
                    let site = super::Site { history: super::Arc::new(history), hands, cases: 64 };
                    super::$test(&site).await;
                }
            )+
        }

        mod mongo {
            use super::History as _;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let Some(parts) = super::parts(stringify!($test)) else { return };
                    let hands = super::Hands::new();
                    let options = super::MongoOptions {
                        retention: super::RETENTION,
                        clock: hands.clock(),
                        database: Some(super::unique("history")),
                        operation_timeout: super::Duration::from_mins(1),
                        ..super::MongoOptions::default()
                    };
                    let history = super::Arc::new(super::MongoHistory::new(&parts.mongodb_uri, options).await.unwrap());
                    history.prepare().await.unwrap();
                    let site = super::Site { history: history.clone(), hands, cases: 8 };
                    let outcome = {
                        let test = std::panic::AssertUnwindSafe(super::$test(&site));
                        futures_util::FutureExt::catch_unwind(test).await
                    };
                    history.drop_database().await.unwrap();
                    if let Err(panic) = outcome {
                        std::panic::resume_unwind(panic);
                    }
                }
            )+
        }
    };
}

contract! {
    it_can_be_prepared_and_checked_again_and_again,
    every_outcome_is_read_as_it_was_written,
    a_run_is_read_as_it_was_written,
    repeating_a_write_changes_nothing,
    lost_is_corrected_by_evidence_and_never_the_other_way,
    an_execution_without_an_attempt_gives_way_to_one_with,
    a_run_that_is_over_stays_over_and_counts_evidence,
    any_order_of_the_same_records_ends_in_the_same_state,
    concurrent_writers_end_in_the_same_state,
    two_writers_at_once_leave_what_knows_more,
    a_batch_of_long_records_is_stored_and_changed,
    every_condition_of_a_list_is_kept,
    a_limit_out_of_bounds_is_refused,
    pages_have_no_gap_and_no_repeat_while_rows_arrive,
    output_is_read_from_every_position_as_it_was_written,
    output_that_was_sent_twice_and_cut_differently_is_read_once,
    a_hole_ends_what_counts_as_archived_until_it_is_filled,
    what_is_older_than_the_retention_is_not_seen,
    ten_thousand_records_are_stored_and_listed,
}

async fn store(site: &Site, records: &[AttemptRecord]) {
    site.history.record(records.iter().map(attempt_entry).collect()).await.unwrap();
}

async fn attempt(site: &Site, id: &AttemptId) -> Option<AttemptRecord> {
    site.history.attempt(id.clone()).await.unwrap()
}

async fn executions(site: &Site, query: ExecutionQuery) -> Page<ExecutionRecord> {
    site.history.executions(query).await.unwrap()
}

async fn of_task(site: &Site, task: &str) -> Vec<ExecutionRecord> {
    executions(site, ExecutionQuery { task_uid: Some(uid(task)), ..ExecutionQuery::default() }).await.items
}

async fn runs(site: &Site, query: RunQuery) -> Page<RunRecord> {
    site.history.runs(query).await.unwrap()
}

async fn it_can_be_prepared_and_checked_again_and_again(site: &Site) {
    for _ in 0..3 {
        site.history.prepare().await.unwrap();
        site.history.check().await.unwrap();
    }
}

async fn every_outcome_is_read_as_it_was_written(site: &Site) {
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
        assert_eq!(executions(site, query).await.items, [record.execution()]);
    }
    assert_eq!(attempt(site, &attempt_id("outcomes", 99, "web-1.example")).await, None);
}

async fn a_run_is_read_as_it_was_written(site: &Site) {
    let begun = run_record("runs", 1);
    let over = finished(&run_record("runs", 2), Verdict::Failed, &[("Succeeded", 2), ("Lost", 1)]);
    let entries = [&begun, &over].map(|run| Entry::Run(Box::new(run.clone())));
    site.history.record(entries.to_vec()).await.unwrap();
    let page = runs(site, RunQuery { task_uid: Some(uid("runs")), ..RunQuery::default() }).await;
    assert_eq!(page.items, [over, begun], "newest first");
    assert_eq!(page.next, None);
}

async fn repeating_a_write_changes_nothing(site: &Site) {
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

async fn lost_is_corrected_by_evidence_and_never_the_other_way(site: &Site) {
    let id = attempt_id("lost", 1, "n");
    let newer = AttemptRecord { epoch: Epoch::from(9), ..lost(&id) };
    let evidence = ended(&id, Outcome::Succeeded { exit_code: 0 });
    store(site, &[lost(&id)]).await;
    store(site, &[AttemptRecord { epoch: Epoch::from(99), ..running(&id) }]).await;
    assert_eq!(attempt(site, &id).await, Some(lost(&id)), "that it ran does not say how it ended");
    store(site, std::slice::from_ref(&newer)).await;
    assert_eq!(attempt(site, &id).await, Some(newer.clone()), "the newer leader's word");
    store(site, std::slice::from_ref(&evidence)).await;
    assert_eq!(attempt(site, &id).await, Some(evidence.clone()));
    store(site, &[newer, lost(&id)]).await;
    assert_eq!(attempt(site, &id).await, Some(evidence.clone()));
    assert_eq!(of_task(site, "lost").await, [evidence.execution()]);
}

async fn an_execution_without_an_attempt_gives_way_to_one_with(site: &Site) {
    let id = attempt_id("not-started", 1, "n");
    let not_started = ExecutionRecord {
        attempt: 0,
        source: Source::Operator,
        epoch: Epoch::from(5),
        ..ended(&id, Outcome::NotStarted).execution()
    };
    let entry = Entry::Execution(Box::new(not_started.clone()));
    site.history.record(vec![entry.clone()]).await.unwrap();
    assert_eq!(of_task(site, "not-started").await, [not_started]);
    store(site, &[running(&id)]).await;
    site.history.record(vec![entry]).await.unwrap();
    assert_eq!(of_task(site, "not-started").await, [running(&id).execution()]);

    let retry = AttemptId { attempt: 2, ..id.clone() };
    store(site, &[running(&retry)]).await;
    store(site, &[ended(&id, Outcome::Failed { exit_code: 1 })]).await;
    assert_eq!(
        of_task(site, "not-started").await,
        [running(&retry).execution()],
        "the latest attempt speaks"
    );
}

async fn a_run_that_is_over_stays_over_and_counts_evidence(site: &Site) {
    let begun = run_record("over", 1);
    let with_lost = finished(&begun, Verdict::Failed, &[("Succeeded", 2), ("Lost", 1)]);
    let corrected = finished(&begun, Verdict::Complete, &[("Succeeded", 3)]);
    for run in
        [&with_lost, &begun, &corrected, &with_lost, &RunRecord { epoch: Epoch::from(8), ..begun.clone() }]
    {
        site.history.record(vec![Entry::Run(Box::new(run.clone()))]).await.unwrap();
    }
    let page = runs(site, RunQuery { namespace: Some("ops".to_owned()), ..RunQuery::default() }).await;
    assert_eq!(page.items, [corrected]);
}

/// What anybody may say about one of three Attempts.
fn statement() -> impl Strategy<Value = (u8, u8, u8, u64)> {
    (0..3_u8, 0..3_u8, 0..4_u8, 1..4_u64)
}

fn record_of(task: &str, number: usize, (on, stage, kind, epoch): (u8, u8, u8, u64)) -> AttemptRecord {
    let id = attempt_id(task, 1, &format!("n{on}"));
    let base = match (stage, kind) {
        (0, _) => accepted(&id),
        (1, _) => running(&id),
        (_, 0) => lost(&id),
        (_, 1) => AttemptRecord { source: Source::Operator, ..ended(&id, Outcome::NotStarted) },
        (_, 2) => ended(&id, Outcome::Lost { reason: LostReason::StateLost }),
        _ => ended(&id, Outcome::Failed { exit_code: 1 }),
    };
    // Moments differ, so that no two statements weigh the same.
    let at = Some(UnixMillis(T0 + number as i64));
    let ended_at = base.ended_at.and(at);
    AttemptRecord { epoch: Epoch::new(epoch).unwrap(), started_at: at, ended_at, ..base }
}

/// The rule in words, not in ranks.
fn knows_more(new: &AttemptRecord, old: &AttemptRecord) -> bool {
    let is_lost = |record: &AttemptRecord| matches!(record.outcome, Some(Outcome::Lost { .. }));
    let is_agents = |record: &AttemptRecord| record.source == Source::Agent;
    if new.stage != old.stage {
        return new.stage > old.stage;
    }
    if new.stage == Stage::Ended {
        if is_agents(new) != is_agents(old) {
            return is_agents(new);
        }
        if is_agents(new) && is_lost(new) != is_lost(old) {
            return is_lost(old);
        }
    }
    if new.epoch != old.epoch {
        return new.epoch > old.epoch;
    }
    if is_lost(new) != is_lost(old) {
        return is_lost(old);
    }
    new.started_at > old.started_at
}

fn model(records: &[AttemptRecord]) -> BTreeMap<String, AttemptRecord> {
    let mut state: BTreeMap<String, AttemptRecord> = BTreeMap::new();
    for record in records {
        let id = record.attempt.to_string();
        if state.get(&id).is_none_or(|old| knows_more(record, old)) {
            state.insert(id, record.clone());
        }
    }
    state
}

async fn holds(
    site: &Site,
    task: &str,
    expected: &BTreeMap<String, AttemptRecord>,
) -> Result<(), TestCaseError> {
    for record in expected.values() {
        let stored = attempt(site, &record.attempt).await;
        prop_assert_eq!(stored.as_ref(), Some(record));
    }
    let rolled_up: Vec<ExecutionRecord> = expected.values().map(AttemptRecord::execution).collect();
    prop_assert_eq!(of_task(site, task).await, rolled_up);
    Ok(())
}

async fn any_order_of_the_same_records_ends_in_the_same_state(site: &Site) {
    let batches = prop::collection::vec(statement(), 1..14).prop_flat_map(|statements| {
        let numbered: Vec<_> = statements.into_iter().enumerate().collect();
        (Just(numbered.clone()).prop_shuffle(), Just(numbered).prop_shuffle(), 1..5_usize)
    });
    let mut runner =
        TestRunner::new(Config { cases: site.cases, failure_persistence: None, ..Config::default() });
    let runtime = tokio::runtime::Handle::current();
    let case = |(one, other, batch): (Vec<(usize, _)>, Vec<(usize, _)>, usize)| {
        let tried = async {
            for order in [&one, &other] {
                let task = unique("task");
                let records: Vec<_> =
                    order.iter().map(|(number, said)| record_of(&task, *number, *said)).collect();
                for some in records.chunks(batch) {
                    store(site, some).await;
                }
                holds(site, &task, &model(&records)).await?;
            }
            Ok(())
        };
        runtime.block_on(tried)
    };
    tokio::task::block_in_place(|| runner.run(&batches, case)).unwrap();
}

async fn concurrent_writers_end_in_the_same_state(site: &Site) {
    let statements =
        (0..240_usize).map(|n| ((n % 3) as u8, (n / 3 % 3) as u8, (n / 9 % 4) as u8, n as u64 % 5));
    let records: Vec<_> = statements.enumerate().map(|(n, said)| record_of("crowd", n, said)).collect();
    let writers = (0..8_usize).map(|writer| {
        let history = Arc::clone(&site.history);
        let mine: Vec<Entry> =
            records.iter().cycle().skip(writer * 31).step_by(7).take(240).map(attempt_entry).collect();
        tokio::spawn(async move {
            for some in mine.chunks(20) {
                history.record(some.to_vec()).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    holds(site, "crowd", &model(&records)).await.unwrap();
}

async fn two_writers_at_once_leave_what_knows_more(site: &Site) {
    for run in 1..=100 {
        let ids: Vec<_> = (0..8).map(|n| attempt_id("race", run, &format!("n{n}"))).collect();
        // Every other time they find something to replace.
        if run % 2 == 0 {
            store(site, &ids.iter().map(accepted).collect::<Vec<_>>()).await;
        }
        let write = |record: fn(&AttemptId) -> AttemptRecord| {
            let records: Vec<_> = ids.iter().map(record).map(|record| attempt_entry(&record)).collect();
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

async fn a_batch_of_long_records_is_stored_and_changed(site: &Site) {
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

async fn every_condition_of_a_list_is_kept(site: &Site) {
    let mut records = Vec::new();
    for (namespace, name, task) in [("a", "x", "ax"), ("a", "y", "ay"), ("b", "x", "bx")] {
        for run in 1..=3 {
            for on in ["n1", "n2"] {
                let id = attempt_id(task, run, on);
                let outcome = if on == "n1" { Outcome::TimedOut } else { Outcome::Failed { exit_code: 2 } };
                let record = if run == 3 { running(&id) } else { ended(&id, outcome) };
                records.push(AttemptRecord {
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
        ExecutionQuery { outcome: Some("TimedOut".to_owned()), ..any() },
        ExecutionQuery {
            namespace: Some("a".to_owned()),
            outcome: Some("Failed".to_owned()),
            node: Some(node("n2")),
            ..any()
        },
        ExecutionQuery { namespace: Some("nobody".to_owned()), ..any() },
    ];
    for query in queries {
        let mut expected: Vec<_> = records
            .iter()
            .map(AttemptRecord::execution)
            .filter(|e| query.namespace.as_ref().is_none_or(|n| *n == e.namespace))
            .filter(|e| query.task.as_ref().is_none_or(|n| *n == e.name))
            .filter(|e| query.task_uid.as_ref().is_none_or(|n| *n == e.task_uid))
            .filter(|e| query.run.is_none_or(|n| n == e.run))
            .filter(|e| query.node.as_ref().is_none_or(|n| *n == e.node))
            .filter(|e| query.outcome.as_ref().is_none_or(|n| Some(n) == e.outcome.as_ref()))
            .collect();
        expected.sort_by_key(|e| (std::cmp::Reverse(e.run_started_at), e.task_uid.clone(), e.node.clone()));
        assert_eq!(executions(site, query.clone()).await.items, expected, "{query:?}");
    }
}

async fn a_limit_out_of_bounds_is_refused(site: &Site) {
    let query = ExecutionQuery { limit: 501, ..ExecutionQuery::default() };
    let error = site.history.executions(query).await.unwrap_err();
    assert_eq!(error.to_string(), "limit 501 is not within 1 to 500");
    let error = site.history.runs(RunQuery { limit: u32::MAX, ..RunQuery::default() }).await.unwrap_err();
    assert_eq!(error.category(), "InvalidQuery");
}

async fn pages_have_no_gap_and_no_repeat_while_rows_arrive(site: &Site) {
    let first: Vec<_> =
        (1..=20).flat_map(|run| ["a", "b", "c"].map(|on| running(&attempt_id("paged", run, on)))).collect();
    store(site, &first).await;
    let mut query =
        ExecutionQuery { namespace: Some("ops".to_owned()), limit: 7, ..ExecutionQuery::default() };
    let (mut seen, mut arriving) = (Vec::new(), 21);
    loop {
        let page = executions(site, query.clone()).await;
        assert!(page.items.len() <= 7);
        seen.extend(page.items);
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
    let listed: Vec<_> = seen.iter().map(|e| (e.run.0, e.node.to_string())).collect();
    let expected: Vec<_> =
        (1..=20).rev().flat_map(|run| ["a", "b", "c"].map(|on| (run, on.to_owned()))).collect();
    assert_eq!(listed, expected);
}

async fn output_is_read_from_every_position_as_it_was_written(site: &Site) {
    let id = attempt_id("output", 1, "n");
    // Its neighbours in every order must not be seen.
    for other in [attempt_id("output", 1, "m"), attempt_id("output", 1, "n0"), attempt_id("output", 2, "n")] {
        site.history.append_output(segments(&other, &log([5; 9]), 2)).await.unwrap();
    }
    let records = log((0..40).map(|n| n * 13 % 29 + 1));
    let end = records.last().unwrap().end();
    site.history.append_output(segments(&id, &records, 6)).await.unwrap();
    assert_eq!(site.history.output_end(id.clone(), 0).await.unwrap(), end);
    for from in (0..end + 3).step_by(if site.cases > 10 { 1 } else { 17 }) {
        let read = site.history.output(id.clone(), from, usize::MAX).await.unwrap();
        assert_eq!(read, rest_of(&records, from), "from {from}");
    }
    for piece in [0, 1, 50] {
        assert_eq!(
            read_all(&*site.history, &id, 7, piece).await,
            rest_of(&records, 7),
            "in pieces of {piece}"
        );
    }
    let some = site.history.output(id.clone(), 0, 100).await.unwrap();
    let bytes: usize = some.iter().map(|r| r.data.len()).sum();
    assert!((100..130).contains(&bytes), "{bytes} bytes where about 100 were asked for");
}

async fn output_that_was_sent_twice_and_cut_differently_is_read_once(site: &Site) {
    let records = log((0..60).map(|n| n * 7 % 23 + 1));
    let expected = places(&records);
    let strategy = prop::collection::vec((0..60_usize, 1..20_usize), 0..8);
    let mut runner =
        TestRunner::new(Config { cases: site.cases, failure_persistence: None, ..Config::default() });
    let runtime = tokio::runtime::Handle::current();
    let case = |extra: Vec<(usize, usize)>| {
        let tried = async {
            let id = attempt_id(&unique("again"), 1, "n");
            // Runs from anywhere, also from the middle of a record; then all of it, in steps of seven.
            for (start, count) in extra {
                let mut run = records[start..(start + count).min(records.len())].to_vec();
                let cut = run[0].head.position + run[0].head.len / 2;
                run[0] = run[0].clone().from_position(cut).unwrap();
                site.history.append_output(segments(&id, &run, 20)).await.unwrap();
            }
            site.history.append_output(segments(&id, &records, 7)).await.unwrap();
            site.history.append_output(segments(&id, &records, 7)).await.unwrap();
            let end = site.history.output_end(id.clone(), 0).await.unwrap();
            prop_assert_eq!(end, records.last().unwrap().end());
            for (from, piece) in [(0, usize::MAX), (11, 1), (101, 64)] {
                let read = read_all(&*site.history, &id, from, piece).await;
                prop_assert_eq!(&places(&read)[..], &expected[from as usize..]);
            }
            Ok(())
        };
        runtime.block_on(tried)
    };
    tokio::task::block_in_place(|| runner.run(&strategy, case)).unwrap();
}

async fn a_hole_ends_what_counts_as_archived_until_it_is_filled(site: &Site) {
    let id = attempt_id("hole", 1, "n");
    let all = segments(&id, &log([10; 9]), 3);
    let end = |from: u64| site.history.output_end(id.clone(), from);
    assert_eq!(end(0).await.unwrap(), 0);
    assert_eq!(end(4).await.unwrap(), 4);
    site.history.append_output(vec![all[0].clone(), all[2].clone()]).await.unwrap();
    assert_eq!(end(0).await.unwrap(), 30);
    assert_eq!(end(5).await.unwrap(), 30);
    assert_eq!(end(35).await.unwrap(), 35);
    assert_eq!(end(65).await.unwrap(), 90, "asked for behind the hole");
    let read = site.history.output(id.clone(), 0, usize::MAX).await.unwrap();
    let positions: Vec<_> = read.iter().map(|r| r.head.position).collect();
    assert_eq!(positions, [0, 10, 20, 60, 70, 80], "a reader sees the hole as a step");
    let read = site.history.output(id.clone(), 33, usize::MAX).await.unwrap();
    assert_eq!(read[0].head.position, 60);
    site.history.append_output(vec![all[1].clone()]).await.unwrap();
    assert_eq!(end(0).await.unwrap(), 90);
    assert_eq!(read_all(&*site.history, &id, 0, 1).await, log([10; 9]));
}

async fn what_is_older_than_the_retention_is_not_seen(site: &Site) {
    let (old, new) = (attempt_id("expired", 1, "n"), attempt_id("expired", 2, "n"));
    let run = |n| Entry::Run(Box::new(run_record("expired", n)));
    store(site, &[ended(&old, Outcome::TimedOut)]).await;
    site.history.record(vec![run(1)]).await.unwrap();
    site.history.append_output(segments(&old, &log([10; 4]), 2)).await.unwrap();
    site.hands.advance(RETENTION / 2);
    store(site, &[ended(&new, Outcome::TimedOut)]).await;
    site.history.record(vec![run(2)]).await.unwrap();
    site.history.append_output(segments(&new, &log([10; 4]), 2)).await.unwrap();
    assert_eq!(of_task(site, "expired").await.len(), 2);
    site.hands.advance(RETENTION / 2);
    assert_eq!(attempt(site, &old).await, None);
    assert_eq!(attempt(site, &new).await, Some(ended(&new, Outcome::TimedOut)));
    assert_eq!(of_task(site, "expired").await, [ended(&new, Outcome::TimedOut).execution()]);
    assert_eq!(runs(site, RunQuery::default()).await.items, [run_record("expired", 2)]);
    assert_eq!(site.history.output_end(old.clone(), 0).await.unwrap(), 0);
    assert_eq!(site.history.output(old, 0, usize::MAX).await.unwrap(), []);
    assert_eq!(site.history.output_end(new, 0).await.unwrap(), 40);
}

async fn ten_thousand_records_are_stored_and_listed(site: &Site) {
    let ids: Vec<_> =
        (0..10_000).map(|n| attempt_id("many", 1 + n / 1000, &format!("node-{n:05}"))).collect();
    let clock = Instant::now();
    for some in ids.chunks(500) {
        store(site, &some.iter().map(running).collect::<Vec<_>>()).await;
    }
    let inserted = clock.elapsed();
    let clock = Instant::now();
    for some in ids.chunks(500) {
        store(site, &some.iter().map(|id| ended(id, Outcome::TimedOut)).collect::<Vec<_>>()).await;
    }
    let replaced = clock.elapsed();
    let clock = Instant::now();
    let mut query = ExecutionQuery { namespace: Some("ops".to_owned()), ..ExecutionQuery::default() };
    let mut seen = HashSet::new();
    loop {
        let page = executions(site, query.clone()).await;
        seen.extend(page.items.into_iter().map(|e| {
            assert_eq!(e.outcome.as_deref(), Some("TimedOut"));
            e.id()
        }));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 10_000);
    let listed = clock.elapsed();
    eprintln!(
        "10,000 attempts with their executions: new {inserted:?}, changed {replaced:?}, listed {listed:?}"
    );
}

/// The embedded History alone.
mod file {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    use super::*;

    const CHILD: &str = "SENTINEL_TEST_HISTORY_CHILD";

    fn options() -> EmbeddedOptions {
        EmbeddedOptions::default()
    }

    /// The other process of the next test: writes until it is killed, and says what was acknowledged.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_process_that_writes_until_it_is_killed() {
        let Some(path) = std::env::var_os(CHILD) else { return };
        let history = EmbeddedHistory::open(path, options()).unwrap();
        for number in 1..u32::MAX {
            let id = attempt_id("killed", number, "n");
            let records: Vec<_> =
                (0..20).map(|on| running(&attempt_id("killed", number, &format!("n{on}")))).collect();
            let (stored, appended) = tokio::join!(
                history.record(records.iter().map(attempt_entry).collect()),
                history.append_output(segments(&id, &log([1000; 14]), 7)),
            );
            stored.and(appended).unwrap();
            writeln!(std::io::stdout(), "\nacknowledged {number}").unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_acknowledged_survives_the_death_of_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.db");
        for kill in 1..=3 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "file::a_process_that_writes_until_it_is_killed", "--nocapture"])
                .env(CHILD, &path)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
            let mut acknowledged = 0;
            for line in lines {
                if let Some(number) = line.strip_prefix("acknowledged ") {
                    acknowledged = number.parse().unwrap();
                    if acknowledged == 40 * kill {
                        child.kill().unwrap();
                    }
                }
            }
            child.wait().unwrap();
            assert!(acknowledged >= 40 * kill, "it ended by itself after {acknowledged}");
            let history = EmbeddedHistory::open(&path, options()).unwrap();
            for number in 1..=acknowledged {
                let id = attempt_id("killed", number, "n7");
                assert_eq!(history.attempt(id.clone()).await.unwrap(), Some(running(&id)), "kill {kill}");
                let end = history.output_end(attempt_id("killed", number, "n"), 0).await.unwrap();
                assert_eq!(end, 14_000, "kill {kill}, run {number}");
            }
        }
    }

    #[tokio::test]
    async fn nobody_else_may_read_the_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let history = EmbeddedHistory::open(folder.path().join("history.db"), options()).unwrap();
        history.record(vec![attempt_entry(&accepted(&attempt_id("t", 1, "n")))]).await.unwrap();
        let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap).collect();
        assert!(files.len() >= 2, "{files:?}");
        for file in files {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
    }

    #[tokio::test]
    async fn it_is_open_again_at_once_after_it_was_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.db");
        let id = attempt_id("dropped", 1, "n");
        for stage in [accepted(&id), running(&id), ended(&id, Outcome::Cancelled)] {
            let history = EmbeddedHistory::open(&path, options()).unwrap();
            history.record(vec![attempt_entry(&stage)]).await.unwrap();
            drop(history);
            let history = EmbeddedHistory::open(&path, options()).unwrap();
            assert_eq!(history.attempt(id.clone()).await.unwrap(), Some(stage));
        }
    }

    #[tokio::test]
    async fn a_file_that_is_no_history_is_refused_by_name_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "not a database, only some notes\n".repeat(100)).unwrap();
        let error = EmbeddedHistory::open(&path, options()).unwrap_err();
        assert!(error.to_string().contains("notes.txt"), "{error}");
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("not a database"));
        let missing = EmbeddedHistory::open(folder.path().join("no/such/folder.db"), options()).unwrap_err();
        assert!(missing.to_string().contains("no/such/folder.db"), "{missing}");
    }

    #[tokio::test]
    async fn a_file_of_a_newer_release_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.db");
        drop(EmbeddedHistory::open(&path, options()).unwrap());
        rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = EmbeddedHistory::open(&path, options()).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("shape 99 of a newer release"), "{error}: {source}");
    }

    #[tokio::test]
    async fn what_has_expired_is_removed_from_the_file_and_the_rest_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.db");
        let hands = Hands::new();
        let options = EmbeddedOptions { retention: RETENTION, clock: hands.clock() };
        let history = EmbeddedHistory::open(&path, options).unwrap();
        for run in 1..=1000 {
            let id = attempt_id("old", run, "n");
            history
                .record(vec![attempt_entry(&running(&id)), Entry::Run(Box::new(run_record("old", run)))])
                .await
                .unwrap();
            history.append_output(segments(&id, &log([100; 3]), 1)).await.unwrap();
        }
        let kept = attempt_id("old", 7, "n");
        hands.advance(RETENTION / 2);
        history.append_output(segments(&kept, &log([100; 4]), 1)).await.unwrap();
        hands.advance(RETENTION / 2);
        history.sweep().await.unwrap();
        let file = rusqlite::Connection::open(&path).unwrap();
        let count = |table: &str| {
            file.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(["attempts", "executions", "runs"].map(count), [0, 0, 0]);
        assert_eq!(count("segments"), 4, "output that still grew is kept whole");
        assert_eq!(history.output_end(kept, 0).await.unwrap(), 400);
    }
}

/// MongoDB alone.
mod server {
    use mongodb::bson::doc;
    use sentinel_operator::history::archive::{Archived, Archiver, ArchiverOptions};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn quick() -> MongoOptions {
        MongoOptions {
            server_selection_timeout: Duration::from_millis(500),
            operation_timeout: Duration::from_millis(1500),
            ..MongoOptions::default()
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named_within_the_time_set_and_no_password_is() {
        let history = MongoHistory::new("mongodb://user:secret@127.0.0.1:9/", quick()).await.unwrap();
        let clock = Instant::now();
        let error = history.check().await.unwrap_err();
        assert!(clock.elapsed() < Duration::from_millis(1200), "{:?}", clock.elapsed());
        let text = error.to_string();
        assert_eq!(
            text,
            "unable to check: MongoDB at 127.0.0.1:9 is not reachable: Connection refused (os error 111)"
        );
        assert_eq!(error.category(), "Unreachable");
    }

    #[tokio::test]
    async fn a_server_that_never_answers_costs_no_more_than_the_time_set() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let history = MongoHistory::new(&format!("mongodb://127.0.0.1:{port}/"), quick()).await.unwrap();
        let clock = Instant::now();
        let error =
            history.record(vec![attempt_entry(&running(&attempt_id("t", 1, "n")))]).await.unwrap_err();
        assert!(clock.elapsed() < Duration::from_millis(2500), "{:?}", clock.elapsed());
        assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    }

    #[tokio::test]
    async fn a_uri_that_is_none_is_refused_at_once_without_its_password() {
        for uri in [
            "",
            "localhost",
            "http://x/",
            "mongodb://",
            "mongodb://user:secret@h:99999/",
            "mongodb://user:sec/secret@h/",
            "mongodb://user:secret%ZZ@h/",
            "mongodb://user:secret:secret@h/",
            "mongodb://h/?w=x&foo=1&w=-1",
        ] {
            let error = MongoHistory::new(uri, quick()).await.map(|_| uri).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("failed to understand the MongoDB URI"), "{uri}: {text}");
            assert!(!text.contains("secret"), "{uri}: {text}");
        }
    }

    /// Stands between client and server: passes everything on, keeps what the client sent, and can be cut.
    struct Wire {
        port: u16,
        server: String,
        sent: Arc<std::sync::Mutex<Vec<u8>>>,
        passing: tokio::task::JoinSet<()>,
    }

    impl Wire {
        async fn new(server: String) -> Self {
            let mut wire =
                Self { port: 0, server, sent: Arc::default(), passing: tokio::task::JoinSet::new() };
            wire.mend().await;
            wire
        }

        /// Ends all connections, and accepts no more.
        async fn cut(&mut self) {
            self.passing.shutdown().await;
        }

        /// Passes on again, at the same address.
        async fn mend(&mut self) {
            let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
            self.port = listener.local_addr().unwrap().port();
            let (server, sent) = (self.server.clone(), Arc::clone(&self.sent));
            self.passing.spawn(async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    connections.spawn(pass_on(client, server.clone(), Arc::clone(&sent)));
                }
            });
        }
    }

    async fn pass_on(client: TcpStream, server: String, sent: Arc<std::sync::Mutex<Vec<u8>>>) {
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = TcpStream::connect(&server).await.unwrap().into_split();
        let answers = async { tokio::io::copy(&mut from_server, &mut to_client).await };
        let questions = async {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
                sent.lock().unwrap().extend_from_slice(&buffer[..n]);
                if to_server.write_all(&buffer[..n]).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            _ = answers => {}
            () = questions => {}
        }
    }

    /// A wire to the real server, and a URI that leads through it.
    async fn wire(test: &str) -> Option<(Wire, String)> {
        let server = parts(test)?.mongodb_uri;
        let host = server.trim_start_matches("mongodb://").split('/').next().unwrap().to_owned();
        if host.contains('@') || host.contains(',') {
            eprintln!("NOT TESTED, because it needs a single server without a password: {test}");
            return None;
        }
        let wire = Wire::new(host).await;
        let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", wire.port);
        Some((wire, uri))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_outage_ends_by_itself_and_whatever_was_handed_over_is_there() {
        let Some((mut wire, uri)) = wire("an_outage_ends_by_itself…").await else { return };
        let options = MongoOptions { database: Some(unique("outage")), ..quick() };
        let history = Arc::new(MongoHistory::new(&uri, options).await.unwrap());
        history.prepare().await.unwrap();
        let (done, mut heard) = tokio::sync::mpsc::channel(1000);
        let (archiver, work) = Archiver::new(history.clone(), ArchiverOptions::default(), done);
        let work = tokio::spawn(work.run());
        let records = log((0..200).map(|n| n * 97 % 700 + 1));
        let output = attempt_id("outage", 1, "writer");
        archiver.open_output(&output, 0);
        for (round, some) in (1..).zip(records.chunks(40)) {
            for record in some {
                archiver.output(&output, record.clone()).unwrap();
            }
            for on in 0..100 {
                let id = attempt_id("outage", round, &format!("n{on}"));
                archiver.record(attempt_entry(&ended(&id, Outcome::TimedOut))).unwrap();
            }
            if round % 2 == 1 {
                let failures = archiver.status().failures;
                wire.cut().await;
                archiver.record(Entry::Run(Box::new(run_record("outage", round)))).unwrap();
                eventually("a failure", || archiver.status().failures > failures).await;
                assert!(!archiver.status().is_up);
                wire.mend().await;
            }
        }
        let (mut end, mut attempts, mut runs) = (0, 0, 0);
        while end < records.last().unwrap().end() || attempts < 500 || runs < 3 {
            match tokio::time::timeout(Duration::from_secs(30), heard.recv()).await.unwrap().unwrap() {
                Archived::Output { end: now, .. } => end = now,
                Archived::Attempt { .. } => attempts += 1,
                Archived::Run { .. } => runs += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(archiver.status().is_up);
        assert_eq!(read_all(&*history, &output, 0, 10_000).await, records);
        for round in 1..=5 {
            let query = ExecutionQuery { run: Some(RunNumber(round)), ..ExecutionQuery::default() };
            assert_eq!(history.executions(query).await.unwrap().items.len(), 100);
        }
        drop(archiver);
        work.await.unwrap();
        history.drop_database().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_write_asks_for_a_majority_and_its_journal() {
        let Some((wire, uri)) = wire("every_write_asks_for_a_majority_and_its_journal").await else { return };
        let options = MongoOptions { database: Some(unique("heard")), ..MongoOptions::default() };
        let history = MongoHistory::new(&uri, options).await.unwrap();
        let id = attempt_id("heard", 1, "n");
        let is_durable = |what: &str| {
            let bytes = std::mem::take(&mut *wire.sent.lock().unwrap());
            let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
            // As BSON has them: w: "majority", j: true.
            assert!(has(b"\x02w\0\x09\0\0\0majority\0"), "{what}: no majority was asked for");
            assert!(has(b"\x08j\0\x01"), "{what}: no journal was asked for");
        };
        history.record(vec![attempt_entry(&running(&id))]).await.unwrap();
        is_durable("a new record");
        history.record(vec![attempt_entry(&ended(&id, Outcome::TimedOut))]).await.unwrap();
        is_durable("a changed record");
        history.append_output(segments(&id, &log([10; 3]), 3)).await.unwrap();
        is_durable("output");
        history.drop_database().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_person_with_a_shell_finds_what_an_execution_was_and_that_it_will_expire() {
        let Some(parts) = parts("a_person_with_a_shell_finds…") else { return };
        let name = unique("shell");
        let options = MongoOptions { database: Some(name.clone()), ..MongoOptions::default() };
        let history = MongoHistory::new(&parts.mongodb_uri, options).await.unwrap();
        history.prepare().await.unwrap();
        let id = attempt_id("shell", 1, "web-1");
        history.record(vec![attempt_entry(&ended(&id, Outcome::Failed { exit_code: 3 }))]).await.unwrap();

        let database = mongodb::Client::with_uri_str(&parts.mongodb_uri).await.unwrap().database(&name);
        let executions = database.collection::<mongodb::bson::Document>("executions");
        let filter = doc! { "node": "web-1", "exitCode": 3, "startedAt": { "$gt": mongodb::bson::DateTime::from_millis(T0) } };
        let found = executions.find_one(filter).await.unwrap().unwrap();
        assert_eq!(found.get_str("command").unwrap(), "df -h");
        assert!(found.get_str("message").unwrap().starts_with("exited with code 3; left 9 processes"));
        assert_eq!(found.get_datetime("endedAt").unwrap().timestamp_millis(), T0 + 9000);
        let days = (found.get_datetime("expireAt").unwrap().timestamp_millis()
            - mongodb::bson::DateTime::now().timestamp_millis())
            / 86_400_000;
        assert!((29..=30).contains(&days), "kept for {days} days");
        let mut indexes = Vec::new();
        let mut cursor = executions.list_indexes().await.unwrap();
        while cursor.advance().await.unwrap() {
            indexes.push(cursor.deserialize_current().unwrap());
        }
        let expires = |index: &mongodb::IndexModel| {
            let after = index.options.as_ref().and_then(|o| o.expire_after);
            index.keys.contains_key("expireAt") && after == Some(Duration::ZERO)
        };
        assert!(indexes.iter().any(expires), "{indexes:?}");
        history.drop_database().await.unwrap();
    }
}
