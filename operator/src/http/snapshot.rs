//! All Tasks at one point in time, shared by their readers.
//!
//! A change costs what it changed: a snapshot is patched with the Tasks that the cache's progress names, and is made of the
//! whole cache only when that does not reach back to it.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};
#[cfg(test)]
use std::sync::atomic::{self, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};

use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::watch;

use crate::controller::CacheProgress;
use crate::resource::{Task, version};

/// All Tasks at one point in time.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    /// Number of the latest change of the cache that it is sure to show; it may show later ones.
    pub(super) changes: u64,
    /// In order of namespace and name.
    pub(super) tasks: Vec<Arc<Task>>,
    by_uid: HashSet<ByUid>,
    /// The latest deleted ones, in their last state.
    deleted: VecDeque<Arc<Task>>,
}

/// A Task that is found by its uid.
#[derive(Debug, Clone)]
struct ByUid(Arc<Task>);

/// A Task's uid; empty when it has none.
pub(super) fn uid_of(task: &Task) -> &str {
    task.metadata.uid.as_deref().unwrap_or_default()
}

impl Borrow<str> for ByUid {
    fn borrow(&self) -> &str {
        uid_of(&self.0)
    }
}

impl Hash for ByUid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        uid_of(&self.0).hash(state);
    }
}

impl PartialEq for ByUid {
    fn eq(&self, other: &Self) -> bool {
        uid_of(&self.0) == uid_of(&other.0)
    }
}

impl Eq for ByUid {}

/// Namespace and name.
type Name<'a> = (Option<&'a str>, Option<&'a str>);

fn name_of(task: &Task) -> Name<'_> {
    (task.metadata.namespace.as_deref(), task.metadata.name.as_deref())
}

fn key_name(key: &ObjectRef<Task>) -> Name<'_> {
    (key.namespace.as_deref(), Some(&key.name))
}

/// By namespace and name.
pub(super) fn order(a: &Task, b: &Task) -> Ordering {
    name_of(a).cmp(&name_of(b))
}

impl Snapshot {
    /// The Task with that uid.
    pub(super) fn by_uid(&self, uid: &str) -> Option<&Arc<Task>> {
        Some(&self.by_uid.get(uid)?.0)
    }

    /// The Task of that name.
    pub(super) fn named(&self, namespace: &str, name: &str) -> Option<&Arc<Task>> {
        self.tasks.get(self.position((Some(namespace), Some(name))).ok()?)
    }

    /// The last state of a deleted Task, if it is kept.
    pub(super) fn deleted(&self, uid: &str) -> Option<&Arc<Task>> {
        self.deleted.iter().rev().find(|task| task.metadata.uid.as_deref() == Some(uid))
    }

    fn position(&self, name: Name<'_>) -> Result<usize, usize> {
        self.tasks.binary_search_by(|task| name_of(task).cmp(&name))
    }

    /// Sets the Task of that name; returns the one that it had and that does not exist any more.
    fn set(&mut self, name: Name<'_>, now: Option<Arc<Task>>) -> Option<Arc<Task>> {
        let before = match (self.position(name), &now) {
            (Ok(at), Some(now)) => Some(std::mem::replace(&mut self.tasks[at], now.clone())),
            (Ok(at), None) => Some(self.tasks.remove(at)),
            (Err(at), Some(now)) => {
                self.tasks.insert(at, now.clone());
                None
            }
            (Err(_), None) => None,
        };
        if let Some(before) = &before {
            self.by_uid.remove(uid_of(before));
        }
        if let Some(now) = now {
            self.by_uid.insert(ByUid(now));
        }
        before.filter(|before| !self.by_uid.contains(uid_of(before)))
    }

    fn keep_deleted(&mut self, deleted: impl IntoIterator<Item = Arc<Task>>) {
        self.deleted.extend(deleted);
        self.deleted.drain(..self.deleted.len().saturating_sub(CacheProgress::MAX_DELETED));
    }
}

