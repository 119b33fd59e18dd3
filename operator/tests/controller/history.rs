//! The embedded History with a switch that makes it unavailable.
//!
//! An answer is awaited on the test's own thread: a paused clock would run on while SQLite's threads work, and every
//! timeout with it.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sentinel_operator::clock::Clock;
use sentinel_operator::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use sentinel_operator::history::record::{AttemptRecord, ExecutionRecord, HistoryRecord, RunRecord};
use sentinel_operator::history::{
    AuditHeadQuery, AuditHeadRecord, ExecutionQuery, History, HistoryError, HistoryFuture, OutputSegment,
    Page, RunQuery, SegmentLines,
};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;
use tokio::runtime::Runtime;

/// See the module.
pub(crate) struct SwitchedHistory {
    store: EmbeddedHistory,
    is_available: AtomicBool,
    _directory: tempfile::TempDir,
}

impl SwitchedHistory {
    pub(crate) fn new(clock: Clock) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions { clock, ..EmbeddedOptions::default() };
        let store = EmbeddedHistory::open(directory.path().join("history.db"), options).unwrap();
        Self { store, is_available: AtomicBool::new(true), _directory: directory }
    }

    pub(crate) fn set_available(&self, is_available: bool) {
        self.is_available.store(is_available, Ordering::Relaxed);
    }

    fn answer<'a, T: Send + 'a>(
        &'a self,
        ask: impl FnOnce() -> HistoryFuture<'a, T> + Send + 'a,
    ) -> HistoryFuture<'a, T> {
        Box::pin(async move {
            if !self.is_available.load(Ordering::Relaxed) {
                let after = Duration::from_secs(1);
                return Err(HistoryError::TimedOut { action: "answer", store: "the test".to_owned(), after });
            }
            block_on(ask())
        })
    }
}

/// Blocks this thread until the future is ready. It may need other tasks, which cannot run on this thread meanwhile: they have
/// another runtime.
fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    static STORES: LazyLock<Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap());
    std::thread::scope(|scope| scope.spawn(|| STORES.block_on(future)).join().unwrap())
}

impl History for SwitchedHistory {
    fn prepare(&self) -> HistoryFuture<'_, ()> {
        self.answer(|| self.store.prepare())
    }

    fn check(&self) -> HistoryFuture<'_, ()> {
        self.answer(|| self.store.check())
    }

    fn record(&self, entries: Vec<HistoryRecord>) -> HistoryFuture<'_, ()> {
        self.answer(|| self.store.record(entries))
    }

    fn append_output(&self, segments: Vec<OutputSegment>) -> HistoryFuture<'_, ()> {
        self.answer(|| self.store.append_output(segments))
    }

    fn output(&self, attempt: AttemptId, from: u64, max_bytes: usize) -> HistoryFuture<'_, Vec<LogRecord>> {
        self.answer(move || self.store.output(attempt, from, max_bytes))
    }

    fn output_end(&self, attempt: AttemptId, from: u64) -> HistoryFuture<'_, u64> {
        self.answer(move || self.store.output_end(attempt, from))
    }

    fn output_lines(
        &self,
        attempt: AttemptId,
        from: u64,
        limit: usize,
    ) -> HistoryFuture<'_, Vec<SegmentLines>> {
        self.answer(move || self.store.output_lines(attempt, from, limit))
    }
    fn attempt(&self, id: AttemptId) -> HistoryFuture<'_, Option<AttemptRecord>> {
        self.answer(|| self.store.attempt(id))
    }

    fn executions(&self, query: ExecutionQuery) -> HistoryFuture<'_, Page<ExecutionRecord>> {
        self.answer(|| self.store.executions(query))
    }

    fn runs(&self, query: RunQuery) -> HistoryFuture<'_, Page<RunRecord>> {
        self.answer(|| self.store.runs(query))
    }

    fn record_audit_heads(&self, heads: Vec<AuditHeadRecord>) -> HistoryFuture<'_, ()> {
        self.answer(|| self.store.record_audit_heads(heads))
    }

    fn audit_heads(&self, query: AuditHeadQuery) -> HistoryFuture<'_, Page<AuditHeadRecord>> {
        self.answer(|| self.store.audit_heads(query))
    }
}
