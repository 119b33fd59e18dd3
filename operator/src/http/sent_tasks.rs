//! What a reader of events has been sent, and what is due to it.
//!
//! It follows the changes that the cache's progress notes, and compares all Tasks at the beginning and when it is further
//! behind than the notes reach back. Both find the same.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use sentinel_protocol::ids::TaskRef;
use tokio::sync::watch;

use super::snapshot::{Snapshot, order, uid_of};
use crate::controller::CacheProgress;
use crate::resource::{Task, version};

/// Which Tasks a reader receives.
pub(super) enum Scope {
    /// The one of this name; another one that takes the name is not received.
    One(TaskRef),
    /// All, or those of a namespace.
    All { namespace: Option<String> },
}

impl Scope {
    fn holds(&self, task: &Task) -> bool {
        let namespace = task.metadata.namespace.as_deref();
        match self {
            Self::One(name) => {
                namespace == Some(&*name.namespace) && task.metadata.name.as_deref() == Some(&*name.name)
            }
            Self::All { namespace: wanted } => wanted.is_none() || namespace == wanted.as_deref(),
        }
    }
}

/// The version of a Task that a reader has.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SentTask {
    version: u64,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
}

impl SentTask {
    fn of(task: &Task) -> Self {
        let metadata = &task.metadata;
        Self { version: version(task), namespace: metadata.namespace.clone(), name: metadata.name.clone() }
    }
}

/// The uids of Tasks that differ from what was sent.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Due {
    /// Of those that do not exist any more.
    pub(super) gone: Vec<String>,
    /// Of new and changed ones, in order of namespace and name.
    pub(super) changed: VecDeque<String>,
}

/// What one reader has been sent.
pub(super) struct SentTasks {
    pub(super) scope: Scope,
    /// By uid: a Task can be deleted and created again.
    sent: HashMap<String, SentTask>,
    /// Number of the change of the cache up to which it was compared.
    compared: u64,
    /// Whether the feed has had the one Task of this reader. Before that, its absence there means nothing.
    pub(super) arrived: bool,
    /// Number of Tasks that were compared.
    #[cfg(test)]
    examined: usize,
}

impl SentTasks {
    /// Nothing was sent.
    pub(super) fn new(scope: Scope) -> Self {
        Self {
            scope,
            sent: HashMap::new(),
            // After all changes: the first comparison is with all Tasks.
            compared: u64::MAX,
            arrived: false,
            #[cfg(test)]
            examined: 0,
        }
    }

    /// Whether it is of one Task only.
    pub(super) fn is_one(&self) -> bool {
        matches!(self.scope, Scope::One(_))
    }

    /// Notes that this state of a Task is sent.
    pub(super) fn insert(&mut self, task: &Task) {
        self.sent.insert(uid_of(task).to_owned(), SentTask::of(task));
    }

    /// Notes that the deletion of a Task is sent; returns what was sent of it, if anything was.
    pub(super) fn remove(&mut self, uid: &str) -> Option<SentTask> {
        self.sent.remove(uid)
    }

    /// Compares the Tasks with what was sent. All that is due must be sent before the next comparison.
    pub(super) fn compare(&mut self, snapshot: &Snapshot, progress: &watch::Receiver<CacheProgress>) -> Due {
        let due = match &self.scope {
            Scope::One(name) => self.compare_one(snapshot, snapshot.named(&name.namespace, &name.name)),
            Scope::All { .. } => {
                let followed = self.compare_changed(snapshot, &progress.borrow());
                followed.unwrap_or_else(|| self.compare_all(snapshot))
            }
        };
        self.compared = snapshot.changes;
        due
    }

    fn compare_one(&mut self, snapshot: &Snapshot, named: Option<&Arc<Task>>) -> Due {
        #[cfg(test)]
        {
            self.examined += 1;
        }
        // An older one is a version before the one that was sent, or an earlier Task of the same name.
        let is_older = |task: &Task| self.sent.values().any(|sent| version(task) < sent.version);
        let now = named.filter(|task| !is_older(task));
        self.arrived |= now.is_some();
        if !self.arrived {
            return Due::default();
        }
        let gone = self.sent.keys().filter(|uid| snapshot.by_uid(uid).is_none()).cloned().collect();
        let changed = now.filter(|task| self.is_new(task)).map(|task| uid_of(task).to_owned());
        Due { gone, changed: changed.into_iter().collect() }
    }

    /// Compares the Tasks that changed since the last comparison; `None` when these are not known.
    fn compare_changed(&mut self, snapshot: &Snapshot, progress: &CacheProgress) -> Option<Due> {
        let changed = progress.since(self.compared)?;
        // Later ones may not be in the snapshot yet.
        let changed = changed.take(usize::try_from(snapshot.changes.checked_sub(self.compared)?).ok()?);
        let uids: BTreeSet<&str> = changed.map(|change| &*change.uid).collect();
        #[cfg(test)]
        {
            self.examined += uids.len();
        }
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        for uid in uids {
            match snapshot.by_uid(uid) {
                Some(task) if self.scope.holds(task) && self.is_new(task) => new.push(task),
                Some(_) => {}
                None if self.sent.contains_key(uid) => gone.push(uid.to_owned()),
                None => {}
            }
        }
        new.sort_unstable_by(|a, b| order(a, b));
        Some(Due { gone, changed: new.into_iter().map(|task| uid_of(task).to_owned()).collect() })
    }

