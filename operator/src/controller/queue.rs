//! Which Tasks are to be looked at, and when: never one twice at once, and never more than so many.
//!
//! ```text
//!   now ──▶ due, in order ──next──▶ looked at ──done──▶ (asked for meanwhile: due again)
//!              ▲                                  └───▶ later, by the clock
//!              └────────── its time has come ─────────────┘
//! ```
//!
//! Our own, because kube's controller passes every request through a timer that counts whole milliseconds and rounds
//! them up: about 2 ms before each look, also at what is due at once. It knows no clock and waits for nothing itself.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use sentinel_protocol::ids::TaskRef;
use tokio::time::Instant;

/// Tasks that are to be looked at. Bounded by the number of Tasks.
#[derive(Debug)]
pub(super) struct Queue {
    at_once: usize,
    looked_at: HashSet<TaskRef>,
    /// Those to be looked at as soon as there is room; a Task that is being looked at waits for its end.
    due: VecDeque<TaskRef>,
    /// Every Task in `due` (`None`) or `later` (`Some`). None is in both.
    asked: HashMap<TaskRef, Option<Instant>>,
    later: BTreeSet<(Instant, TaskRef)>,
}

impl Queue {
    /// An empty queue that hands out at most `at_once` Tasks at once.
    pub(super) fn new(at_once: usize) -> Self {
        let (looked_at, due, asked, later) = Default::default();
        Self { at_once, looked_at, due, asked, later }
    }

    /// To be looked at as soon as possible. Asking again before that changes nothing.
    pub(super) fn now(&mut self, task: TaskRef) {
        match self.asked.insert(task.clone(), None) {
            Some(None) => return,
            Some(Some(at)) => drop(self.later.remove(&(at, task.clone()))),
            None => {}
        }
        self.due.push_back(task);
    }

    /// To be looked at then, unless it is anyway before.
    fn at(&mut self, at: Instant, task: TaskRef) {
        match self.asked.get(&task) {
            Some(None) => return,
            Some(Some(before)) if *before <= at => return,
            Some(Some(before)) => drop(self.later.remove(&(*before, task.clone()))),
            None => {}
        }
        self.asked.insert(task.clone(), Some(at));
        self.later.insert((at, task));
    }

    /// The next Task to be looked at, if there is one and there is room. Its look ends with [`Queue::done`].
    pub(super) fn next(&mut self, now: Instant) -> Option<TaskRef> {
        while self.later.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, task)) = self.later.pop_first() else { break };
            self.asked.insert(task.clone(), None);
            self.due.push_back(task);
        }
        if self.looked_at.len() >= self.at_once {
            return None;
        }
        let free = self.due.iter().position(|task| !self.looked_at.contains(task))?;
        let task = self.due.remove(free)?;
        self.asked.remove(&task);
        self.looked_at.insert(task.clone());
        Some(task)
    }

    /// The look at this Task is over; it is looked at again `again`, if nothing asks for it before.
    pub(super) fn done(&mut self, task: TaskRef, again: Option<Instant>) {
        self.looked_at.remove(&task);
        if let Some(at) = again {
            self.at(at, task);
        }
    }

    /// When the clock makes the next Task due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn task(name: &str) -> TaskRef {
        TaskRef::new("ns", name).unwrap()
    }

    fn ready(queue: &mut Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| queue.next(now)).map(|task| task.name.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_for_is_there_at_once_in_order_and_once() {
        let (mut queue, now) = (Queue::new(8), Instant::now());
        for name in ["b", "a", "b", "c", "a"] {
            queue.now(task(name));
        }
        assert_eq!(ready(&mut queue, now), ["b", "a", "c"], "no clock has to move for it");
        assert_eq!(queue.next_at(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_is_never_looked_at_twice_at_once_and_again_when_it_was_asked_for_meanwhile() {
        let (mut queue, now) = (Queue::new(8), Instant::now());
        queue.now(task("a"));
        assert_eq!(ready(&mut queue, now), ["a"]);
        queue.now(task("a"));
        queue.now(task("b"));
        queue.now(task("a"));
        assert_eq!(ready(&mut queue, now), ["b"], "a is still looked at, and holds nobody up");
        queue.done(task("a"), None);
        assert_eq!(ready(&mut queue, now), ["a"]);
        queue.done(task("a"), None);
        queue.done(task("b"), None);
        assert!(ready(&mut queue, now).is_empty(), "it was looked at after the last cause");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_looked_at_than_there_is_room_for() {
        let (mut queue, now) = (Queue::new(2), Instant::now());
        for name in ["a", "b", "c"] {
            queue.now(task(name));
        }
        assert_eq!(ready(&mut queue, now), ["a", "b"]);
        queue.done(task("b"), None);
        assert_eq!(ready(&mut queue, now), ["c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_look_waits_for_its_time_and_the_earliest_counts() {
        let (mut queue, begun) = (Queue::new(8), Instant::now());
        queue.now(task("a"));
        queue.next(begun);
        queue.done(task("a"), Some(begun + Duration::from_secs(9)));
        assert_eq!(queue.next_at(), Some(begun + Duration::from_secs(9)));
        queue.now(task("a"));
        assert_eq!(queue.next_at(), None, "a look before that says anew when the next is");
        queue.next(begun);
        queue.done(task("a"), Some(begun + Duration::from_secs(5)));
        tokio::time::advance(Duration::from_millis(4999)).await;
        assert!(ready(&mut queue, Instant::now()).is_empty());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(ready(&mut queue, Instant::now()), ["a"]);
        assert_eq!(queue.next_at(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_asked_for_during_a_look_does_not_wait_for_the_time_the_look_names() {
        let (mut queue, now) = (Queue::new(8), Instant::now());
        queue.now(task("a"));
        queue.next(now);
        queue.now(task("a"));
        queue.done(task("a"), Some(now + Duration::from_secs(9)));
        assert_eq!(ready(&mut queue, now), ["a"]);
        queue.done(task("a"), None);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(ready(&mut queue, Instant::now()).is_empty(), "the later one was part of it");
    }
}
