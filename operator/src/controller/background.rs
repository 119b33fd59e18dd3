//! Tasks that no reconcile waits for: cluster events, lookups in History, removal of old target lists. They are owned
//! here, counted when they panic, and drained when the controller stops.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::counters::Counters;

/// The background tasks of a controller.
#[derive(Debug, Clone)]
pub(super) struct Background {
    tracker: TaskTracker,
    /// Cancelled when the controller stops: for tasks that would otherwise wait for long.
    stop: CancellationToken,
    /// Cancelled when the time to drain is over: for all.
    abort: CancellationToken,
    counters: Arc<Counters>,
}

impl Background {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        Self { tracker: TaskTracker::new(), stop, abort, counters }
    }

    /// Spawns work that is short, and is finished when the controller stops.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let (abort, counters) = (self.abort.clone(), self.counters.clone());
        let owned = async move {
            let guarded = AssertUnwindSafe(work).catch_unwind();
            if let Some(Err(_)) = abort.run_until_cancelled(guarded).await {
                Counters::add(&counters.panicked_tasks);
                tracing::error!("a background task panicked");
            }
        };
        self.tracker.spawn(owned.in_current_span());
    }

    /// Spawns work that may take long, and is cancelled when the controller stops.
    pub(super) fn spawn_until_stop(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.spawn(async move {
            stop.run_until_cancelled(work).await;
        });
    }

    /// Waits for what is short, cancels what is not, and aborts what is left after `within`.
    pub(super) async fn drain(&self, within: Duration) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(within, self.tracker.wait()).await.is_err() {
            tracing::warn!(tasks = self.tracker.len(), "drain timed out; background tasks are aborted");
            self.abort.cancel();
            self.tracker.wait().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::Ordering;

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn draining_finishes_short_work_cancels_long_and_aborts_the_rest() {
        let background = Background::new(Arc::default());
        let finished = Arc::new(Mutex::new(Vec::new()));
        let work = |name: &'static str, seconds| {
            let finished = finished.clone();
            async move {
                sleep(Duration::from_secs(seconds)).await;
                finished.lock().unwrap().push(name);
            }
        };
        background.spawn(work("short", 1));
        background.spawn(work("hangs", 999));
        background.spawn_until_stop(work("long", 2));
        let began = Instant::now();
        background.drain(Duration::from_secs(5)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        assert_eq!(*finished.lock().unwrap(), ["short"]);
        assert!(background.tracker.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_counted_and_ends_nothing_else() {
        let counters = Arc::new(Counters::default());
        let background = Background::new(counters.clone());
        background.spawn(async { panic!("a bug") });
        background.drain(Duration::from_secs(1)).await;
        assert_eq!(counters.panicked_tasks.load(Ordering::Relaxed), 1);
    }
}
