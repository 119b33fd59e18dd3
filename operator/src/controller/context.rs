//! What every reconcile needs.

use std::sync::Arc;
use std::time::Duration;

use sentinel_core::reconcile::conditions::Archive;
use sentinel_core::time::Now;
use sentinel_protocol::ids::Epoch;
use tokio::sync::Semaphore;

use super::background::Background;
use super::ceiling_file::CurrentCeilings;
use super::counters::Counters;
use super::fleet::Fleet;
use super::leadership::Leadership;
use super::metrics::{CeilingMetrics, ReconcileMetrics, RequesterMetrics};
use super::run_store::RunStore;
use super::task_cache::TaskCaches;
use super::work_queue::MAX_CONCURRENT;
use crate::audit::Audit;
use crate::clock::Clock;
use crate::cluster::{Cluster, NodeCache};
use crate::health::Health;
use crate::history::History;
use crate::history::archive::Archiver;
use crate::metrics::Registry;
use crate::resource::stamp::Stamps;

/// History lags behind when something has waited for it as long as this.
const BEHIND_AFTER: Duration = Duration::from_secs(5);

/// Cluster events in flight at once; more are dropped.
const MAX_EVENTS: usize = 16;

/// What the controller is made of.
#[derive(Clone)]
pub struct Parts {
    /// Where Tasks and Nodes live.
    pub cluster: Arc<dyn Cluster>,
    /// The agents.
    pub fleet: Arc<dyn Fleet>,
    /// The state of every Run.
    pub runs: RunStore,
    /// The archive, read after a restart.
    pub history: Arc<dyn History>,
    /// Writes to the archive.
    pub archiver: Archiver,
    /// All Nodes.
    pub nodes: NodeCache,
    /// The clock.
    pub clock: Clock,
    /// Whether this operator leads.
    pub leadership: Leadership,
    /// Where the controller's loops beat.
    pub health: Health,
    /// The metrics.
    pub metrics: Registry,
    /// By which it is known who asked for a Task.
    pub stamps: Stamps,
    /// How far Tasks may reach.
    pub ceilings: CurrentCeilings,
}

/// The parts, and what is kept between reconciles.
pub(super) struct Context {
    pub(super) parts: Parts,
    pub(super) caches: TaskCaches,
    pub(super) background: Background,
    pub(super) events: Arc<Semaphore>,
    pub(super) counters: Arc<Counters>,
    pub(super) reconciles: ReconcileMetrics,
    pub(super) requesters: RequesterMetrics,
    pub(super) ceilings: CeilingMetrics,
}

impl Context {
    pub(super) fn new(parts: Parts, counters: Arc<Counters>) -> Self {
        let events = Arc::new(Semaphore::new(MAX_EVENTS));
        let background = Background::new(counters.clone());
        let reconciles = ReconcileMetrics::new(&parts.metrics, MAX_CONCURRENT);
        let requesters = RequesterMetrics::new(&parts.metrics);
        let ceilings = CeilingMetrics::new(&parts.metrics);
        let caches = TaskCaches::default();
        Self { parts, caches, background, events, counters, reconciles, requesters, ceilings }
    }

    /// The epoch of this leader. Only reconciles read it, and a follower does not reconcile; agents refuse epoch 0.
    pub(super) fn epoch(&self) -> Epoch {
        self.parts.leadership.term().map_or(Epoch::ZERO, |term| term.epoch)
    }

    /// Where audit records go.
    pub(super) fn audit(&self) -> &Audit {
        self.parts.runs.endings().audit()
    }

    /// Since when this operator leads.
    pub(super) fn leading_since(&self) -> Now {
        self.parts.leadership.term().map_or_else(|| self.parts.clock.reading(), |term| term.since)
    }

    /// Whether History keeps up.
    pub(super) fn archive(&self) -> Archive {
        let status = self.parts.archiver.status();
        if status.is_up && status.lag < BEHIND_AFTER { Archive::Current } else { Archive::Behind }
    }
}
