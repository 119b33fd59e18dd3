//! The cluster events of an embedded cluster.

use std::collections::VecDeque;

use sentinel_core::reconcile::Notice;
use sentinel_protocol::ids::TaskRef;
use sentinel_protocol::time::UnixMillis;

/// Most events that are kept; beyond that, the oldest is dropped.
const MAX_EVENTS: usize = 1000;

/// A cluster event.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The Task it is about.
    pub task: TaskRef,
    /// Its content.
    pub notice: Notice,
    /// When it was published last.
    pub at: UnixMillis,
    /// How often it was published.
    pub count: u32,
}

/// All events, oldest first.
#[derive(Debug, Default)]
pub(super) struct Events(VecDeque<Published>);

impl Events {
    /// Publishes an event. The same notice again adds to its count, as the series of an API server do.
    pub(super) fn publish(&mut self, task: TaskRef, notice: &Notice, at: UnixMillis) {
        if let Some(known) = self.0.iter_mut().find(|known| known.task == task && known.notice == *notice) {
            known.count = known.count.saturating_add(1);
            known.at = at;
            return;
        }
        self.0.push_back(Published { task, notice: notice.clone(), at, count: 1 });
        while self.0.len() > MAX_EVENTS {
            self.0.pop_front();
        }
    }

    pub(super) fn all(&self) -> Vec<Published> {
        self.0.iter().cloned().collect()
    }
}
