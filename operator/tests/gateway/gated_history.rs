//! A History that a test can make unavailable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sentinel_operator::history::{
    AttemptRecord, AuditHeadQuery, AuditHeadRecord, ExecutionQuery, ExecutionRecord, History, HistoryError,
    HistoryFuture, HistoryRecord, OutputSegment, Page, RunQuery, RunRecord, SegmentLines,
};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;

/// See the module.
pub(crate) struct GatedHistory {
    inner: Arc<dyn History>,
    closed: AtomicBool,
}

impl GatedHistory {
    pub(crate) fn new(inner: Arc<dyn History>) -> Arc<Self> {
        Arc::new(Self { inner, closed: AtomicBool::new(false) })
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn open(&self) {
        self.closed.store(false, Ordering::Relaxed);
    }

    fn through<'a, T: Send + 'a>(&'a self, answer: HistoryFuture<'a, T>) -> HistoryFuture<'a, T> {
        if self.closed.load(Ordering::Relaxed) {
            let error = HistoryError::TimedOut {
                action: "ask",
                store: "the closed gate".into(),
                after: Duration::from_millis(1),
            };
            return Box::pin(async move { Err(error) });
        }
        answer
    }
}

impl History for GatedHistory {
    fn prepare(&self) -> HistoryFuture<'_, ()> {
        self.inner.prepare()
    }
    fn check(&self) -> HistoryFuture<'_, ()> {
        self.through(self.inner.check())
    }
    fn record(&self, entries: Vec<HistoryRecord>) -> HistoryFuture<'_, ()> {
        self.through(self.inner.record(entries))
    }
    fn append_output(&self, segments: Vec<OutputSegment>) -> HistoryFuture<'_, ()> {
        self.through(self.inner.append_output(segments))
    }
    fn output(&self, attempt: AttemptId, from: u64, max_bytes: usize) -> HistoryFuture<'_, Vec<LogRecord>> {
        self.through(self.inner.output(attempt, from, max_bytes))
    }
    fn output_end(&self, attempt: AttemptId, from: u64) -> HistoryFuture<'_, u64> {
        self.through(self.inner.output_end(attempt, from))
    }
    fn output_lines(
        &self,
        attempt: AttemptId,
        from: u64,
        limit: usize,
    ) -> HistoryFuture<'_, Vec<SegmentLines>> {
        self.through(self.inner.output_lines(attempt, from, limit))
    }
    fn attempt(&self, id: AttemptId) -> HistoryFuture<'_, Option<AttemptRecord>> {
        self.through(self.inner.attempt(id))
    }
    fn executions(&self, query: ExecutionQuery) -> HistoryFuture<'_, Page<ExecutionRecord>> {
        self.through(self.inner.executions(query))
    }
    fn runs(&self, query: RunQuery) -> HistoryFuture<'_, Page<RunRecord>> {
        self.through(self.inner.runs(query))
    }
    fn record_audit_heads(&self, heads: Vec<AuditHeadRecord>) -> HistoryFuture<'_, ()> {
        self.through(self.inner.record_audit_heads(heads))
    }
    fn audit_heads(&self, query: AuditHeadQuery) -> HistoryFuture<'_, Page<AuditHeadRecord>> {
        self.through(self.inner.audit_heads(query))
    }
}
