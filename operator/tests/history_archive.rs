//! The archiver over a real History in a file, with a door before it that can be shut.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "it is a test"
)]

mod stores;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use sentinel_operator::history::archive::{Archived, Archiver, ArchiverOptions, EntriesFull, OutputRefusal};
use sentinel_operator::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use sentinel_operator::history::{
    Answer, AttemptRecord, Entry, ExecutionQuery, ExecutionRecord, History, HistoryError, OutputSegment,
    Page, RunQuery, RunRecord, Source,
};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::to_operator::Stage;
use stores::eventually;
use stores::fixtures::{accepted, attempt_entry, attempt_id, ended, log, read_all, run_record, running};
use tokio::sync::mpsc;

/// A History in a file with a door before it.
struct Door {
    inside: EmbeddedHistory,
    mode: AtomicU8,
    /// Writes that came through.
    writes: AtomicU64,
    _folder: tempfile::TempDir,
}

#[derive(Clone, Copy)]
enum Mode {
    Open,
    /// As if nobody were there.
    Shut,
    /// The write happens, and its answer is lost.
    AnswerLost,
    /// Whatever speaks of this node can never be stored.
    Refuses,
}

const REFUSED: &str = "refused";

impl Door {
    fn new() -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let inside =
            EmbeddedHistory::open(folder.path().join("history.db"), EmbeddedOptions::default()).unwrap();
        Arc::new(Self { inside, mode: AtomicU8::new(0), writes: AtomicU64::new(0), _folder: folder })
    }

    fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }

    fn is(&self, mode: Mode) -> bool {
        self.mode.load(Ordering::SeqCst) == mode as u8
    }

    fn pass<'a>(&'a self, is_refused: bool, write: Answer<'a, ()>) -> Answer<'a, ()> {
        let away =
            || HistoryError::TimedOut { action: "record", store: "door".to_owned(), after: Duration::ZERO };
        async move {
            if self.is(Mode::Shut) {
                return Err(away());
            }
            if self.is(Mode::Refuses) && is_refused {
                return Err(HistoryError::Unstorable { what: "it".to_owned(), message: "never".to_owned() });
            }
            write.await?;
            self.writes.fetch_add(1, Ordering::SeqCst);
            if self.is(Mode::AnswerLost) { Err(away()) } else { Ok(()) }
        }
        .boxed()
    }
}

impl History for Door {
    fn prepare(&self) -> Answer<'_, ()> {
        self.inside.prepare()
    }
    fn check(&self) -> Answer<'_, ()> {
        self.inside.check()
    }
    fn record(&self, entries: Vec<Entry>) -> Answer<'_, ()> {
        let is_refused =
            entries.iter().any(|e| matches!(e, Entry::Attempt(a) if a.attempt.node.as_str() == REFUSED));
        self.pass(is_refused, self.inside.record(entries))
    }
    fn append_output(&self, segments: Vec<OutputSegment>) -> Answer<'_, ()> {
        let is_refused = segments.iter().any(|s| s.attempt.node.as_str() == REFUSED);
        self.pass(is_refused, self.inside.append_output(segments))
    }
    fn output(&self, attempt: AttemptId, from: u64, max_bytes: usize) -> Answer<'_, Vec<LogRecord>> {
        self.inside.output(attempt, from, max_bytes)
    }
    fn output_end(&self, attempt: AttemptId, from: u64) -> Answer<'_, u64> {
        self.inside.output_end(attempt, from)
    }
    fn attempt(&self, id: AttemptId) -> Answer<'_, Option<AttemptRecord>> {
        self.inside.attempt(id)
    }
    fn executions(&self, query: ExecutionQuery) -> Answer<'_, Page<ExecutionRecord>> {
        self.inside.executions(query)
    }
    fn runs(&self, query: RunQuery) -> Answer<'_, Page<RunRecord>> {
        self.inside.runs(query)
    }
}

