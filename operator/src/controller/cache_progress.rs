//! How far the cache of Tasks has come, and which Tasks changed last: who follows the changes need not compare all Tasks.
//!
//! Written by the controller alone. A change is noted after the cache shows it, so that a reader of the cache may be ahead of
//! the notes and never behind. The notes are bounded: a reader that is further behind compares all Tasks.

use std::collections::VecDeque;
use std::sync::Arc;

use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use crate::later::later;
use crate::resource::Task;

/// How far the cache of Tasks has come. Used instead of `Store::wait_until_ready`, which keeps the waker of one waiter
/// only: a second waiter replaces the first, which then waits forever.
#[derive(Debug, Default)]
pub struct CacheProgress {
    /// Changes so far.
    pub changes: u64,
    /// Whether all Tasks have been listed once.
    pub listed: bool,
    /// The latest changes since all Tasks were listed last; the last one has the number `changes`.
    recent: VecDeque<TaskChange>,
    /// The latest Tasks that the watch reported as deleted, in their last state.
    deleted: VecDeque<Arc<Task>>,
}

/// A Task that was created, changed or deleted.
#[derive(Debug, Clone)]
pub(crate) struct TaskChange {
    /// Its key in the cache.
    pub(crate) key: ObjectRef<Task>,
    /// Its uid. One name may be that of several Tasks, one after the other.
    pub(crate) uid: String,
}

impl CacheProgress {
    /// Number of changes that are kept.
    pub(crate) const MAX_CHANGES: usize = 1_024;

    /// Number of deleted Tasks that are kept, so that readers receive the last state of each.
    pub(crate) const MAX_DELETED: usize = 64;

    /// What changed after the first `seen` changes, in order; `None` when that is not kept any more.
    pub(crate) fn since(&self, seen: u64) -> Option<impl Iterator<Item = &TaskChange>> {
        let missed = usize::try_from(self.changes.checked_sub(seen)?).ok()?;
        let known = self.recent.len().checked_sub(missed)?;
        Some(self.recent.range(known..))
    }

    /// The last state of a deleted Task, if it is kept. It is kept from before the cache shows the deletion; that of a Task
    /// that was deleted while no watch was open is not.
    pub(crate) fn last_state(&self, uid: &str) -> Option<&Arc<Task>> {
        self.deleted.iter().rev().find(|task| task.metadata.uid.as_deref() == Some(uid))
    }

    fn note(&mut self, change: TaskChange) {
        self.changes += 1;
        if self.recent.len() == Self::MAX_CHANGES {
            self.recent.pop_front();
        }
        self.recent.push_back(change);
    }

    fn note_listed(&mut self) {
        self.changes += 1;
        self.listed = true;
        self.recent.clear();
    }

    fn note_deleted(&mut self, last: Arc<Task>) {
        if self.deleted.len() == Self::MAX_DELETED {
            self.deleted.pop_front();
        }
        self.deleted.push_back(last);
    }
}

/// Notes the changes of the cache. There is one for a cache.
pub(crate) struct ProgressWriter {
    tasks: Store<Task>,
    progress: Arc<watch::Sender<CacheProgress>>,
}

impl ProgressWriter {
    /// Notes the changes of `tasks`.
    pub(crate) fn new(tasks: Store<Task>, progress: watch::Sender<CacheProgress>) -> Self {
        Self { tasks, progress: Arc::new(progress) }
    }

    /// The notes, for one reader.
    pub(crate) fn subscribe(&self) -> watch::Receiver<CacheProgress> {
        self.progress.subscribe()
    }

    /// Notes what `apply` changes by applying this event to the cache.
    pub(crate) fn applying<T>(&self, event: Event<Task>, apply: impl FnOnce(Event<Task>) -> T) -> T {
        let changes = match &event {
            // The cache shows nothing of a list until it is complete.
            Event::Init | Event::InitApply(_) => return apply(event),
            Event::InitDone => None,
            Event::Apply(task) => Some(self.begin(task, false)),
            Event::Delete(task) => Some(self.begin(task, true)),
        };
        let applied = apply(event);
        let progress = self.progress.clone();
        later(move || {
            progress.send_modify(|progress| match changes {
                Some(changes) => changes.into_iter().for_each(|change| progress.note(change)),
                None => progress.note_listed(),
            });
        });
        applied
    }

    /// The changes that come with this state of a Task: of itself, and of an earlier one that it replaces.
    fn begin(&self, task: &Task, is_deleted: bool) -> Vec<TaskChange> {
        let metadata = &task.metadata;
        let uid = metadata.uid.clone().unwrap_or_default();
        let mut key = ObjectRef::new(metadata.name.as_deref().unwrap_or_default());
        key.namespace.clone_from(&metadata.namespace);
        let before = self.tasks.get(&key);
        let replaced = before.as_ref().and_then(|before| before.metadata.uid.clone());
        let replaced = replaced.filter(|replaced| *replaced != uid);
        if let Some(before) = before.filter(|_| is_deleted || replaced.is_some()) {
            // Readers are notified once the cache shows it.
            self.progress.send_if_modified(|progress| {
                progress.note_deleted(before);
                false
            });
        }
        replaced.into_iter().chain([uid]).map(|uid| TaskChange { key: key.clone(), uid }).collect()
    }
}

