//! What the API answers from: every handler reads this, and changes Tasks by [`TaskStore`] only.

use std::sync::Arc;

use sentinel_protocol::ids::Namespace;
use sentinel_viewer::BasePath;
use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use super::feed::Feed;
use super::listings::Listings;
use super::owners::Owners;
use crate::audit::Audit;
use crate::clock::Clock;
use crate::cluster::{StoresByCaller, TaskStore};
use crate::gateway::Registry;
use crate::health::Health;
use crate::identity::local::Owner;
use crate::logs::LogReader;
use crate::metrics::Registry as MetricsRegistry;
use crate::records::Records;
use crate::resource::stamp::Stamps;
use crate::server::Shares;

/// Most open streams (followed logs, events), in all and for each client.
pub const MAX_STREAMS: (usize, usize) = (1_000, 500);

/// Most lists of Tasks that are made or read at once, in all and for each client.
pub const MAX_LISTS: (usize, usize) = (64, 32);

/// Most logs that are merged at once, in all and for each client; one that is merged for two readers counts twice. Each takes
/// some KiB, however little its reader may hold.
pub const MAX_MERGED: (usize, usize) = (8_192, 4_096);

/// Most answers that are compressed at once, in all and for each client: each takes up to half a MiB.
pub const MAX_COMPRESSED: (usize, usize) = (64, 32);

/// What the API answers from.
pub struct Api {
    /// The Tasks. It cannot write a status: that is the controller's alone.
    pub store: Arc<dyn TaskStore>,
    /// The only namespace that this operator serves; `None` for all.
    pub within: Option<Namespace>,
    /// Where an ingress has page and API, besides the root.
    pub base_path: BasePath,
    /// Where a Task is changed with the credentials of a caller; `None` where callers have none.
    pub by_caller: Option<Arc<dyn StoresByCaller>>,
    /// Whose the API is, where that is one user of this machine.
    pub owner: Option<Owner>,
    /// To which Tasks uids belong.
    pub owners: Owners,
    /// All Tasks and Nodes as last observed, with notices of changes.
    pub feed: Feed,
    /// Runs and Executions, active and archived.
    pub records: Records,
    /// The connected agents.
    pub registry: Registry,
    /// Output.
    pub logs: LogReader,
    /// The logs of the Runs that are followed.
    pub listings: Listings,
    /// By which approvals are signed, and by which it is known who asked for a Task.
    pub stamps: Stamps,
    /// Where it is recorded who read output, and who was denied.
    pub audit: Audit,
    /// Metrics of this process.
    pub metrics: MetricsRegistry,
    /// Liveness and readiness of this process.
    pub health: Health,
    /// Wall clock and monotonic clock.
    pub clock: Clock,
    /// Silence after which a node counts as unreachable, milliseconds.
    pub dead_after_ms: u64,
    /// Bounds the open streams.
    pub streams: Shares,
    /// Bounds the lists of Tasks.
    pub lists: Shares,
    /// Bounds the logs that are merged.
    pub merged: Shares,
    /// Bounds the answers that are compressed; further ones are sent as they are.
    pub compressed: Shares,
    /// Cancelled at shutdown: streams end too.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// Refuses a namespace that this operator does not serve.
    ///
    /// # Errors
    /// 404 that names the one it serves.
    pub(super) fn check_namespace(&self, namespace: &Namespace) -> Result<(), ApiError> {
        match &self.within {
            Some(within) if within != namespace => {
                let message = format!(
                    "this operator serves namespace {within} only (--watch-namespace); name that one, or ask another operator"
                );
                Err(ApiError::not_found(message).at("namespace", namespace, within.as_str()))
            }
            _ => Ok(()),
        }
    }
}
