//! The contract of every History: the order of writes, output, and retention.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sentinel_operator::history::{
    AttemptRecord, ExecutionRecord, HistoryRecord, RecordSource, RunQuery, SegmentLines,
};
use sentinel_protocol::ids::Epoch;
use sentinel_protocol::outcome::{LostReason, Outcome};
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;

use crate::stores::fixtures::{
    T0, accepted, attempt_id, ended, history_record, log, log_bytes, lost, read_all, rest_of, run_record,
    running, segments,
};
use crate::stores::parts::unique;
use crate::suite::{Site, attempt, of_task, store};

/// Retention of every History in these tests.
pub(crate) const RETENTION: Duration = Duration::from_hours(1);

/// A statement about one of three Attempts: which, stage, kind of end, epoch.
fn statement() -> impl Strategy<Value = (u8, u8, u8, u64)> {
    (0..3_u8, 0..3_u8, 0..4_u8, 1..4_u64)
}

fn record_for(task: &str, number: usize, (on, stage, kind, epoch): (u8, u8, u8, u64)) -> AttemptRecord {
    let id = attempt_id(task, 1, &format!("n{on}"));
    let base = match (stage, kind) {
        (0, _) => accepted(&id),
        (1, _) => running(&id),
        (_, 0) => lost(&id),
        (_, 1) => AttemptRecord { source: RecordSource::Operator, ..ended(&id, Outcome::NotStarted) },
        (_, 2) => ended(&id, Outcome::Lost { reason: LostReason::StateLost }),
        _ => ended(&id, Outcome::Failed { exit_code: 1 }),
    };
    // Times differ, so that no two statements weigh the same.
    let at = Some(UnixMillis(T0 + number as i64));
    let ended_at = base.ended_at.and(at);
    AttemptRecord { epoch: Epoch::new(epoch).unwrap(), started_at: at, ended_at, ..base }
}

