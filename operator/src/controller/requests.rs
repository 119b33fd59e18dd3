//! Reconcile requests from other parts of the operator. Level, not edge: a Task is in the set or not, so any number of
//! requests before it is taken out is one reconcile.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::Stream;
use sentinel_protocol::ids::TaskRef;

/// How soon a Task is to be reconciled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// One that has just been reconciled may rest before, so that more has changed by then.
    AfterRest,
    /// At once: there is nothing more to wait for.
    AtOnce,
}

/// The set of Tasks to be reconciled. Bounded by the number of Tasks. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct ReconcileRequests(Arc<Mutex<Dirty>>);

#[derive(Debug, Default)]
struct Dirty {
    tasks: HashMap<TaskRef, Urgency>,
    order: VecDeque<TaskRef>,
    waker: Option<Waker>,
}

impl ReconcileRequests {
    /// Requests a reconcile of this Task.
    pub fn add(&self, task: &TaskRef, urgency: Urgency) {
        let mut dirty = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let dirty = &mut *dirty;
        if let Some(known) = dirty.tasks.get_mut(task) {
            *known = urgency.max(*known);
        } else {
            dirty.tasks.insert(task.clone(), urgency);
            dirty.order.push_back(task.clone());
        }
        if let Some(waker) = dirty.waker.take() {
            waker.wake();
        }
    }

    /// The requested Tasks in order, for one reader. It never ends.
    pub fn stream(&self) -> impl Stream<Item = (TaskRef, Urgency)> + Send + Unpin + 'static {
        RequestStream(self.clone())
    }
}

struct RequestStream(ReconcileRequests);

impl Stream for RequestStream {
    type Item = (TaskRef, Urgency);

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut dirty = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(task) = dirty.order.pop_front() else {
            dirty.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        let urgency = dirty.tasks.remove(&task).unwrap_or(Urgency::AfterRest);
        Poll::Ready(Some((task, urgency)))
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
    fn requests_for_one_task_are_merged_in_the_order_of_the_first() {
        let requests = ReconcileRequests::default();
        let mut stream = requests.stream();
        for name in ["a", "b", "a", "a", "b"] {
            requests.add(&task(name), Urgency::AfterRest);
        }
        let names: Vec<String> = std::iter::from_fn(|| stream.next().now_or_never().flatten())
            .map(|(task, _)| task.name.to_string())
            .collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn a_request_made_after_the_task_was_taken_counts_again() {
        let requests = ReconcileRequests::default();
        let mut stream = requests.stream();
        requests.add(&task("a"), Urgency::AfterRest);
        assert!(stream.next().now_or_never().is_some());
        requests.add(&task("a"), Urgency::AfterRest);
        assert!(stream.next().now_or_never().is_some());
        assert!(stream.next().now_or_never().is_none());
    }

    #[test]
    fn the_most_urgent_request_for_a_task_counts() {
        let requests = ReconcileRequests::default();
        for urgency in [Urgency::AfterRest, Urgency::AtOnce, Urgency::AfterRest] {
            requests.add(&task("a"), urgency);
        }
        assert_eq!(requests.stream().next().now_or_never(), Some(Some((task("a"), Urgency::AtOnce))));
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let requests = ReconcileRequests::default();
        let mut stream = requests.stream();
        let reader = tokio::spawn(async move { stream.next().await });
        tokio::task::yield_now().await;
        requests.add(&task("a"), Urgency::AfterRest);
        assert_eq!(reader.await.unwrap().unwrap().0.name, "a");
    }
}