fn options() -> ArchiverOptions {
    ArchiverOptions {
        delay: Duration::from_millis(5),
        retry_first: Duration::from_millis(2),
        retry_most: Duration::from_millis(20),
        ..ArchiverOptions::default()
    }
}

fn start(door: &Arc<Door>, options: ArchiverOptions) -> (Archiver, mpsc::Receiver<Archived>) {
    let (done, heard) = mpsc::channel(1000);
    let (archiver, work) = Archiver::new(door.clone(), options, done);
    tokio::spawn(work.run());
    (archiver, heard)
}

async fn next(heard: &mut mpsc::Receiver<Archived>) -> Archived {
    tokio::time::timeout(Duration::from_secs(10), heard.recv()).await.expect("nothing was archived").unwrap()
}

#[tokio::test]
async fn a_record_is_called_archived_when_the_store_has_it() {
    let door = Door::new();
    let (archiver, mut heard) = start(&door, options());
    let id = attempt_id("t", 1, "n");
    archiver.record(attempt_entry(&running(&id))).unwrap();
    archiver.record(Entry::Run(Box::new(run_record("t", 1)))).unwrap();
    assert_eq!(
        next(&mut heard).await,
        Archived::Attempt { id: id.clone(), stage: Stage::Running, source: Source::Agent }
    );
    assert_eq!(door.attempt(id).await.unwrap().unwrap().stage, Stage::Running);
    assert!(matches!(next(&mut heard).await, Archived::Run { verdict: None, .. }));
    let status = archiver.status();
    assert_eq!((status.stored_entries, status.queued_entries, status.is_up), (2, 0, true));
}