#[cfg(test)]
impl ProgressWriter {
    /// Calls this; what it changes is noted when the result is dropped.
    pub(crate) fn noting_later(call: impl FnOnce()) -> crate::later::PutOff {
        crate::later::putting_off(call).1
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector::{self, store::Writer};

    use super::*;
    use crate::resource::TaskSpec;

    struct Cache {
        writer: Writer<Task>,
        notes: ProgressWriter,
    }

    impl Cache {
        fn new() -> Self {
            let (tasks, writer) = reflector::store();
            Self { writer, notes: ProgressWriter::new(tasks, watch::channel(CacheProgress::default()).0) }
        }

        fn apply(&mut self, event: Event<Task>) {
            self.notes.applying(event, |event| self.writer.apply_watcher_event(&event));
        }

        /// The uids of what changed since.
        fn since(&self, seen: u64) -> Option<Vec<String>> {
            let progress = self.notes.subscribe();
            let progress = progress.borrow();
            Some(progress.since(seen)?.map(|change| change.uid.clone()).collect())
        }

        fn last_version(&self, uid: &str) -> Option<String> {
            self.notes.subscribe().borrow().last_state(uid)?.metadata.resource_version.clone()
        }
    }

    fn task(uid: &str, version: &str) -> Task {
        let mut task = Task::new("a", TaskSpec::stand_in());
        task.metadata.namespace = Some("ns".into());
        task.metadata.uid = Some(uid.into());
        task.metadata.resource_version = Some(version.into());
        task
    }

    #[test]
    fn a_reader_behind_the_kept_changes_does_not_get_a_part_of_them() {
        let mut cache = Cache::new();
        for _ in 0..CacheProgress::MAX_CHANGES {
            cache.apply(Event::Apply(task("u", "1")));
        }
        assert_eq!(cache.since(0).unwrap().len(), CacheProgress::MAX_CHANGES);
        cache.apply(Event::Apply(task("u", "2")));
        assert_eq!(cache.since(0), None);
        assert_eq!(cache.since(1).unwrap().len(), CacheProgress::MAX_CHANGES);
        assert_eq!(cache.since(CacheProgress::MAX_CHANGES as u64 + 1).unwrap(), [""; 0]);
        assert_eq!(cache.since(u64::MAX), None);
    }

    #[test]
    fn a_list_is_one_change_and_nothing_is_known_of_what_it_changed() {
        let mut cache = Cache::new();
        cache.apply(Event::Apply(task("u", "1")));
        cache.apply(Event::Init);
        cache.apply(Event::InitApply(task("u", "2")));
        assert_eq!(cache.since(1).unwrap(), [""; 0], "the cache shows nothing of the list");
        cache.apply(Event::InitDone);
        assert_eq!(cache.since(1), None);
        assert_eq!(cache.since(2).unwrap(), [""; 0]);
        assert!(cache.notes.subscribe().borrow().listed);
    }

    #[test]
    fn a_replaced_task_is_noted_like_a_deleted_one() {
        let mut cache = Cache::new();
        cache.apply(Event::Apply(task("first", "1")));
        cache.apply(Event::Apply(task("second", "2")));
        cache.apply(Event::Delete(task("second", "3")));
        assert_eq!(cache.since(0).unwrap(), ["first", "first", "second", "second"]);
        assert_eq!(cache.last_version("first").as_deref(), Some("1"));
        assert_eq!(cache.last_version("second").as_deref(), Some("2"));
    }

    #[test]
    fn the_last_state_is_kept_before_the_cache_shows_the_deletion() {
        let mut cache = Cache::new();
        cache.apply(Event::Apply(task("u", "1")));
        let Cache { writer, notes } = &mut cache;
        notes.applying(Event::Delete(task("u", "2")), |event| {
            assert!(notes.subscribe().borrow().last_state("u").is_some());
            writer.apply_watcher_event(&event);
        });
    }

    #[test]
    fn keeps_a_bounded_number_of_deleted_tasks() {
        let mut cache = Cache::new();
        for number in 0..=CacheProgress::MAX_DELETED {
            cache.apply(Event::Apply(task(&number.to_string(), "1")));
            cache.apply(Event::Delete(task(&number.to_string(), "2")));
        }
        assert_eq!(cache.last_version("0"), None);
        assert_eq!(cache.last_version("1").as_deref(), Some("1"));
        assert_eq!(cache.notes.subscribe().borrow().deleted.len(), CacheProgress::MAX_DELETED);
    }
}
