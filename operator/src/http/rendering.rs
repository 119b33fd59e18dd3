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
    /// Those with progress that is not in the status yet, by uid: the bytes alone show whether they are the same.
    ahead: HashMap<String, Weak<Vec<u8>>>,
    prune_at: usize,
}

impl Cache {
    /// Removes entries without a reader, now and then.
    fn prune(&mut self) {
        if self.tasks.len() + self.ahead.len() >= self.prune_at.max(PRUNE_FROM) {
            self.tasks.retain(|_, (_, bytes)| bytes.strong_count() > 0);
            self.ahead.retain(|_, bytes| bytes.strong_count() > 0);
            self.prune_at = (self.tasks.len() + self.ahead.len()) * 2;
        }
    }
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
        known.prune();
        known.tasks.insert(uid.clone(), (version.clone(), Arc::downgrade(&made)));
        Ok(Bytes::from_owner(SharedBytes(made)))
    }

    /// The same, of a Task with progress that its version does not have. It is written out for each reader, and what equals the latest
    /// shares its bytes.
    ///
    /// # Errors
    /// 500 when it has no JSON form.
    pub(super) fn ahead(&self, task: &Task) -> Result<Bytes, ApiError> {
        let made = render(task)?;
        let Some(uid) = &task.metadata.uid else { return Ok(made.into()) };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = known.ahead.get(uid).and_then(Weak::upgrade).filter(|latest| **latest == made);
        let shared = latest.unwrap_or_else(|| {
            let made = Arc::new(made);
            known.prune();
            known.ahead.insert(uid.clone(), Arc::downgrade(&made));
            made
        });
        Ok(Bytes::from_owner(SharedBytes(shared)))
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
    use crate::resource::status::TaskStatus;

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

    /// A hundred readers of one large Task held a copy each while its Run had made progress that its status did not have yet.
    #[test]
    fn readers_of_the_same_progress_share_its_bytes() {
        let renderings = Renderings::default();
        let with_phase = |phase: &str| {
            let mut task = task("u", "1");
            task.status = Some(TaskStatus { phase: Some(phase.to_owned()), ..TaskStatus::default() });
            task
        };
        let first = renderings.ahead(&with_phase("Running")).unwrap();
        let again = renderings.ahead(&with_phase("Running")).unwrap();
        assert_eq!(first.as_ptr(), again.as_ptr());
        let later = renderings.ahead(&with_phase("Succeeded")).unwrap();
        assert_ne!((first.as_ptr(), &first), (later.as_ptr(), &later));
        drop((first, again, later));
        assert_eq!(
            renderings.0.lock().unwrap().ahead["u"].strong_count(),
            0,
            "it has no reader and is still held"
        );
    }
}
