//! Metrics of the reconcile loop and its work queue, under the names of controller-runtime and client-go, so that the
//! dashboards and alerts that people have for other operators work for this one; and Runs by who asked for them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sentinel_core::reconcile::conditions::{AWAITING_APPROVAL, CEILING_EXCEEDED, CEILINGS_UNREADABLE};
use tokio::time::Instant;

use crate::metrics::{Counter, Gauge, Held, Histogram, Kind, Labels, Registry, TIMES};
use crate::resource::stamp::Unverified;

/// The label of the one controller that there is.
const CONTROLLER: Labels<'static> = &[("controller", "task")];

/// The labels of its work queue.
const QUEUE: Labels<'static> = &[("controller", "task"), ("name", "task")];

/// Upper bounds of the buckets of controller-runtime for reconciles, in seconds.
const RECONCILE_TIMES: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25,
    1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0,
    50.0, 60.0,
];

/// That who asked is known, as a label.
pub(super) const KNOWN: &str = "Known";

/// The annotation that asks for the Run has no stamp.
const RERUN_NOT_STAMPED: &str = "RerunNotStamped";

/// Runs by whether it is known who asked for them.
#[derive(Debug, Clone)]
pub(super) struct RequesterMetrics(Vec<(&'static str, Counter)>);

impl RequesterMetrics {
    pub(super) fn new(metrics: &Registry) -> Self {
        let help = "Runs begun, by whether it is known who asked for them: Known, or why not.";
        let counter = |requester| {
            let labels = [("requester", requester)];
            (requester, metrics.counter_with("sentinel_run_requesters_total", help, &labels))
        };
        let unknown = Unverified::ALL.map(Unverified::as_str);
        Self([KNOWN, RERUN_NOT_STAMPED].into_iter().chain(unknown).map(counter).collect())
    }

    /// Counts a Run that begins.
    pub(super) fn count(&self, requester: &str) {
        if let Some((_, counter)) = self.0.iter().find(|(name, _)| *name == requester) {
            counter.add(1);
        }
    }
}

/// The reasons for which a Run that is due does not begin.
pub(super) const HELD: [&str; 3] = [CEILING_EXCEEDED, AWAITING_APPROVAL, CEILINGS_UNREADABLE];

/// Metrics of ceilings.
pub(super) struct CeilingMetrics {
    pub(super) held: [Counter; 3],
    pub(super) approved: Counter,
}

impl CeilingMetrics {
    pub(super) fn new(metrics: &Registry) -> Self {
        unreadable_ceilings(metrics);
        let held = HELD.map(|reason| {
            let help = "Runs that were due and did not begin because of a ceiling, by reason; each counted once per reason.";
            metrics.counter_with("sentinel_runs_held_total", help, &[("reason", reason)])
        });
        let help = "Runs that began because another person than their author approved them.";
        Self { held, approved: metrics.counter("sentinel_runs_approved_total", help) }
    }
}

/// Whether the file of ceilings can be used.
pub(super) fn unreadable_ceilings(metrics: &Registry) -> Gauge {
    let help = "1 while the file of ceilings cannot be used, so that no Run begins, else 0.";
    metrics.gauge("sentinel_ceilings_unreadable", help)
}

/// How a reconcile ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReconcileResult {
    /// Nothing is to be done before a change.
    Success,
    /// It failed, and is retried.
    Error,
    /// It is due again at a given time.
    RequeueAfter,
}

/// Metrics of reconciles. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct ReconcileMetrics {
    results: [Counter; 3],
    errors: Counter,
    panics: Counter,
    time: Histogram,
    active: Gauge,
    retries: Counter,
}

impl ReconcileMetrics {
    pub(super) fn new(metrics: &Registry, max_concurrent: usize) -> Self {
        let result = |result| {
            let help = "Reconciles by result.";
            let labels = [("controller", "task"), ("result", result)];
            metrics.counter_with("controller_runtime_reconcile_total", help, &labels)
        };
        let help = "Most reconciles at the same time.";
        let name = "controller_runtime_max_concurrent_reconciles";
        metrics.gauge_with(name, help, CONTROLLER).set(max_concurrent as i64);
        Self {
            results: ["success", "error", "requeue_after"].map(result),
            errors: metrics.counter_with(
                "controller_runtime_reconcile_errors_total",
                "Reconciles that failed.",
                CONTROLLER,
            ),
            panics: metrics.counter_with(
                "controller_runtime_reconcile_panics_total",
                "Reconciles that panicked; they count as failed too.",
                CONTROLLER,
            ),
            time: metrics.histogram_in(
                "controller_runtime_reconcile_time_seconds",
                "Time that a reconcile took.",
                CONTROLLER,
                RECONCILE_TIMES,
            ),
            active: metrics.gauge_with(
                "controller_runtime_active_workers",
                "Reconciles that are under way.",
                CONTROLLER,
            ),
            retries: metrics.counter_with(
                "workqueue_retries_total",
                "Tasks queued again because their reconcile failed.",
                QUEUE,
            ),
        }
    }

    /// A reconcile begins.
    pub(super) fn begin(&self) -> Reconciling<'_> {
        Reconciling { metrics: self, began: Instant::now(), _active: self.active.hold() }
    }

    /// A reconcile panicked.
    pub(super) fn panicked(&self) {
        self.panics.add(1);
    }
}

/// A reconcile that is under way.
#[derive(Debug)]
pub(super) struct Reconciling<'a> {
    metrics: &'a ReconcileMetrics,
    began: Instant,
    _active: Held,
}

