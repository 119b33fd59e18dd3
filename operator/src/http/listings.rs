//! The logs of Runs as they were listed a moment ago, so that a Run is listed as often for many followers as for one.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sentinel_protocol::ids::{Namespace, NodeName, RunNumber, TaskUid};
use tokio::time::Instant;

use super::error::ApiError;
use crate::logs::merged::MergedLog;

/// How old a list may be.
const FRESH: Duration = Duration::from_millis(500);

/// Which logs are listed: namespace, Task, Run and nodes.
pub(super) type RunLogsName = (Option<Namespace>, TaskUid, RunNumber, BTreeSet<NodeName>);

/// The logs of a Run.
#[derive(Debug, Clone)]
pub(super) struct FoundLogs {
    /// Name of the Task.
    pub(super) task: String,
    /// By node and Attempt.
    pub(super) logs: Vec<MergedLog>,
    /// Whether each Execution has ended: no other log begins.
    pub(super) are_all: bool,
}

/// The lists that have followers. Cloning it shares them.
#[derive(Debug, Clone, Default)]
pub struct Listings(Arc<Mutex<HashMap<RunLogsName, Weak<Listing>>>>);

/// The last list of the logs of a Run.
#[derive(Debug, Default)]
pub(super) struct Listing(tokio::sync::Mutex<Option<(Instant, FoundLogs)>>);

impl Listings {
    /// The one that followers of these logs share, as long as one of them has it.
    pub(super) fn of(&self, logs: RunLogsName) -> Arc<Listing> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, listing| listing.strong_count() > 0);
        let known = all.get(&logs).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let new = Arc::new(Listing::default());
            all.insert(logs, Arc::downgrade(&new));
            new
        })
    }
}

impl Listing {
    /// The logs that the Run had a moment ago, or has now. One follower lists while others wait for its answer. Cancel safe.
    ///
    /// # Errors
    /// Those of listing.
    pub(super) async fn find(
        &self,
        list: impl Future<Output = Result<FoundLogs, ApiError>>,
    ) -> Result<FoundLogs, ApiError> {
        let mut last = self.0.lock().await;
        if let Some((at, found)) = &*last
            && at.elapsed() < FRESH
        {
            return Ok(found.clone());
        }
        let found = list.await?;
        *last = Some((Instant::now(), found.clone()));
        Ok(found)
    }
}
