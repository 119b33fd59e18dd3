//! To which Task a uid belongs, which never changes: rights are asked for by namespace and name, and output is addressed by
//! uid.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sentinel_protocol::ids::TaskUid;

use super::error::ApiError;
use super::executions::unable;
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

/// The Tasks of uids that were asked for.
#[derive(Debug, Default)]
pub struct Owners(Mutex<HashMap<TaskUid, Owner>>);

impl Owners {
    /// The Task of a uid; `None` when it has no Run that is known.
    ///
    /// # Errors
    /// 503 when History cannot be asked.
    pub(super) async fn find(&self, records: &Records, uid: &TaskUid) -> Result<Option<Owner>, ApiError> {
        if let Some(owner) = self.lock().get(uid) {
            return Ok(Some(owner.clone()));
        }
        let query = RunQuery { task_uid: Some(uid.clone()), limit: 1, ..RunQuery::default() };
        let listed = records.runs(query).await.map_err(|error| unable(&error))?;
        let Some(run) = listed.items.into_iter().next() else {
            return match listed.partial {
                Some(partial) => Err(ApiError::unavailable(partial)),
                None => Ok(None),
            };
        };
        let owner = Owner { namespace: run.namespace.as_str().into(), name: run.name.as_str().into() };
        let mut known = self.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(uid.clone(), owner.clone());
        Ok(Some(owner))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskUid, Owner>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