impl Reconciling<'_> {
    pub(super) fn end(self, result: ReconcileResult) {
        let [success, error, requeue_after] = &self.metrics.results;
        match result {
            ReconcileResult::Success => success.add(1),
            ReconcileResult::RequeueAfter => requeue_after.add(1),
            ReconcileResult::Error => {
                error.add(1);
                self.metrics.errors.add(1);
                self.metrics.retries.add(1);
            }
        }
        self.metrics.time.observe(self.began.elapsed());
    }
}

/// Metrics of the work queue. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct QueueMetrics {
    depth: Gauge,
    adds: Counter,
    waited: Histogram,
    worked: Histogram,
    working: Arc<Mutex<Working>>,
}

/// When the items that are being worked on were taken.
#[derive(Debug, Default)]
struct Working {
    next: u64,
    since: BTreeMap<u64, Instant>,
}

impl QueueMetrics {
    pub(super) fn new(metrics: &Registry) -> Self {
        let working = Arc::<Mutex<Working>>::default();
        let of_working = |name, help, value: fn(&mut dyn Iterator<Item = Duration>) -> Duration| {
            let working = working.clone();
            metrics.computed(Kind::Gauge, name, help, QUEUE, move || {
                let working = working.lock().unwrap_or_else(PoisonError::into_inner);
                value(&mut working.since.values().map(Instant::elapsed)).as_secs_f64()
            });
        };
        let help = "Seconds of work that is under way, all of it together.";
        of_working("workqueue_unfinished_work_seconds", help, |times| times.sum());
        let help = "Seconds that the longest of the work that is under way has taken so far.";
        of_working("workqueue_longest_running_processor_seconds", help, |times| {
            times.max().unwrap_or_default()
        });
        let histogram = |name, help| metrics.histogram_in(name, help, QUEUE, TIMES);
        Self {
            depth: metrics.gauge_with("workqueue_depth", "Tasks that are ready to be reconciled.", QUEUE),
            adds: metrics.counter_with("workqueue_adds_total", "Tasks added to the work queue.", QUEUE),
            waited: histogram(
                "workqueue_queue_duration_seconds",
                "Time that a Task was ready before its reconcile began.",
            ),
            worked: histogram(
                "workqueue_work_duration_seconds",
                "Time from taking a Task off the work queue until its reconcile was over.",
            ),
            working,
        }
    }

    /// The queue has this many ready items, of this many that were added since the last call.
    pub(super) fn note(&self, depth: usize, added: u64) {
        self.depth.set(depth as i64);
        self.adds.add(added);
    }

    /// An item that was ready for `waited` is taken.
    pub(super) fn take(&self, waited: Duration) -> Work {
        self.waited.observe(waited);
        let began = Instant::now();
        let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        let id = working.next;
        working.next += 1;
        working.since.insert(id, began);
        Work { metrics: self.clone(), id, began }
    }
}

/// Counts as work under way until it is dropped.
#[derive(Debug)]
pub(super) struct Work {
    metrics: QueueMetrics,
    id: u64,
    began: Instant,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.metrics.worked.observe(self.began.elapsed());
        let mut working = self.metrics.working.lock().unwrap_or_else(PoisonError::into_inner);
        working.since.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_under_way_is_measured_until_it_is_over() {
        let registry = Registry::new();
        let queue = QueueMetrics::new(&registry);
        let shows = |line: &str| {
            let text = registry.render();
            let series = line.replace(' ', "{controller=\"task\",name=\"task\"} ");
            assert!(text.lines().any(|rendered| rendered == series), "no {series:?} in\n{text}");
        };
        queue.note(3, 5);
        let first = queue.take(Duration::from_secs(2));
        tokio::time::advance(Duration::from_secs(4)).await;
        let second = queue.take(Duration::ZERO);
        tokio::time::advance(Duration::from_secs(1)).await;
        shows("workqueue_depth 3");
        shows("workqueue_adds_total 5");
        shows("workqueue_unfinished_work_seconds 6");
        shows("workqueue_longest_running_processor_seconds 5");
        shows("workqueue_queue_duration_seconds_sum 2.0");
        drop(first);
        shows("workqueue_longest_running_processor_seconds 1");
        drop(second);
        shows("workqueue_unfinished_work_seconds 0");
        shows("workqueue_work_duration_seconds_sum 6.0");
        shows("workqueue_work_duration_seconds_count 2");
    }

    #[test]
    fn a_failed_reconcile_is_an_error_and_a_retry() {
        let registry = Registry::new();
        let reconciles = ReconcileMetrics::new(&registry, 32);
        reconciles.begin().end(ReconcileResult::Success);
        let under_way = reconciles.begin();
        reconciles.begin().end(ReconcileResult::Error);
        let text = registry.render();
        drop(under_way);
        for line in [
            "controller_runtime_reconcile_total{controller=\"task\",result=\"success\"} 1",
            "controller_runtime_reconcile_total{controller=\"task\",result=\"error\"} 1",
            "controller_runtime_reconcile_total{controller=\"task\",result=\"requeue_after\"} 0",
            "controller_runtime_reconcile_errors_total{controller=\"task\"} 1",
            "controller_runtime_reconcile_time_seconds_count{controller=\"task\"} 2",
            "controller_runtime_active_workers{controller=\"task\"} 1",
            "controller_runtime_max_concurrent_reconciles{controller=\"task\"} 32",
            "workqueue_retries_total{controller=\"task\",name=\"task\"} 1",
        ] {
            assert!(text.lines().any(|rendered| rendered == line), "no {line:?} in\n{text}");
        }
    }
}
