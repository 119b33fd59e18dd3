//! The archiver over a real History in a file, into which faults are injected.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "it is a test"
)]

mod stores;

use std::sync::Arc;
use std::time::Duration;

use sentinel_operator::history::archive::{Archived, Archiver, ArchiverOptions, OutputRefusal, RecordsFull};
use sentinel_operator::history::{History as _, HistoryRecord, RecordSource};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::stage::Stage;
use stores::eventually;
use stores::faulty::{Fault, FaultyHistory, REJECTED_NODE};
use stores::fixtures::{accepted, attempt_id, ended, history_record, log, read_all, run_record, running};
use tokio::sync::mpsc;

fn options() -> ArchiverOptions {
    ArchiverOptions {
        delay: Duration::from_millis(5),
        retry_min: Duration::from_millis(2),
        retry_max: Duration::from_millis(20),
        ..ArchiverOptions::default()
    }
}

fn start(history: &Arc<FaultyHistory>, options: ArchiverOptions) -> (Archiver, mpsc::Receiver<Archived>) {
    let (done, archived) = mpsc::channel(1000);
    let (archiver, work) = Archiver::new(history.clone(), options, done);
    tokio::spawn(work.run());
    (archiver, archived)
}

async fn next(archived: &mut mpsc::Receiver<Archived>) -> Archived {
    tokio::time::timeout(Duration::from_secs(10), archived.recv())
        .await
        .expect("nothing was archived in time")
        .unwrap()
}

#[tokio::test]
async fn a_record_is_archived_once_it_is_stored() {
    let history = FaultyHistory::new();
    let (archiver, mut archived) = start(&history, options());
    let id = attempt_id("t", 1, "n");
    archiver.record(history_record(&running(&id))).unwrap();
    archiver.record(HistoryRecord::Run(Box::new(run_record("t", 1)))).unwrap();
    assert_eq!(
        next(&mut archived).await,
        Archived::Attempt { id: id.clone(), stage: Stage::Running, source: RecordSource::Agent }
    );
    assert_eq!(history.attempt(id).await.unwrap().unwrap().stage, Stage::Running);
    assert!(matches!(next(&mut archived).await, Archived::Run { verdict: None, .. }));
    let status = archiver.status();
    assert_eq!((status.stored_records, status.queued_records, status.is_up), (2, 0, true));
}

#[tokio::test]
async fn an_outage_delays_the_archive_and_loses_nothing() {
    let history = FaultyHistory::new();
    history.set(Fault::WritesFail);
    let (archiver, mut archived) = start(&history, options());
    let ids: Vec<_> = (1..=50).map(|run| attempt_id("t", run, "n")).collect();
    let records = log([100; 20]);
    archiver.open_output(&ids[0], 0);
    for record in &records {
        archiver.output(&ids[0], record.clone()).unwrap();
    }
    for id in &ids {
        archiver.record(history_record(&ended(id, Outcome::TimedOut))).unwrap();
    }
    eventually("some failures", || archiver.status().total_failures() > 5).await;
    let status = archiver.status();
    assert!(!status.is_up && status.last_error.unwrap().contains("faulty store"));
    assert!(status.queued_records == 50 && status.queued_bytes >= 1700 && status.lag > Duration::ZERO);
    assert!(archived.try_recv().is_err(), "archived during an outage");

    history.set(Fault::None);
    let (mut attempts, mut end) = (0, 0);
    while attempts < 50 || end < 2000 {
        match next(&mut archived).await {
            Archived::Attempt { stage: Stage::Ended, .. } => attempts += 1,
            Archived::Output { end: now, .. } => end = now,
            other => panic!("{other:?}"),
        }
    }
    for id in &ids {
        assert!(history.attempt(id.clone()).await.unwrap().is_some());
    }
    assert_eq!(read_all(&*history, &ids[0], 0, usize::MAX).await, records);
    eventually("it is up and its queue is empty", || {
        let status = archiver.status();
        status.is_up && status.queued_records == 0 && status.queued_bytes == 0 && status.lag == Duration::ZERO
    })
    .await;
}

#[tokio::test]
async fn a_lost_response_is_retried_and_stores_nothing_twice() {
    let history = FaultyHistory::new();
    history.set(Fault::ResponsesLost);
    let (archiver, mut archived) = start(&history, options());
    let id = attempt_id("t", 1, "n");
    let records = log([500; 10]);
    archiver.open_output(&id, 0);
    for record in &records {
        archiver.output(&id, record.clone()).unwrap();
    }
    eventually("it was written more than once", || history.writes() > 2).await;
    history.set(Fault::None);
    let mut end = 0;
    while end < 5000 {
        let Archived::Output { end: now, .. } = next(&mut archived).await else { panic!("not output") };
        end = now;
    }
    assert_eq!(read_all(&*history, &id, 0, usize::MAX).await, records);
}

