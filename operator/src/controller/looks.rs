//! Makes the looks that are asked for, each in a task of its own: one that computes holds no other up.

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use sentinel_protocol::ids::TaskRef;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::queue::Queue;
use super::reconcile::Again;

/// Looks under way at once.
pub(super) const AT_ONCE: usize = 32;

/// What is heard of those who ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// This Task must be looked at.
    Look(TaskRef),
    /// All Tasks have been listed. Before that none is looked at: one that is not in the cache is not gone then.
    Listed,
}

/// Makes the looks until `stop`, and waits then for those under way; what only waits is given up.
pub(super) async fn make<F>(
    mut asks: impl Stream<Item = Ask> + Unpin,
    look: impl Fn(TaskRef) -> F,
    stop: &CancellationToken,
) where
    F: Future<Output = Again> + Send + 'static,
{
    let mut queue = Queue::new(AT_ONCE);
    let mut under_way = FuturesUnordered::new();
    let mut listed = false;
    loop {
        while listed && let Some(task) = queue.next(Instant::now()) {
            under_way.push(begin(look(task.clone()), task));
        }
        // Cancellation safe: what a stream or a look gives is not taken until it is returned.
        tokio::select! {
            () = stop.cancelled() => break,
            Some((task, again)) = under_way.next() => queue.done(task, again),
            Some(ask) = asks.next() => match ask {
                Ask::Look(task) => queue.now(task),
                Ask::Listed => listed = true,
            },
            () = until(queue.next_at()) => {}
        }
    }
    while under_way.next().await.is_some() {}
}

/// One look, and when the next is to be.
fn begin<F>(look: F, task: TaskRef) -> impl Future<Output = (TaskRef, Option<Instant>)>
where
    F: Future<Output = Again> + Send + 'static,
{
    let look = AbortOnDropHandle::new(tokio::spawn(async move {
        let again = look.await;
        // Whatever else is ready goes first: of many who report at once, the next look sees many.
        tokio::task::yield_now().await;
        again
    }));
    async move {
        let again = look.await.unwrap_or_else(|error| {
            tracing::error!(%task, %error, "a look ended by itself");
            Again::WhenChanged
        });
        let at = match again {
            Again::WhenChanged => None,
            Again::After(wait) => Instant::now().checked_add(wait),
        };
        (task, at)
    }
}

/// Waits for a moment; for ever when there is none.
pub(super) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use futures_util::stream;

    use super::*;

    fn task(name: &str) -> TaskRef {
        TaskRef::new("ns", name).unwrap()
    }

    /// Asks for these, then for nothing more.
    fn asks(asks: Vec<Ask>) -> impl Stream<Item = Ask> + Unpin {
        stream::iter(asks).chain(stream::pending())
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_looked_at_before_all_tasks_are_listed() {
        let (seen, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let look = |_| {
            let seen = seen.clone();
            async move {
                seen.fetch_add(1, Ordering::Relaxed);
                Again::WhenChanged
            }
        };
        let early = make(asks(vec![Ask::Look(task("a"))]), look, &stop);
        assert!(tokio::time::timeout(Duration::from_secs(9), early).await.is_err(), "it goes on");
        assert_eq!(seen.load(Ordering::Relaxed), 0);
        let later = make(asks(vec![Ask::Look(task("a")), Ask::Listed]), look, &stop);
        assert!(tokio::time::timeout(Duration::from_secs(9), later).await.is_err());
        assert_eq!(seen.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_is_looked_at_again_when_its_look_says_so_and_one_that_panics_holds_up_no_other() {
        let (begun, stop) = (Instant::now(), CancellationToken::new());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let look = |of: TaskRef| {
            let seen = seen.clone();
            async move {
                assert_ne!(of.name, "bad");
                let mut seen = seen.lock().unwrap();
                seen.push(begun.elapsed().as_secs());
                if seen.len() < 3 { Again::After(Duration::from_secs(4)) } else { Again::WhenChanged }
            }
        };
        let asked = vec![Ask::Listed, Ask::Look(task("bad")), Ask::Look(task("a"))];
        let _ = tokio::time::timeout(Duration::from_secs(99), make(asks(asked), look, &stop)).await;
        assert_eq!(*seen.lock().unwrap(), [0, 4, 8]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_waits_for_the_looks_under_way_and_begins_no_other() {
        let stop = CancellationToken::new();
        let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let look = |_| {
            let (begun, ended, stop) = (begun.clone(), ended.clone(), stop.clone());
            async move {
                begun.fetch_add(1, Ordering::Relaxed);
                stop.cancel();
                tokio::time::sleep(Duration::from_secs(5)).await;
                ended.fetch_add(1, Ordering::Relaxed);
                Again::After(Duration::from_secs(1))
            }
        };
        let asked = std::iter::once(Ask::Listed);
        let asked = asked.chain((0..AT_ONCE + 9).map(|number| Ask::Look(task(&number.to_string()))));
        make(asks(asked.collect()), look, &stop).await;
        let begun = begun.load(Ordering::Relaxed);
        assert!((1..=AT_ONCE).contains(&begun), "{begun}");
        assert_eq!(ended.load(Ordering::Relaxed), begun);
    }
}
