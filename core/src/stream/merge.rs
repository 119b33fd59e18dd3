//! The merge of several logs into one, by time.
//!
//! Within one log the order of its items is kept whatever its clock does: an item counts as at least as late as those before
//! it. Between logs the earlier one goes first, and of equal ones that of the lower name.
//!
//! While logs grow, one that has nothing now may still have an earlier item. An item waits for it at most for the *window*;
//! what arrives later goes behind what was sent, and is marked as late. Nothing is dropped.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What the clocks show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// A clock that never jumps, microseconds.
    pub monotonic: u64,
    /// The wall clock, microseconds since the Unix epoch.
    pub wall: i64,
}

/// How long an item waits for logs that have nothing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until each of them has an item or has ended.
    ForAll,
    /// At most this long after it has arrived, microseconds.
    AtMost(u64),
}

/// An item that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged<T> {
    /// The log it is of.
    pub log: usize,
    /// The item.
    pub item: T,
    /// Whether a later one was sent before it.
    pub is_late: bool,
}

#[derive(Debug)]
struct Waiting<T> {
    at: i64,
    arrived: u64,
    cost: usize,
    item: T,
}

#[derive(Debug)]
struct Log<N, T> {
    name: N,
    items: VecDeque<Waiting<T>>,
    /// The time of its latest item.
    highest: i64,
    cost: usize,
    empty_since: u64,
    has_ended: bool,
}

/// A merge in progress of logs with names `N` and items `T`.
#[derive(Debug)]
pub struct Merge<N, T> {
    wait: Wait,
    logs: Vec<Log<N, T>>,
    /// The first item of each log that has one.
    fronts: BTreeMap<(i64, N), usize>,
    /// The same logs, by when that item arrived.
    arrivals: BTreeSet<(u64, usize)>,
    /// Logs that have none and have not ended, by when they had their last one.
    empty: BTreeSet<(u64, usize)>,
    sent: i64,
}

impl<N: Ord + Clone, T> Merge<N, T> {
    /// A merge without logs; everything before `sent` was sent by an earlier one.
    pub fn new(wait: Wait, sent: i64) -> Self {
        let (fronts, arrivals, empty) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { wait, logs: Vec::new(), fronts, arrivals, empty, sent }
    }

    /// Adds a log; returns its number. Names are unique.
    pub fn add_log(&mut self, name: N, now: Now) -> usize {
        let log = self.logs.len();
        self.logs.push(Log {
            name,
            items: VecDeque::new(),
            highest: i64::MIN,
            cost: 0,
            empty_since: now.monotonic,
            has_ended: false,
        });
        self.empty.insert((now.monotonic, log));
        log
    }

    /// The next item of a log, and the memory that it takes, bytes. Without a time it has that of the item before.
    pub fn push(&mut self, log: usize, at: Option<i64>, item: T, cost: usize, now: Now) {
        let Some(found) = self.logs.get_mut(log) else { return };
        let at = at.unwrap_or(i64::MIN);
        // Of a log that grows, nothing was written after it arrived, whatever the clock of the node shows.
        let at = if self.wait == Wait::ForAll { at } else { at.min(now.wall) };
        found.highest = found.highest.max(at);
        let at = found.highest;
        if found.items.is_empty() {
            self.empty.remove(&(found.empty_since, log));
            self.fronts.insert((at, found.name.clone()), log);
            self.arrivals.insert((now.monotonic, log));
        }
        found.cost += cost;
        found.items.push_back(Waiting { at, arrived: now.monotonic, cost, item });
    }

    /// A log will have no more items.
    pub fn end(&mut self, log: usize) {
        let Some(found) = self.logs.get_mut(log) else { return };
        found.has_ended = true;
        self.empty.remove(&(found.empty_since, log));
    }

    /// Memory that the waiting items of a log take, bytes.
    pub fn cost(&self, log: usize) -> usize {
        self.logs.get(log).map_or(0, |log| log.cost)
    }

    /// The waiting items of a log, the first one first.
    pub fn waiting(&self, log: usize) -> impl Iterator<Item = &T> {
        self.logs.get(log).into_iter().flat_map(|log| log.items.iter().map(|waiting| &waiting.item))
    }

    /// The same, to be changed, the last one first.
    pub fn waiting_mut(&mut self, log: usize) -> impl Iterator<Item = &mut T> {
        let log = self.logs.get_mut(log);
        log.into_iter().flat_map(|log| log.items.iter_mut().rev().map(|waiting| &mut waiting.item))
    }

    /// Everything before this time was sent, except what came late, microseconds since the Unix epoch.
    pub fn sent(&self) -> i64 {
        self.sent
    }

    /// The log and the item that are next, due or not.
    pub fn peek(&self) -> Option<(usize, &T)> {
        let (_, log) = self.fronts.first_key_value()?;
        Some((*log, &self.logs.get(*log)?.items.front()?.item))
    }

    /// The next item, once it is due.
    pub fn pop(&mut self, now: Now) -> Option<Merged<T>> {
        if self.due(now)? > now.monotonic {
            return None;
        }
        let (_, log) = self.fronts.pop_first()?;
        let found = self.logs.get_mut(log)?;
        let Waiting { at, arrived, cost, item } = found.items.pop_front()?;
        found.cost -= cost;
        self.arrivals.remove(&(arrived, log));
        if let Some(next) = found.items.front() {
            self.fronts.insert((next.at, found.name.clone()), log);
            self.arrivals.insert((next.arrived, log));
        } else if !found.has_ended {
            found.empty_since = now.monotonic;
            self.empty.insert((now.monotonic, log));
        }
        let is_late = at < self.sent;
        self.sent = self.sent.max(at);
        Some(Merged { log, item, is_late })
    }

    /// When the next item is due if nothing arrives, by the monotonic clock; `None` if that depends on what arrives.
    pub fn due(&self, now: Now) -> Option<u64> {
        let ((at, _), _) = self.fronts.first_key_value()?;
        let Some((latest_empty, _)) = self.empty.last() else { return Some(0) };
        let Wait::AtMost(window) = self.wait else { return None };
        // Whatever has waited for so long is sent, behind what is earlier.
        let (arrived, _) = self.arrivals.first()?;
        // What is older than the window does not wait for logs that were silent for as long.
        let ahead = at.saturating_sub(now.wall);
        let past = now.monotonic.saturating_add_signed(ahead).saturating_add(window);
        let past = past.max(latest_empty.saturating_add(window));
        Some(past.min(arrived.saturating_add(window)))
    }
}