/// The rule of ranks, without ranks.
fn knows_more(new: &AttemptRecord, old: &AttemptRecord) -> bool {
    let is_lost = |record: &AttemptRecord| matches!(record.outcome, Some(Outcome::Lost { .. }));
    let is_agents = |record: &AttemptRecord| record.source == RecordSource::Agent;
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

pub(crate) async fn order_of_writes_does_not_matter(site: &Site) {
    let batches = prop::collection::vec(statement(), 1..14).prop_flat_map(|statements| {
        let numbered: Vec<_> = statements.into_iter().enumerate().collect();
        (Just(numbered.clone()).prop_shuffle(), Just(numbered).prop_shuffle(), 1..5_usize)
    });
    let mut runner =
        TestRunner::new(Config { cases: site.cases, failure_persistence: None, ..Config::default() });
    let runtime = tokio::runtime::Handle::current();
    let case = |(one, other, size): (Vec<(usize, _)>, Vec<(usize, _)>, usize)| {
        let tried = async {
            for order in [&one, &other] {
                let task = unique("task");
                let records: Vec<_> =
                    order.iter().map(|(number, statement)| record_for(&task, *number, *statement)).collect();
                for batch in records.chunks(size) {
                    store(site, batch).await;
                }
                holds(site, &task, &model(&records)).await?;
            }
            Ok(())
        };
        runtime.block_on(tried)
    };
    tokio::task::block_in_place(|| runner.run(&batches, case)).unwrap();
}

pub(crate) async fn concurrent_writers_converge(site: &Site) {
    let statements =
        (0..240_usize).map(|n| ((n % 3) as u8, (n / 3 % 3) as u8, (n / 9 % 4) as u8, n as u64 % 5));
    let records: Vec<_> =
        statements.enumerate().map(|(n, statement)| record_for("crowd", n, statement)).collect();
    let writers = (0..8_usize).map(|writer| {
        let history = Arc::clone(&site.history);
        let share: Vec<HistoryRecord> =
            records.iter().cycle().skip(writer * 31).step_by(7).take(240).map(history_record).collect();
        tokio::spawn(async move {
            for batch in share.chunks(20) {
                history.record(batch.to_vec()).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    holds(site, "crowd", &model(&records)).await.unwrap();
}

pub(crate) async fn output_is_read_back_from_every_position(site: &Site) {
    let id = attempt_id("output", 1, "n");
    // Output of Attempts that sort before and after it must not be returned.
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
    let part = site.history.output(id.clone(), 0, 100).await.unwrap();
    let bytes: usize = part.iter().map(|r| r.data.len()).sum();
    assert!((100..130).contains(&bytes), "{bytes} bytes instead of about 100");
}

pub(crate) async fn overlapping_output_is_read_once(site: &Site) {
    let records = log((0..60).map(|n| n * 7 % 23 + 1));
    let expected = log_bytes(&records);
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
                prop_assert_eq!(&log_bytes(&read)[..], &expected[from as usize..]);
            }
            Ok(())
        };
        runtime.block_on(tried)
    };
    tokio::task::block_in_place(|| runner.run(&strategy, case)).unwrap();
}

pub(crate) async fn lines_of_output_are_read_without_it(site: &Site) {
    let id = attempt_id("lines", 1, "n");
    let all = segments(&id, &log([10; 12]), 3);
    // Those of an earlier release have none.
    let mut stored = all.clone();
    stored[1].lines = None;
    site.history.append_output(stored.clone()).await.unwrap();
    let expected: Vec<SegmentLines> = stored
        .iter()
        .map(|segment| SegmentLines { first: segment.first, end: segment.end, lines: segment.lines })
        .collect();
    assert!(expected[0].lines.is_some());
    let lines = |from: u64, limit: usize| site.history.output_lines(id.clone(), from, limit);
    assert_eq!(lines(0, 100).await.unwrap(), expected);
    assert_eq!(lines(29, 2).await.unwrap(), expected[..2]);
    assert_eq!(lines(30, 2).await.unwrap(), expected[1..3]);
    assert_eq!(lines(120, 2).await.unwrap(), []);
    let other = attempt_id("lines", 1, "m");
    assert_eq!(site.history.output_lines(other, 0, 100).await.unwrap(), []);
}

pub(crate) async fn output_end_stops_at_the_first_hole(site: &Site) {
    let id = attempt_id("hole", 1, "n");
    let all = segments(&id, &log([10; 9]), 3);
    let end = |from: u64| site.history.output_end(id.clone(), from);
    assert_eq!(end(0).await.unwrap(), 0);
    assert_eq!(end(4).await.unwrap(), 4);
    site.history.append_output(vec![all[0].clone(), all[2].clone()]).await.unwrap();
    assert_eq!(end(0).await.unwrap(), 30);
    assert_eq!(end(5).await.unwrap(), 30);
    assert_eq!(end(35).await.unwrap(), 35);
    assert_eq!(end(65).await.unwrap(), 90, "from behind the hole");
    let read = site.history.output(id.clone(), 0, usize::MAX).await.unwrap();
    let positions: Vec<_> = read.iter().map(|r| r.head.position).collect();
    assert_eq!(positions, [0, 10, 20, 60, 70, 80], "a hole is a jump in positions");
    let read = site.history.output(id.clone(), 33, usize::MAX).await.unwrap();
    assert_eq!(read[0].head.position, 60);
    site.history.append_output(vec![all[1].clone()]).await.unwrap();
    assert_eq!(end(0).await.unwrap(), 90);
    assert_eq!(read_all(&*site.history, &id, 0, 1).await, log([10; 9]));
}

pub(crate) async fn expired_records_and_output_are_not_returned(site: &Site) {
    let (old, new) = (attempt_id("expired", 1, "n"), attempt_id("expired", 2, "n"));
    let run = |n| HistoryRecord::Run(Box::new(run_record("expired", n)));
    store(site, &[ended(&old, Outcome::TimedOut)]).await;
    site.history.record(vec![run(1)]).await.unwrap();
    site.history.append_output(segments(&old, &log([10; 4]), 2)).await.unwrap();
    site.clock.advance(RETENTION / 2);
    store(site, &[ended(&new, Outcome::TimedOut)]).await;
    site.history.record(vec![run(2)]).await.unwrap();
    site.history.append_output(segments(&new, &log([10; 4]), 2)).await.unwrap();
    assert_eq!(of_task(site, "expired").await.len(), 2);
    site.clock.advance(RETENTION / 2);
    assert_eq!(attempt(site, &old).await, None);
    assert_eq!(attempt(site, &new).await, Some(ended(&new, Outcome::TimedOut)));
    assert_eq!(of_task(site, "expired").await, [ended(&new, Outcome::TimedOut).execution()]);
    assert_eq!(site.history.runs(RunQuery::default()).await.unwrap().items, [run_record("expired", 2)]);
    assert_eq!(site.history.output_end(old.clone(), 0).await.unwrap(), 0);
    assert_eq!(site.history.output(old, 0, usize::MAX).await.unwrap(), []);
    assert_eq!(site.history.output_end(new, 0).await.unwrap(), 40);
}
