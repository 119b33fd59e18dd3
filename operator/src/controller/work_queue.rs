//! The work queue: which Tasks are to be reconciled and when; never one twice at a time, and never too many at once.
//!
//! ```text
//!   add ──▶ ready, in order ──get──▶ in flight ──done──▶ (added meanwhile: ready again)
//!              ▲                                   └───▶ delayed
//!              └────────────── its time has come ───────────┘
//! ```
//!
//! The words are those of client-go's workqueue. It is our own because kube's controller passes every request through
//! a timer that counts whole milliseconds and rounds up: about 2 ms before each reconcile, also of what is due at once.
//! It reads no clock and waits for nothing.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use sentinel_protocol::ids::TaskRef;
use tokio::time::Instant;

/// Reconciles in flight at once.
pub(super) const MAX_CONCURRENT: usize = 32;

/// Tasks to be reconciled. Bounded by the number of Tasks.
#[derive(Debug)]
pub(super) struct WorkQueue {
    max_in_flight: usize,
    /// Tasks in flight, and since when.
    in_flight: HashMap<TaskRef, Instant>,
    /// Tasks to be reconciled as soon as there is room; one that is in flight waits for its end.
    /// Each with the time since when it is ready.
    ready: VecDeque<(TaskRef, Instant)>,
    /// Every Task in `ready` (`None`) or in `delayed` (`Some`); never in both.
    queued: HashMap<TaskRef, Option<Instant>>,
    delayed: BTreeSet<(Instant, TaskRef)>,
    /// Tasks that became ready since [`WorkQueue::take_added`].
    added: u64,
}

impl WorkQueue {
    /// An empty queue with at most `max_in_flight` Tasks in flight.
    pub(super) fn new(max_in_flight: usize) -> Self {
        let (in_flight, ready, queued, delayed) = Default::default();
        Self { max_in_flight, in_flight, ready, queued, delayed, added: 0 }
    }

    /// Adds a Task, to be reconciled as soon as possible. Adding it again before that changes nothing.
    pub(super) fn add(&mut self, task: TaskRef, now: Instant) {
        match self.queued.insert(task.clone(), None) {
            Some(None) => return,
            Some(Some(due)) => drop(self.delayed.remove(&(due, task.clone()))),
            None => {}
        }
        self.make_ready(task, now);
    }

    fn make_ready(&mut self, task: TaskRef, since: Instant) {
        self.ready.push_back((task, since));
        self.added += 1;
    }

    /// Adds a Task, to be reconciled at `due` unless it is queued for an earlier time.
    fn add_at(&mut self, due: Instant, task: TaskRef) {
        match self.queued.get(&task) {
            Some(None) => return,
            Some(Some(earlier)) if *earlier <= due => return,
            Some(Some(later)) => drop(self.delayed.remove(&(*later, task.clone()))),
            None => {}
        }
        self.queued.insert(task.clone(), Some(due));
        self.delayed.insert((due, task));
    }

    /// The next Task, if one is ready and there is room, and how long it was ready; it is in flight until [`WorkQueue::done`].
    pub(super) fn get(&mut self, now: Instant) -> Option<(TaskRef, Duration)> {
        while self.delayed.first().is_some_and(|(due, _)| *due <= now) {
            let Some((due, task)) = self.delayed.pop_first() else { break };
            self.queued.insert(task.clone(), None);
            self.make_ready(task, due);
        }
        if self.in_flight.len() >= self.max_in_flight {
            return None;
        }
        let free = self.ready.iter().position(|(task, _)| !self.in_flight.contains_key(task))?;
        let (task, since) = self.ready.remove(free)?;
        self.queued.remove(&task);
        self.in_flight.insert(task.clone(), now);
        Some((task, now.saturating_duration_since(since)))
    }

    /// A reconcile has ended; the Task is reconciled again at `requeue`, or earlier when it is added.
    pub(super) fn done(&mut self, task: TaskRef, requeue: Option<Instant>) {
        self.in_flight.remove(&task);
        if let Some(due) = requeue {
            self.add_at(due, task);
        }
    }

    /// How many Tasks are ready.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// How many Tasks have become ready since the last call.
    pub(super) fn take_added(&mut self) -> u64 {
        std::mem::take(&mut self.added)
    }

