//! What every look at a Task needs, and how often what happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sentinel_core::reconcile::conditions::Archive;
use sentinel_core::time::Now;
use sentinel_protocol::ids::Epoch;
use tokio::sync::Semaphore;

use super::fleet::Fleet;
use super::lead::Lead;
use super::ledgers::Ledgers;
use super::moments::Moments;
use super::slots::Slots;
use crate::cluster::{Cluster, NodeCache};
use crate::history::History;
use crate::history::archive::Archiver;

/// History lags behind when something has waited for it as long as this.
const BEHIND_AFTER: Duration = Duration::from_secs(5);

/// Cluster events that may be on their way at once; more are dropped.
const EVENTS_AT_ONCE: usize = 16;

/// What the controller is made of.
#[derive(Clone)]
pub struct Parts {
    /// Where Tasks and Nodes live.
    pub cluster: Arc<dyn Cluster>,
    /// The agents.
    pub fleet: Arc<dyn Fleet>,
    /// What is known of every Run.
    pub ledgers: Ledgers,
    /// What is archived, asked after a restart.
    pub history: Arc<dyn History>,
    /// The way into the archive.
    pub archiver: Archiver,
    /// All Nodes.
    pub nodes: NodeCache,
    /// The clocks.
    pub moments: Moments,
    /// Whether this operator leads.
    pub lead: Lead,
}

/// The parts, and what is remembered from look to look.
pub(super) struct Context {
    pub(super) parts: Parts,
    pub(super) slots: Slots,
    pub(super) events: Arc<Semaphore>,
    pub(super) counters: Arc<Counters>,
}

impl Context {
    pub(super) fn new(parts: Parts, counters: Arc<Counters>) -> Self {
        let events = Arc::new(Semaphore::new(EVENTS_AT_ONCE));
        Self { parts, slots: Slots::default(), events, counters }
    }

    /// The epoch of this operator's lead. Only looks ask, and nobody looks without the lead; 0 is obeyed by no agent.
    pub(super) fn epoch(&self) -> Epoch {
        self.parts.lead.led().map_or(Epoch::ZERO, |led| led.epoch)
    }

    /// Since when this operator leads.
    pub(super) fn leading_since(&self) -> Now {
        self.parts.lead.led().map_or_else(|| self.parts.moments.now(), |led| led.since)
    }

    /// Whether History keeps up.
    pub(super) fn archive(&self) -> Archive {
        let status = self.parts.archiver.status();
        if status.is_up && status.lag < BEHIND_AFTER { Archive::Current } else { Archive::Behind }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// How often what happened since the start, for metrics.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)+
        }

        impl Counters {
            /// Names and values, as they are now.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)+]
            }
        }
    };
}

counters! {
    /// Looks at a Task.
    looks,
    /// Looks that failed.
    failed_looks,
    /// Looks that panicked.
    panicked_looks,
    /// Statuses written.
    status_writes,
    /// Writes refused because the Task had changed meanwhile.
    conflicts,
    /// Runs begun.
    runs_begun,
    /// Runs ended.
    runs_ended,
    /// `Start` messages handed to Sessions.
    starts,
    /// Attempts that follow one that ended.
    retries,
    /// `Cancel` messages handed to Sessions.
    cancels,
    /// `Forget` messages handed to Sessions.
    forgets,
    /// Messages that no Session could take.
    undelivered,
    /// Records that the archiver could not take.
    unarchived,
    /// Cluster events dropped because too many were on their way, or published shortly before.
    dropped_events,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