/// The latest snapshot of a cache. Cloning it shares it.
#[derive(Clone)]
pub(super) struct Snapshots {
    tasks: Store<Task>,
    changes: watch::Receiver<CacheProgress>,
    latest: Arc<Mutex<Arc<Snapshot>>>,
    /// Number of Tasks that were read of the cache.
    #[cfg(test)]
    pub(super) examined: Arc<AtomicUsize>,
}

impl Snapshots {
    /// Of this store; `changes` notes each change after the store shows it.
    pub(super) fn new(tasks: Store<Task>, changes: watch::Receiver<CacheProgress>) -> Self {
        // After all changes: the first one is made of the whole cache.
        let none = Snapshot { changes: u64::MAX, ..Snapshot::default() };
        Self {
            tasks,
            changes,
            latest: Arc::new(Mutex::new(Arc::new(none))),
            #[cfg(test)]
            examined: Arc::default(),
        }
    }

    /// All Tasks, at least as recent as the latest notice.
    pub(super) fn latest(&self) -> Arc<Snapshot> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        // The notes are read before the cache, which is then at least as recent.
        let (changes, changed) = {
            let progress = self.changes.borrow();
            if progress.changes == latest.changes {
                return Arc::clone(&latest);
            }
            let changed = progress.since(latest.changes);
            (progress.changes, changed.map(|changed| changed.map(|change| change.key.clone()).collect()))
        };
        match changed {
            // A reader that still has the previous one keeps it.
            Some(changed) => self.patch(Arc::make_mut(&mut latest), changed),
            None => *latest = Arc::new(self.rebuilt(&latest)),
        }
        // It has no other reader yet, and is not copied.
        Arc::make_mut(&mut latest).changes = changes;
        Arc::clone(&latest)
    }

    /// Notices of changes, for one reader.
    pub(super) fn changes(&self) -> watch::Receiver<CacheProgress> {
        self.changes.clone()
    }

    /// Reads the Tasks of these names again.
    fn patch(&self, snapshot: &mut Snapshot, mut changed: Vec<ObjectRef<Task>>) {
        changed.sort_unstable_by(|a, b| key_name(a).cmp(&key_name(b)));
        changed.dedup();
        #[cfg(test)]
        self.examined.fetch_add(changed.len(), atomic::Ordering::Relaxed);
        let gone: Vec<Arc<Task>> =
            changed.iter().filter_map(|key| snapshot.set(key_name(key), self.tasks.get(key))).collect();
        snapshot.keep_deleted(gone.into_iter().map(|gone| self.last_state(gone)));
    }

    /// A snapshot of the whole cache.
    fn rebuilt(&self, before: &Snapshot) -> Snapshot {
        let mut tasks = self.tasks.state();
        #[cfg(test)]
        self.examined.fetch_add(tasks.len(), atomic::Ordering::Relaxed);
        tasks.sort_unstable_by(|a, b| order(a, b));
        let by_uid: HashSet<ByUid> = tasks.iter().cloned().map(ByUid).collect();
        let is_gone = |task: &&Arc<Task>| !by_uid.contains(uid_of(task));
        let gone: Vec<Arc<Task>> = before.tasks.iter().filter(is_gone).cloned().collect();
        let mut snapshot =
            Snapshot { changes: before.changes, tasks, by_uid, deleted: before.deleted.clone() };
        snapshot.keep_deleted(gone.into_iter().map(|gone| self.last_state(gone)));
        snapshot
    }

    /// The last state of a Task that is gone: it may have changed after the snapshot that had it.
    fn last_state(&self, gone: Arc<Task>) -> Arc<Task> {
        let progress = self.changes.borrow();
        let last = progress.last_state(uid_of(&gone)).filter(|last| version(last) > version(&gone));
        last.cloned().unwrap_or(gone)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use kube::runtime::reflector::{self, store::Writer};
    use kube::runtime::watcher::Event;
    use proptest::prelude::*;

    use super::*;
    use crate::controller::ProgressWriter;
    use crate::resource::TaskSpec;

    /// A cache of Tasks, filled as the controller does it.
    pub(in crate::http) struct Cache {
        writer: Writer<Task>,
        notes: ProgressWriter,
        pub(in crate::http) snapshots: Snapshots,
        /// Of the last state of any Task. The uid of a Task is its first one.
        version: u64,
    }

    /// What happens to Tasks, by their numbers.
    #[derive(Debug, Clone)]
    pub(in crate::http) enum Step {
        Put(usize),
        Delete(usize),
        Recreate(usize),
        /// Another one has the name, and no deletion was observed.
        Replace(usize),
        /// The watch starts again, and these exist no more.
        List(Vec<usize>),
        /// More changes than are kept.
        Burst(usize),
        /// Readers read.
        Read,
    }

    pub(in crate::http) fn steps() -> impl Strategy<Value = Vec<Step>> {
        let task = || 0..8usize;
        let step = prop_oneof![
            12 => task().prop_map(Step::Put),
            6 => task().prop_map(Step::Delete),
            4 => task().prop_map(Step::Recreate),
            2 => task().prop_map(Step::Replace),
            2 => prop::collection::vec(task(), 0..3).prop_map(Step::List),
            1 => task().prop_map(Step::Burst),
            12 => Just(Step::Read),
        ];
        prop::collection::vec(step, 0..40)
    }

    impl Cache {
        pub(in crate::http) fn new() -> Self {
            let (tasks, writer) = reflector::store();
            let notes = ProgressWriter::new(tasks.clone(), watch::channel(CacheProgress::default()).0);
            let snapshots = Snapshots::new(tasks, notes.subscribe());
            Self { writer, notes, snapshots, version: 0 }
        }

        pub(in crate::http) fn apply(&mut self, event: Event<Task>) {
            self.notes.applying(event, |event| self.writer.apply_watcher_event(&event));
        }

        pub(in crate::http) fn put(&mut self, number: usize) {
            let uid = self.cached(number).and_then(|task| task.metadata.uid.clone());
            let task = self.next(number, uid);
            self.apply(Event::Apply(task));
        }

        pub(in crate::http) fn delete(&mut self, number: usize) {
            if let Some(task) = self.cached(number) {
                self.apply(Event::Delete(Task::clone(&task)));
            }
        }

        pub(in crate::http) fn step(&mut self, step: &Step) {
            match step {
                Step::Put(number) => self.put(*number),
                Step::Delete(number) => self.delete(*number),
                Step::Recreate(number) => {
                    self.delete(*number);
                    self.put(*number);
                }
                Step::Replace(number) => {
                    let task = self.next(*number, None);
                    self.apply(Event::Apply(task));
                }
                Step::List(missing) => {
                    let missing: Vec<_> = missing.iter().filter_map(|number| self.cached(*number)).collect();
                    self.apply(Event::Init);
                    for task in self.tasks().iter().filter(|task| !missing.contains(task)) {
                        self.apply(Event::InitApply(Task::clone(task)));
                    }
                    self.apply(Event::InitDone);
                }
                Step::Burst(number) => (0..=CacheProgress::MAX_CHANGES).for_each(|_| self.put(*number)),
                Step::Read => {}
            }
        }

        pub(in crate::http) fn cached(&self, number: usize) -> Option<Arc<Task>> {
            self.snapshots.tasks.get(&ObjectRef::from_obj(&named(number)))
        }

        pub(in crate::http) fn tasks(&self) -> Vec<Arc<Task>> {
            self.snapshots.tasks.state()
        }

        fn next(&mut self, number: usize, uid: Option<String>) -> Task {
            self.version += 1;
            let mut task = named(number);
            task.metadata.uid = Some(uid.unwrap_or_else(|| self.version.to_string()));
            task.metadata.resource_version = Some(self.version.to_string());
            task
        }
    }

    fn named(number: usize) -> Task {
        let mut task = Task::new(&format!("t{}", number / 2), TaskSpec::stand_in());
        task.metadata.namespace = Some(format!("ns{}", number % 2));
        task
    }

    /// Name, uid and version of each.
    fn view<'a>(tasks: impl IntoIterator<Item = &'a Arc<Task>>) -> Vec<(Name<'a>, &'a str, u64)> {
        tasks.into_iter().map(|task| (name_of(task), uid_of(task), version(task))).collect()
    }

    /// Also that each is found by its uid and by its name.
    fn checked(snapshot: &Snapshot) -> Vec<(Name<'_>, &str, u64)> {
        assert_eq!(snapshot.by_uid.len(), snapshot.tasks.len());
        for task in &snapshot.tasks {
            assert!(Arc::ptr_eq(snapshot.by_uid(uid_of(task)).unwrap(), task));
            let (namespace, name) = name_of(task);
            assert!(Arc::ptr_eq(snapshot.named(namespace.unwrap(), name.unwrap()).unwrap(), task));
        }
        view(&snapshot.tasks)
    }

    fn forget_position(snapshots: &Snapshots) {
        Arc::make_mut(&mut snapshots.latest.lock().unwrap()).changes = u64::MAX;
    }

    fn count(cache: &Cache) -> usize {
        cache.snapshots.examined.swap(0, atomic::Ordering::Relaxed)
    }

    proptest! {
        #[test]
        fn a_patched_snapshot_equals_one_of_the_whole_cache(steps in steps()) {
            let mut cache = Cache::new();
            let whole = Snapshots::new(cache.snapshots.tasks.clone(), cache.snapshots.changes());
            for step in steps.iter().chain([&Step::Read]) {
                cache.step(step);
                if matches!(step, Step::Read) {
                    forget_position(&whole);
                    let (patched, whole) = (cache.snapshots.latest(), whole.latest());
                    prop_assert_eq!(checked(&patched), checked(&whole));
                    prop_assert_eq!(view(&patched.deleted), view(&whole.deleted));
                    prop_assert_eq!(patched.changes, whole.changes);
                }
            }
        }
    }

    #[test]
    fn a_change_among_a_thousand_tasks_reads_what_changed() {
        let mut cache = Cache::new();
        (0..1_000).for_each(|number| cache.put(number));
        assert_eq!((cache.snapshots.latest().tasks.len(), count(&cache)), (1_000, 1_000));
        cache.put(500);
        // While a reader has the previous one too.
        let read = cache.snapshots.latest();
        assert_eq!(count(&cache), 1);
        for number in [7, 9, 7, 1_001] {
            cache.put(number);
        }
        cache.delete(8);
        assert_eq!(
            (cache.snapshots.latest().tasks.len(), read.tasks.len(), count(&cache)),
            (1_000, 1_000, 4)
        );
        cache.snapshots.latest();
        assert_eq!(count(&cache), 0);
        assert!(read.named("ns1", "t500").is_none(), "a reader has what was read then");
    }

    /// It was shown as the snapshot before had it, which may be without the end of its Run.
    #[test]
    fn a_task_changed_and_deleted_between_snapshots_is_kept_in_its_last_state() {
        let mut cache = Cache::new();
        cache.put(0);
        cache.snapshots.latest();
        cache.put(0);
        let last = cache.cached(0).unwrap();
        cache.delete(0);
        assert!(Arc::ptr_eq(cache.snapshots.latest().deleted(uid_of(&last)).unwrap(), &last));
    }

    #[test]
    fn keeps_a_bounded_number_of_deleted_tasks() {
        let mut cache = Cache::new();
        for number in 0..=CacheProgress::MAX_DELETED {
            cache.put(number);
            cache.snapshots.latest();
            cache.delete(number);
        }
        assert_eq!(cache.snapshots.latest().deleted.len(), CacheProgress::MAX_DELETED);
    }
}
