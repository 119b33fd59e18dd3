//! Who must be looked at. Level, not edge: a Task is in the set or it is not, so any number of causes is one look.

use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::Stream;
use sentinel_protocol::ids::TaskRef;

/// The set of Tasks to be looked at. Bounded by the number of Tasks. Cloning it gives the same set.
#[derive(Debug, Clone, Default)]
pub struct Wake(Arc<Mutex<Dirty>>);

#[derive(Debug, Default)]
struct Dirty {
    waiting: HashSet<TaskRef>,
    order: VecDeque<TaskRef>,
    waker: Option<Waker>,
}

impl Wake {
    /// This Task must be looked at.
    pub fn task(&self, task: &TaskRef) {
        let mut dirty = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if dirty.waiting.insert(task.clone()) {
            dirty.order.push_back(task.clone());
        }
        if let Some(waker) = dirty.waker.take() {
            waker.wake();
        }
    }

    /// The Tasks to be looked at, as they come, for one reader.
    pub fn stream(&self) -> impl Stream<Item = TaskRef> + Send + Unpin + 'static {
        WakeStream(self.clone())
    }
}

struct WakeStream(Wake);

impl Stream for WakeStream {
    type Item = TaskRef;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut dirty = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(task) = dirty.order.pop_front() else {
            dirty.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        dirty.waiting.remove(&task);
        Poll::Ready(Some(task))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    fn task(name: &str) -> TaskRef {
        TaskRef::new("ns", name).unwrap()
    }

    #[test]
    fn many_causes_are_one_look_in_the_order_of_the_first() {
        let wake = Wake::default();
        let mut stream = wake.stream();
        for name in ["a", "b", "a", "a", "b"] {
            wake.task(&task(name));
        }
        let names: Vec<String> = std::iter::from_fn(|| stream.next().now_or_never().flatten())
            .map(|seen| seen.name.to_string())
            .collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn a_task_that_is_woken_while_it_is_looked_at_is_looked_at_again() {
        let wake = Wake::default();
        let mut stream = wake.stream();
        wake.task(&task("a"));
        assert!(stream.next().now_or_never().is_some());
        wake.task(&task("a"));
        assert!(stream.next().now_or_never().is_some());
        assert!(stream.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let wake = Wake::default();
        let mut stream = wake.stream();
        let reader = tokio::spawn(async move { stream.next().await });
        tokio::task::yield_now().await;
        wake.task(&task("a"));
        assert_eq!(reader.await.unwrap().unwrap().name, "a");
    }
}