    fn compare_all(&mut self, snapshot: &Snapshot) -> Due {
        #[cfg(test)]
        {
            self.examined += snapshot.tasks.len();
        }
        let mut known = 0;
        let is_new = |task: &&Arc<Task>| {
            known += usize::from(self.sent.contains_key(uid_of(task)));
            self.is_new(task)
        };
        let now = snapshot.tasks.iter().filter(|task| self.scope.holds(task));
        let changed = now.filter(is_new).map(|task| uid_of(task).to_owned()).collect();
        // Mostly each that was sent still exists, and was counted.
        let gone = match self.sent.len() - known {
            0 => Vec::new(),
            _ => self.sent.keys().filter(|uid| snapshot.by_uid(uid).is_none()).cloned().collect(),
        };
        Due { gone, changed }
    }

    fn is_new(&self, task: &Task) -> bool {
        self.sent.get(uid_of(task)).is_none_or(|sent| sent.version < version(task))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::snapshot::tests::{Cache, Step, steps};
    use super::*;
    use crate::controller::ProgressWriter;

    fn all(namespace: Option<&str>) -> SentTasks {
        SentTasks::new(Scope::All { namespace: namespace.map(str::to_owned) })
    }

    fn compare(reader: &mut SentTasks, cache: &Cache) -> Due {
        let mut due = reader.compare(&cache.snapshots.latest(), &cache.snapshots.changes());
        due.gone.sort();
        due
    }

    /// Sends as the stream does: deletions at once, the others as they are then.
    fn send(reader: &mut SentTasks, due: Due, cache: &Cache) {
        for uid in due.gone {
            reader.remove(&uid).unwrap();
        }
        for uid in due.changed {
            if let Some(task) = cache.snapshots.latest().by_uid(&uid) {
                reader.insert(task);
            }
        }
    }

    fn read(reader: &mut SentTasks, cache: &Cache) {
        let due = compare(reader, cache);
        send(reader, due, cache);
    }

    /// What a reader that misses nothing has been sent.
    fn existing(scope: &Scope, cache: &Cache) -> HashMap<String, SentTask> {
        let now = cache.tasks();
        let now = now.iter().filter(|task| scope.holds(task));
        now.map(|task| (uid_of(task).to_owned(), SentTask::of(task))).collect()
    }

    proptest! {
        #[test]
        fn following_the_changes_finds_what_comparing_all_finds(
            steps in steps(),
            namespace in prop::option::of(Just("ns1")),
        ) {
            let mut cache = Cache::new();
            let (mut follower, mut comparer) = (all(namespace), all(namespace));
            let mut steps = steps.iter();
            while let Some(step) = steps.next() {
                cache.step(step);
                if !matches!(step, Step::Read) {
                    continue;
                }
                comparer.compared = u64::MAX;
                let (followed, compared) = (compare(&mut follower, &cache), compare(&mut comparer, &cache));
                prop_assert_eq!(&followed, &compared);
                // Changed before it is sent.
                if let Some(meanwhile) = steps.next() {
                    cache.step(meanwhile);
                }
                send(&mut follower, followed, &cache);
                send(&mut comparer, compared, &cache);
                prop_assert_eq!(&follower.sent, &comparer.sent);
            }
            read(&mut follower, &cache);
            prop_assert_eq!(&follower.sent, &existing(&follower.scope, &cache));
        }

        #[test]
        fn a_cache_that_is_ahead_of_its_notes_hides_no_change(
            steps in steps(),
            are_noted in prop::collection::vec(any::<bool>(), 40),
        ) {
            let mut cache = Cache::new();
            let mut reader = all(None);
            let mut notes = ProgressWriter::noting_later(|| {});
            for (step, is_noted) in steps.iter().zip(are_noted) {
                notes.append(ProgressWriter::noting_later(|| cache.step(step)));
                if is_noted {
                    notes = ProgressWriter::noting_later(|| {});
                }
                if matches!(step, Step::Read) {
                    let due = compare(&mut reader, &cache);
                    let snapshot = cache.snapshots.latest();
                    prop_assert!(due.gone.iter().all(|uid| snapshot.deleted(uid).is_some()));
                    send(&mut reader, due, &cache);
                }
            }
            drop(notes);
            read(&mut reader, &cache);
            prop_assert_eq!(&reader.sent, &existing(&reader.scope, &cache));
        }
    }

    #[test]
    fn a_change_among_a_thousand_tasks_compares_what_changed() {
        let mut cache = Cache::new();
        (0..1_000).for_each(|number| cache.put(number));
        let mut reader = all(None);
        read(&mut reader, &cache);
        assert_eq!((reader.sent.len(), std::mem::take(&mut reader.examined)), (1_000, 1_000));
        cache.put(500);
        let due = compare(&mut reader, &cache);
        assert_eq!((due.changed.len(), due.gone.len(), std::mem::take(&mut reader.examined)), (1, 0, 1));
        send(&mut reader, due, &cache);
        for number in [9, 7, 9] {
            cache.put(number);
        }
        let order = [7, 9].map(|number| cache.cached(number).unwrap().metadata.uid.clone().unwrap());
        cache.delete(8);
        let due = compare(&mut reader, &cache);
        assert_eq!((due.changed, due.gone.len(), reader.examined), (order.into(), 1, 3));
    }

    #[test]
    fn a_reader_of_one_task_compares_one_and_ends_with_it() {
        let mut cache = Cache::new();
        (0..1_000).for_each(|number| cache.put(number));
        let task = cache.cached(3).unwrap();
        let name = TaskRef::new("ns1", "t1").unwrap();
        let mut reader = SentTasks::new(Scope::One(name));
        read(&mut reader, &cache);
        assert_eq!((reader.sent.len(), std::mem::take(&mut reader.examined)), (1, 1));
        cache.put(3);
        assert_eq!(compare(&mut reader, &cache).changed, [uid_of(&task)]);
        assert_eq!(reader.examined, 1);
        cache.step(&Step::Recreate(3));
        assert_eq!(compare(&mut reader, &cache).gone, [uid_of(&task)]);
    }
}
