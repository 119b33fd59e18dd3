//! Tasks as JSON, serialized once for each version and shared by its readers: a thousand readers of one Task hold its bytes
//! once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

use super::error::ApiError;
use crate::resource::Task;
use crate::resource::presented::present;

/// Number of entries from which those without a reader are removed.
const PRUNE_FROM: usize = 64;

/// The bytes that readers hold. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Renderings(Arc<Mutex<Cache>>);

#[derive(Debug, Default)]
struct Cache {
    /// By uid: the version, and its bytes while a reader holds them.
    tasks: HashMap<String, (String, Weak<Vec<u8>>)>,
    prune_at: usize,
}

/// Bytes of a rendering.
struct SharedBytes(Arc<Vec<u8>>);

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Renderings {
    /// The bytes of [`render`].
    ///
    /// # Errors
    /// 500 when it has no JSON form.
    pub(super) fn of(&self, task: &Task) -> Result<Bytes, ApiError> {
        let (Some(uid), Some(version)) = (&task.metadata.uid, &task.metadata.resource_version) else {
            return render(task).map(Bytes::from);
        };
        if let Some(known) = self.known(uid, version) {
            return Ok(Bytes::from_owner(SharedBytes(known)));
        }
        let made = Arc::new(render(task)?);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.tasks.len() >= known.prune_at.max(PRUNE_FROM) {
            known.tasks.retain(|_, (_, bytes)| bytes.strong_count() > 0);
            known.prune_at = known.tasks.len() * 2;
        }
        known.tasks.insert(uid.clone(), (version.clone(), Arc::downgrade(&made)));
        Ok(Bytes::from_owner(SharedBytes(made)))
    }

    fn known(&self, uid: &str, version: &str) -> Option<Arc<Vec<u8>>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, bytes) = known.tasks.get(uid)?;
        if at == version { bytes.upgrade() } else { None }
    }
}

/// A Task as the API shows it: with the status of its latest request (see [`present`]), and without `managedFields`.
///
/// # Errors
/// 500 when it has no JSON form.
pub(super) fn render(task: &Task) -> Result<Vec<u8>, ApiError> {
    let failed = |error| ApiError::internal(format!("failed to write a Task as JSON: {error}"));
    let mut task = present(task);
    if task.metadata.managed_fields.is_some() {
        task.to_mut().metadata.managed_fields = None;
    }
    serde_json::to_vec(&*task).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::TaskSpec;

    fn task(uid: &str, version: &str) -> Task {
        let mut task = Task::new("t", TaskSpec::stand_in());
        task.metadata.uid = Some(uid.to_owned());
        task.metadata.resource_version = Some(version.to_owned());
        task
    }

    #[test]
    fn readers_of_one_version_share_its_bytes_until_the_last_is_gone() {
        let renderings = Renderings::default();
        let first = renderings.of(&task("u", "1")).unwrap();
        let again = renderings.of(&task("u", "1")).unwrap();
        assert_eq!(first.as_ptr(), again.as_ptr());
        let newer = renderings.of(&task("u", "2")).unwrap();
        assert_ne!(first.as_ptr(), newer.as_ptr());
        drop((first, again, newer));
        assert!(renderings.known("u", "2").is_none(), "it has no reader and is still cached");
        for number in 0..1_000 {
            renderings.of(&task(&number.to_string(), "1")).unwrap();
        }
        assert!(renderings.0.lock().unwrap().tasks.len() <= PRUNE_FROM + 1);
    }
}