    /// When the next delayed Task is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.delayed.first().map(|(due, _)| *due)
    }

    /// When the reconcile that is in flight for longest began.
    pub(super) fn oldest_in_flight(&self) -> Option<Instant> {
        self.in_flight.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str) -> TaskRef {
        TaskRef::new("ns", name).unwrap()
    }

    fn ready(queue: &mut WorkQueue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| queue.get(now)).map(|(task, _)| task.name.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn added_tasks_are_ready_at_once_in_order_and_once() {
        let (mut queue, now) = (WorkQueue::new(8), Instant::now());
        for name in ["b", "a", "b", "c", "a"] {
            queue.add(task(name), Instant::now());
        }
        assert_eq!(ready(&mut queue, now), ["b", "a", "c"], "no clock has to move for it");
        assert_eq!(queue.next_due(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_in_flight_is_not_handed_out_again_until_done() {
        let (mut queue, now) = (WorkQueue::new(8), Instant::now());
        queue.add(task("a"), Instant::now());
        assert_eq!(ready(&mut queue, now), ["a"]);
        queue.add(task("a"), Instant::now());
        queue.add(task("b"), Instant::now());
        queue.add(task("a"), Instant::now());
        assert_eq!(ready(&mut queue, now), ["b"], "a is in flight, and delays no other");
        queue.done(task("a"), None);
        assert_eq!(ready(&mut queue, now), ["a"]);
        queue.done(task("a"), None);
        queue.done(task("b"), None);
        assert!(ready(&mut queue, now).is_empty(), "it was reconciled after the last cause");
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_in_flight_are_bounded() {
        let (mut queue, now) = (WorkQueue::new(2), Instant::now());
        for name in ["a", "b", "c"] {
            queue.add(task(name), Instant::now());
        }
        assert_eq!(ready(&mut queue, now), ["a", "b"]);
        queue.done(task("b"), None);
        assert_eq!(ready(&mut queue, now), ["c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_requeued_task_waits_for_its_time_and_the_earliest_counts() {
        let (mut queue, begun) = (WorkQueue::new(8), Instant::now());
        queue.add(task("a"), Instant::now());
        queue.get(begun);
        queue.done(task("a"), Some(begun + Duration::from_secs(9)));
        assert_eq!(queue.next_due(), Some(begun + Duration::from_secs(9)));
        queue.add(task("a"), Instant::now());
        assert_eq!(queue.next_due(), None, "an earlier reconcile names the next time anew");
        queue.get(begun);
        queue.done(task("a"), Some(begun + Duration::from_secs(5)));
        tokio::time::advance(Duration::from_millis(4999)).await;
        assert!(ready(&mut queue, Instant::now()).is_empty());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(ready(&mut queue, Instant::now()), ["a"]);
        assert_eq!(queue.next_due(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_added_while_in_flight_does_not_wait_for_its_requeue() {
        let (mut queue, now) = (WorkQueue::new(8), Instant::now());
        queue.add(task("a"), Instant::now());
        queue.get(now);
        queue.add(task("a"), Instant::now());
        queue.done(task("a"), Some(now + Duration::from_secs(9)));
        assert_eq!(ready(&mut queue, now), ["a"]);
        queue.done(task("a"), None);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(ready(&mut queue, Instant::now()).is_empty(), "the delayed one was part of it");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_measured_from_when_a_task_is_ready() {
        let (mut queue, begun) = (WorkQueue::new(8), Instant::now());
        let second = Duration::from_secs(1);
        queue.add(task("a"), begun);
        queue.add(task("a"), begun + second);
        assert_eq!((queue.ready(), queue.take_added()), (1, 1));
        assert_eq!(queue.get(begun + 3 * second), Some((task("a"), 3 * second)));
        queue.done(task("a"), Some(begun + 5 * second));
        assert_eq!(
            (queue.ready(), queue.take_added()),
            (0, 0),
            "a delayed Task waits for its time, not for us"
        );
        assert_eq!(queue.get(begun + 7 * second), Some((task("a"), 2 * second)));
        assert_eq!(queue.take_added(), 1);
    }
}