#[tokio::test]
async fn only_the_latest_record_of_an_id_is_queued() {
    let history = FaultyHistory::new();
    history.set(Fault::WritesFail);
    let (archiver, mut archived) = start(&history, options());
    // The first is in flight when the others are queued.
    let (first, id) = (attempt_id("t", 1, "n"), attempt_id("t", 2, "n"));
    archiver.record(history_record(&running(&first))).unwrap();
    eventually("it is in flight", || archiver.status().total_failures() > 0).await;
    archiver.record(history_record(&ended(&id, Outcome::OomKilled { peak: Some(64 << 20) }))).unwrap();
    archiver.record(history_record(&accepted(&id))).unwrap();
    archiver.record(history_record(&running(&id))).unwrap();
    assert_eq!(archiver.status().queued_records, 2);
    history.set(Fault::None);
    assert_eq!(
        next(&mut archived).await,
        Archived::Attempt { id: first, stage: Stage::Running, source: RecordSource::Agent }
    );
    assert_eq!(
        next(&mut archived).await,
        Archived::Attempt { id: id.clone(), stage: Stage::Ended, source: RecordSource::Agent }
    );
    assert_eq!(
        history.attempt(id.clone()).await.unwrap(),
        Some(ended(&id, Outcome::OomKilled { peak: Some(64 << 20) }))
    );
}

#[tokio::test]
async fn full_queues_refuse_and_count() {
    let history = FaultyHistory::new();
    history.set(Fault::WritesFail);
    let (archiver, mut archived) =
        start(&history, ArchiverOptions { max_records: 3, max_output_bytes: 1000, ..options() });
    for run in 1..=3 {
        archiver.record(history_record(&running(&attempt_id("t", run, "n")))).unwrap();
    }
    assert_eq!(archiver.record(history_record(&running(&attempt_id("t", 4, "n")))), Err(RecordsFull));
    let known = attempt_id("t", 3, "n");
    let id = attempt_id("t", 1, "n");
    archiver.open_output(&id, 0);
    let records = log([400; 3]);
    archiver.output(&id, records[0].clone()).unwrap();
    archiver.output(&id, records[1].clone()).unwrap();
    assert_eq!(archiver.output(&id, records[2].clone()), Err(OutputRefusal::Full));
    assert!(archiver.output_room() < 400);
    let status = archiver.status();
    assert_eq!((status.refused_records, status.refused_output), (1, 1));
    history.set(Fault::None);
    let mut end = 0;
    while end < 800 {
        if let Archived::Output { end: now, .. } = next(&mut archived).await {
            end = now;
        }
    }
    // There is room again, and the refused output continues where it stopped.
    archiver.output(&id, records[2].clone()).unwrap();
    archiver.record(history_record(&ended(&known, Outcome::Cancelled))).unwrap();
    eventually("all is stored", || {
        archiver.status().queued_bytes == 0 && archiver.status().queued_records == 0
    })
    .await;
    assert_eq!(history.output_end(id, 0).await.unwrap(), 1200);
}

#[tokio::test]
async fn refuses_gaps_and_unopened_output_and_skips_repeats() {
    let history = FaultyHistory::new();
    let (archiver, mut archived) = start(&history, options());
    let id = attempt_id("t", 1, "n");
    let records = log([10; 6]);
    assert_eq!(archiver.output(&id, records[0].clone()), Err(OutputRefusal::NotOpen));
    assert_eq!(archiver.open_output(&id, 20), 20);
    assert_eq!(archiver.output(&id, records[3].clone()), Err(OutputRefusal::Hole { expected: 20 }));
    archiver.output(&id, records[1].clone()).unwrap();
    archiver.output(&id, records[2].clone()).unwrap();
    archiver.output(&id, records[2].clone()).unwrap();
    assert_eq!(archiver.open_output(&id, 0), 30, "a new Session continues after the queued output");
    let mut malformed = records[3].clone();
    malformed.data = malformed.data.slice(..0);
    malformed.head.dropped = None;
    assert_eq!(archiver.output(&id, malformed), Err(OutputRefusal::Malformed));
    assert_eq!(next(&mut archived).await, Archived::Output { attempt: id.clone(), end: 30 });
    assert_eq!(read_all(&*history, &id, 0, usize::MAX).await, records[2..3]);
    archiver.close_output(&id);
    assert_eq!(archiver.output(&id, records[3].clone()), Err(OutputRefusal::NotOpen));
}