#[tokio::test]
async fn while_history_is_away_nothing_is_called_archived_and_then_everything_is() {
    let door = Door::new();
    door.set(Mode::Shut);
    let (archiver, mut heard) = start(&door, options());
    let ids: Vec<_> = (1..=50).map(|run| attempt_id("t", run, "n")).collect();
    let records = log([100; 20]);
    archiver.open_output(&ids[0], 0);
    for record in &records {
        archiver.output(&ids[0], record.clone()).unwrap();
    }
    for id in &ids {
        archiver.record(attempt_entry(&ended(id, Outcome::TimedOut))).unwrap();
    }
    eventually("some failures", || archiver.status().failures > 5).await;
    let status = archiver.status();
    assert!(!status.is_up && status.last_error.unwrap().contains("door"));
    assert!(status.queued_entries == 50 && status.queued_bytes >= 1700 && status.lag > Duration::ZERO);
    assert!(heard.try_recv().is_err(), "called archived while the store was away");

    door.set(Mode::Open);
    let (mut attempts, mut end) = (0, 0);
    while attempts < 50 || end < 2000 {
        match next(&mut heard).await {
            Archived::Attempt { stage: Stage::Ended, .. } => attempts += 1,
            Archived::Output { end: now, .. } => end = now,
            other => panic!("{other:?}"),
        }
    }
    for id in &ids {
        assert!(door.attempt(id.clone()).await.unwrap().is_some());
    }
    assert_eq!(read_all(&*door, &ids[0], 0, usize::MAX).await, records);
    eventually("it is up and empty", || {
        let status = archiver.status();
        status.is_up && status.queued_entries == 0 && status.queued_bytes == 0 && status.lag == Duration::ZERO
    })
    .await;
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_stores_nothing_twice() {
    let door = Door::new();
    door.set(Mode::AnswerLost);
    let (archiver, mut heard) = start(&door, options());
    let id = attempt_id("t", 1, "n");
    let records = log([500; 10]);
    archiver.open_output(&id, 0);
    for record in &records {
        archiver.output(&id, record.clone()).unwrap();
    }
    eventually("it was written more than once", || door.writes.load(Ordering::SeqCst) > 2).await;
    door.set(Mode::Open);
    let mut end = 0;
    while end < 5000 {
        let Archived::Output { end: now, .. } = next(&mut heard).await else { panic!("not output") };
        end = now;
    }
    assert_eq!(read_all(&*door, &id, 0, usize::MAX).await, records);
}

#[tokio::test]
async fn only_the_latest_of_a_thing_waits_whatever_the_order() {
    let door = Door::new();
    door.set(Mode::Shut);
    let (archiver, mut heard) = start(&door, options());
    // The first is on its way already when the others come.
    let (first, id) = (attempt_id("t", 1, "n"), attempt_id("t", 2, "n"));
    archiver.record(attempt_entry(&running(&first))).unwrap();
    eventually("it is on its way", || archiver.status().failures > 0).await;
    archiver.record(attempt_entry(&ended(&id, Outcome::OomKilled { peak: Some(64 << 20) }))).unwrap();
    archiver.record(attempt_entry(&accepted(&id))).unwrap();
    archiver.record(attempt_entry(&running(&id))).unwrap();
    assert_eq!(archiver.status().queued_entries, 2);
    door.set(Mode::Open);
    assert_eq!(
        next(&mut heard).await,
        Archived::Attempt { id: first, stage: Stage::Running, source: Source::Agent }
    );
    assert_eq!(
        next(&mut heard).await,
        Archived::Attempt { id: id.clone(), stage: Stage::Ended, source: Source::Agent }
    );
    assert_eq!(
        door.attempt(id.clone()).await.unwrap(),
        Some(ended(&id, Outcome::OomKilled { peak: Some(64 << 20) }))
    );
}

#[tokio::test]
async fn at_its_bounds_it_refuses_and_counts() {
    let door = Door::new();
    door.set(Mode::Shut);
    let (archiver, mut heard) =
        start(&door, ArchiverOptions { max_entries: 3, max_output_bytes: 1000, ..options() });
    for run in 1..=3 {
        archiver.record(attempt_entry(&running(&attempt_id("t", run, "n")))).unwrap();
    }
    assert_eq!(archiver.record(attempt_entry(&running(&attempt_id("t", 4, "n")))), Err(EntriesFull));
    let known = attempt_id("t", 3, "n");
    let id = attempt_id("t", 1, "n");
    archiver.open_output(&id, 0);
    let records = log([400; 3]);
    archiver.output(&id, records[0].clone()).unwrap();
    archiver.output(&id, records[1].clone()).unwrap();
    assert_eq!(archiver.output(&id, records[2].clone()), Err(OutputRefusal::Full));
    assert!(archiver.output_room() < 400);
    let status = archiver.status();
    assert_eq!((status.refused_entries, status.refused_output), (1, 1));
    door.set(Mode::Open);
    let mut end = 0;
    while end < 800 {
        if let Archived::Output { end: now, .. } = next(&mut heard).await {
            end = now;
        }
    }
    // There is room again, and what was refused goes on where it stopped.
    archiver.output(&id, records[2].clone()).unwrap();
    archiver.record(attempt_entry(&ended(&known, Outcome::Cancelled))).unwrap();
    eventually("all is stored", || {
        archiver.status().queued_bytes == 0 && archiver.status().queued_entries == 0
    })
    .await;
    assert_eq!(door.output_end(id, 0).await.unwrap(), 1200);
}

#[tokio::test]
async fn output_with_a_hole_or_without_an_opening_is_refused_and_a_repetition_is_passed_over() {
    let door = Door::new();
    let (archiver, mut heard) = start(&door, options());
    let id = attempt_id("t", 1, "n");
    let records = log([10; 6]);
    assert_eq!(archiver.output(&id, records[0].clone()), Err(OutputRefusal::NotOpen));
    assert_eq!(archiver.open_output(&id, 20), 20);
    assert_eq!(archiver.output(&id, records[3].clone()), Err(OutputRefusal::Hole { expected: 20 }));
    archiver.output(&id, records[1].clone()).unwrap();
    archiver.output(&id, records[2].clone()).unwrap();
    archiver.output(&id, records[2].clone()).unwrap();
    assert_eq!(archiver.open_output(&id, 0), 30, "a new Session goes on behind what is here");
    let mut lie = records[3].clone();
    lie.data = lie.data.slice(..0);
    lie.head.dropped = None;
    assert_eq!(archiver.output(&id, lie), Err(OutputRefusal::Malformed));
    assert_eq!(next(&mut heard).await, Archived::Output { attempt: id.clone(), end: 30 });
    assert_eq!(read_all(&*door, &id, 0, usize::MAX).await, records[2..3]);
    archiver.close_output(&id);
    assert_eq!(archiver.output(&id, records[3].clone()), Err(OutputRefusal::NotOpen));
}

#[tokio::test]
async fn what_can_never_be_stored_is_named_and_takes_nobody_along() {
    let door = Door::new();
    door.set(Mode::Refuses);
    let (archiver, mut heard) = start(&door, options());
    let (bad, good) = (attempt_id("t", 1, REFUSED), attempt_id("t", 1, "good"));
    for id in [&bad, &good] {
        archiver.open_output(id, 0);
        archiver.output(id, log([10])[0].clone()).unwrap();
        archiver.record(attempt_entry(&running(id))).unwrap();
    }
    let mut words = Vec::new();
    while words.len() < 4 {
        words.push(next(&mut heard).await);
    }
    let has = |wanted: &dyn Fn(&Archived) -> bool| assert!(words.iter().any(wanted), "{words:?}");
    has(&|word| {
        *word == Archived::Attempt { id: good.clone(), stage: Stage::Running, source: Source::Agent }
    });
    has(&|word| *word == Archived::Output { attempt: good.clone(), end: 10 });
    has(&|word| matches!(word, Archived::RejectedEntry { message, .. } if message.contains("never")));
    has(&|word| matches!(word, Archived::RejectedOutput { attempt, .. } if *attempt == bad));
    assert_eq!(archiver.status().rejected, 2);
    assert!(archiver.status().is_up, "the store is not away");
}

#[tokio::test]
async fn when_the_last_handle_is_dropped_what_waits_is_stored_and_the_work_ends() {
    let door = Door::new();
    let (done, mut heard) = mpsc::channel(1000);
    let slow = ArchiverOptions { delay: Duration::from_hours(1), ..options() };
    let (archiver, work) = Archiver::new(door.clone(), slow, done);
    let work = tokio::spawn(work.run());
    let id = attempt_id("t", 1, "n");
    archiver.record(attempt_entry(&running(&id))).unwrap();
    archiver.open_output(&id, 0);
    archiver.output(&id, log([10])[0].clone()).unwrap();
    drop(archiver);
    tokio::time::timeout(Duration::from_secs(10), work).await.expect("it goes on").unwrap();
    let mut words = Vec::new();
    heard.recv_many(&mut words, 10).await;
    assert_eq!(words.len(), 2, "{words:?}");
    assert_eq!(door.output_end(id, 0).await.unwrap(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_attempts_write_at_once_and_each_log_is_whole() {
    let door = Door::new();
    let (archiver, mut heard) =
        start(&door, ArchiverOptions { max_output_bytes: 64 << 10, segment_bytes: 4 << 10, ..options() });
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
        match next(&mut heard).await {
            Archived::Output { attempt, end: now } => {
                let stored = door.output_end(attempt, 0).await.unwrap();
                assert!(stored >= now, "called archived to {now}, and stored to {stored}");
                whole += usize::from(now == end);
            }
            other => panic!("{other:?}"),
        }
    }
    for id in &ids {
        assert_eq!(read_all(&*door, id, 0, 1000).await, records);
    }
    assert_eq!(archiver.status().queued_bytes, 0);
}
