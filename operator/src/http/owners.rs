//! To which Task a uid belongs, which never changes: rights are asked for by namespace and name, and output is addressed by
//! uid.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sentinel_protocol::ids::TaskUid;

use crate::history::HistoryError;
use crate::history::query::RunQuery;
use crate::records::Records;

/// Tasks that are remembered; beyond that all are forgotten, and asked for again.
const MAX_KNOWN: usize = 20_000;

/// The Task of a uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
}

/// What is known of a uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owned {
    /// It is of this Task.
    By(Owner),
    /// No Run with it is known.
    Unknown,
    /// History cannot be read, for this reason.
    Uncertain(String),
}

/// The Tasks of uids that were asked for.
#[derive(Debug, Default)]
pub struct Owners(Mutex<HashMap<TaskUid, Owner>>);

impl Owners {
    /// The Task of a uid.
    ///
    /// # Errors
    /// [`HistoryError`] when History cannot read its own records.
    pub(super) async fn find(&self, records: &Records, uid: &TaskUid) -> Result<Owned, HistoryError> {
        if let Some(owner) = self.lock().get(uid) {
            return Ok(Owned::By(owner.clone()));
        }
        let query = RunQuery { task_uid: Some(uid.clone()), limit: 1, ..RunQuery::default() };
        let listed = records.runs(query).await?;
        let Some(run) = listed.items.into_iter().next() else {
            return Ok(listed.partial.map_or(Owned::Unknown, Owned::Uncertain));
        };
        let owner = Owner { namespace: run.namespace.as_str().into(), name: run.name.as_str().into() };
        let mut known = self.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(uid.clone(), owner.clone());
        Ok(Owned::By(owner))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskUid, Owner>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
