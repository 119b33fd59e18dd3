//! A History in a file that fails on request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use sentinel_operator::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use sentinel_operator::history::{
    AttemptRecord, AuditHeadQuery, AuditHeadRecord, ExecutionQuery, ExecutionRecord, History, HistoryError,
    HistoryFuture, HistoryRecord, OutputSegment, Page, RunQuery, RunRecord, SegmentLines,
};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;
use tokio::sync::watch;

/// See the module. Held to the contract of every History while it has no fault.
pub(crate) struct FaultyHistory {
    inner: EmbeddedHistory,
    fault: watch::Sender<Fault>,
    writes: AtomicU64,
    hanging: watch::Sender<u64>,
    _folder: tempfile::TempDir,
}

/// How calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Every call times out.
    Unavailable,
    /// Writes time out.
    WritesFail,
    /// Writes wait until there is another fault, or none.
    WritesHang,
    /// Reads wait until there is another fault, or none.
    ReadsHang,
    /// Writes are stored and then time out.
    ResponsesLost,
    /// Writes for [`REJECTED_NODE`] can never be stored.
    Rejects,
    /// The store has ended.
    Closed,
}

/// See [`Fault::Rejects`].
pub(crate) const REJECTED_NODE: &str = "rejected";

impl FaultyHistory {
    pub(crate) fn new() -> Arc<Self> {
        Self::with_options(EmbeddedOptions::default())
    }

    pub(crate) fn with_options(options: EmbeddedOptions) -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let inner = EmbeddedHistory::open(folder.path().join("history.db"), options).unwrap();
        let fault = watch::Sender::new(Fault::None);
        Arc::new(Self {
            inner,
            fault,
            writes: AtomicU64::new(0),
            hanging: watch::Sender::new(0),
            _folder: folder,
        })
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// The store without faults.
    pub(crate) fn inner(&self) -> &EmbeddedHistory {
        &self.inner
    }

    /// Writes that were stored.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// Waits until a read hangs.
    pub(crate) async fn until_a_read_hangs(&self) {
        self.hanging.subscribe().wait_for(|hanging| *hanging > 0).await.unwrap();
    }

    fn read<'a, T: Send + 'a>(&'a self, read: HistoryFuture<'a, T>) -> HistoryFuture<'a, T> {
        match *self.fault.borrow() {
            Fault::Unavailable => std::future::ready(Err(timed_out())).boxed(),
            Fault::ReadsHang => async move {
                self.hanging.send_modify(|hanging| *hanging += 1);
                self.fault.subscribe().wait_for(|fault| *fault != Fault::ReadsHang).await.unwrap();
                read.await
            }
            .boxed(),
            _ => read,
        }
    }

    fn write<'a>(&'a self, is_rejected: bool, write: HistoryFuture<'a, ()>) -> HistoryFuture<'a, ()> {
        async move {
            let fault = *self.fault.subscribe().wait_for(|fault| *fault != Fault::WritesHang).await.unwrap();
            match fault {
                Fault::Unavailable | Fault::WritesFail => return Err(timed_out()),
                Fault::Closed => return Err(HistoryError::Closed { action: "record" }),
                Fault::Rejects if is_rejected => {
                    let (what, message) = ("a record".to_owned(), "injected".to_owned());
                    return Err(HistoryError::Unstorable { what, message });
                }
                _ => {}
            }
            write.await?;
            self.writes.fetch_add(1, Ordering::SeqCst);
            if fault == Fault::ResponsesLost { Err(timed_out()) } else { Ok(()) }
        }
        .boxed()
    }
}

fn timed_out() -> HistoryError {
    HistoryError::TimedOut { action: "record", store: "faulty store".to_owned(), after: Duration::ZERO }
}

impl History for FaultyHistory {
    fn prepare(&self) -> HistoryFuture<'_, ()> {
        self.inner.prepare()
    }
    fn check(&self) -> HistoryFuture<'_, ()> {
        self.read(self.inner.check())
    }
    fn record(&self, records: Vec<HistoryRecord>) -> HistoryFuture<'_, ()> {
        let is_rejected = records.iter().any(
            |record| matches!(record, HistoryRecord::Attempt(a) if a.attempt.node.as_str() == REJECTED_NODE),
        );
        self.write(is_rejected, self.inner.record(records))
    }
    fn append_output(&self, segments: Vec<OutputSegment>) -> HistoryFuture<'_, ()> {
        let is_rejected = segments.iter().any(|segment| segment.attempt.node.as_str() == REJECTED_NODE);
        self.write(is_rejected, self.inner.append_output(segments))
    }
    fn output(&self, attempt: AttemptId, from: u64, max_bytes: usize) -> HistoryFuture<'_, Vec<LogRecord>> {
        self.read(self.inner.output(attempt, from, max_bytes))
    }
    fn output_end(&self, attempt: AttemptId, from: u64) -> HistoryFuture<'_, u64> {
        self.read(self.inner.output_end(attempt, from))
    }
    fn output_lines(
        &self,
        attempt: AttemptId,
        from: u64,
        limit: usize,
    ) -> HistoryFuture<'_, Vec<SegmentLines>> {
        self.read(self.inner.output_lines(attempt, from, limit))
    }
    fn attempt(&self, id: AttemptId) -> HistoryFuture<'_, Option<AttemptRecord>> {
        self.read(self.inner.attempt(id))
    }
    fn executions(&self, query: ExecutionQuery) -> HistoryFuture<'_, Page<ExecutionRecord>> {
        self.read(self.inner.executions(query))
    }
    fn runs(&self, query: RunQuery) -> HistoryFuture<'_, Page<RunRecord>> {
        self.read(self.inner.runs(query))
    }
    fn record_audit_heads(&self, heads: Vec<AuditHeadRecord>) -> HistoryFuture<'_, ()> {
        // Not counted as a write: these come by the minute, and not with what a test does.
        self.read(self.inner.record_audit_heads(heads))
    }
    fn audit_heads(&self, query: AuditHeadQuery) -> HistoryFuture<'_, Page<AuditHeadRecord>> {
        self.read(self.inner.audit_heads(query))
    }
}