#[tokio::test]
async fn a_rejected_record_does_not_affect_others() {
    let history = FaultyHistory::new();
    history.set(Fault::Rejects);
    let (archiver, mut archived) = start(&history, options());
    let (bad, good) = (attempt_id("t", 1, REJECTED_NODE), attempt_id("t", 1, "good"));
    for id in [&bad, &good] {
        archiver.open_output(id, 0);
        archiver.output(id, log([10])[0].clone()).unwrap();
        archiver.record(history_record(&running(id))).unwrap();
    }
    let mut notifications = Vec::new();
    while notifications.len() < 4 {
        notifications.push(next(&mut archived).await);
    }
    let has =
        |wanted: &dyn Fn(&Archived) -> bool| assert!(notifications.iter().any(wanted), "{notifications:?}");
    has(&|archived| {
        *archived
            == Archived::Attempt { id: good.clone(), stage: Stage::Running, source: RecordSource::Agent }
    });
    has(&|archived| *archived == Archived::Output { attempt: good.clone(), end: 10 });
    has(
        &|archived| matches!(archived, Archived::RejectedRecord { message, .. } if message.contains("injected")),
    );
    has(&|archived| matches!(archived, Archived::RejectedOutput { attempt, .. } if *attempt == bad));
    assert_eq!(archiver.status().rejected, 2);
    assert!(archiver.status().is_up, "a rejection is not an outage");
}

#[tokio::test]
async fn dropping_the_last_handle_stores_the_queue_and_ends() {
    let history = FaultyHistory::new();
    let (done, mut archived) = mpsc::channel(1000);
    let slow = ArchiverOptions { delay: Duration::from_hours(1), ..options() };
    let (archiver, work) = Archiver::new(history.clone(), slow, done);
    let work = tokio::spawn(work.run());
    let id = attempt_id("t", 1, "n");
    archiver.record(history_record(&running(&id))).unwrap();
    archiver.open_output(&id, 0);
    archiver.output(&id, log([10])[0].clone()).unwrap();
    drop(archiver);
    tokio::time::timeout(Duration::from_secs(10), work).await.expect("it did not end").unwrap();
    let mut notifications = Vec::new();
    archived.recv_many(&mut notifications, 10).await;
    assert_eq!(notifications.len(), 2, "{notifications:?}");
    assert_eq!(history.output_end(id, 0).await.unwrap(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_concurrent_logs_are_each_complete() {
    let history = FaultyHistory::new();
    let (archiver, mut archived) =
        start(&history, ArchiverOptions { max_output_bytes: 64 << 10, segment_bytes: 4 << 10, ..options() });
    let records = log((0..60).map(|n| n * 97 % 700 + 1));
    let end = records.last().unwrap().end();
    let ids: Vec<_> = (1..=100).map(|n| attempt_id("t", 1, &format!("n{n}"))).collect();
    for id in ids.clone() {
        let (archiver, records) = (archiver.clone(), records.clone());
        tokio::spawn(async move {
            archiver.open_output(&id, 0);
            for record in records {
                while archiver.output(&id, record.clone()) == Err(OutputRefusal::Full) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            archiver.close_output(&id);
        });
    }
    let mut whole = 0;
    while whole < ids.len() {
        match next(&mut archived).await {
            Archived::Output { attempt, end: now } => {
                let stored = history.output_end(attempt, 0).await.unwrap();
                assert!(stored >= now, "archived up to {now} but stored up to {stored}");
                whole += usize::from(now == end);
            }
            other => panic!("{other:?}"),
        }
    }
    for id in &ids {
        assert_eq!(read_all(&*history, id, 0, 1000).await, records);
    }
    assert_eq!(archiver.status().queued_bytes, 0);
}

#[tokio::test]
async fn the_archiver_ends_when_history_is_closed() {
    for is_output in [false, true] {
        let history = FaultyHistory::new();
        history.set(Fault::Closed);
        let (done, _archived) = mpsc::channel(1000);
        let (archiver, work) = Archiver::new(history, options(), done);
        let work = tokio::spawn(work.run());
        let id = attempt_id("t", 1, "n");
        if is_output {
            archiver.open_output(&id, 0);
            archiver.output(&id, log([10])[0].clone()).unwrap();
        } else {
            archiver.record(history_record(&running(&id))).unwrap();
        }
        // Its process ends with it: `run/tasks.rs`.
        tokio::time::timeout(Duration::from_secs(10), work).await.expect("it did not end").unwrap();
        let status = archiver.status();
        assert!(!status.is_up);
        assert_eq!(status.failures.get("Closed"), Some(&1));
        assert_eq!(status.rejected, 0, "a closed store rejects nothing");
    }
}
