//! Which changes of a Task need a reconcile: all but those of its status, which only this operator writes.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::watcher::Event;
use sentinel_protocol::ids::{TaskRef, TaskUid};

use crate::resource::Task;

/// Keeps the cache of Tasks and passes on the Tasks to be reconciled.
pub(super) struct ChangeFilter {
    writer: Writer<Task>,
    fingerprints: HashMap<ObjectRef<Task>, u64>,
    /// The list that is being received, and what changed in it. The cache shows nothing of it until it is complete.
    listing: HashMap<ObjectRef<Task>, u64>,
    changed: Vec<TaskRef>,
}

impl ChangeFilter {
    pub(super) fn new(writer: Writer<Task>) -> Self {
        Self { writer, fingerprints: HashMap::new(), listing: HashMap::new(), changed: Vec::new() }
    }

    /// Applies a change to the cache; returns the Tasks to be reconciled, which the cache then shows as they are.
    pub(super) fn take(&mut self, event: Event<Task>) -> Vec<TaskRef> {
        self.writer.apply_watcher_event(&event);
        match event {
            Event::Init => {
                self.listing.clear();
                self.changed.clear();
                Vec::new()
            }
            Event::InitApply(task) => {
                let (key, print) = (ObjectRef::from_obj(&task), fingerprint(&task));
                if self.fingerprints.get(&key) != Some(&print) {
                    self.changed.extend(task_ref(&task));
                }
                self.listing.insert(key, print);
                Vec::new()
            }
            Event::InitDone => {
                let previous = std::mem::replace(&mut self.fingerprints, std::mem::take(&mut self.listing));
                // A Task deleted while no watch was open is missing from the list; no event reports it.
                let deleted = previous.into_keys().filter(|key| !self.fingerprints.contains_key(key));
                self.changed.extend(
                    deleted.filter_map(|key| TaskRef::new(key.namespace.unwrap_or_default(), key.name).ok()),
                );
                std::mem::take(&mut self.changed)
            }
            Event::Apply(task) => {
                let print = fingerprint(&task);
                let known = self.fingerprints.insert(ObjectRef::from_obj(&task), print);
                if known == Some(print) { Vec::new() } else { Vec::from_iter(task_ref(&task)) }
            }
            Event::Delete(task) => {
                self.fingerprints.remove(&ObjectRef::from_obj(&task));
                Vec::from_iter(task_ref(&task))
            }
        }
    }
}

/// Namespace and name of a Task. An API server accepts no others, so there is always one.
pub(super) fn task_ref(task: &Task) -> Option<TaskRef> {
    TaskRef::new(task.metadata.namespace.as_deref()?, task.metadata.name.as_deref()?).ok()
}

/// The same, and its uid.
pub(super) fn identified(task: &Task) -> Option<(TaskRef, TaskUid)> {
    Some((task_ref(task)?, TaskUid::new(task.metadata.uid.as_deref()?).ok()?))
}

/// A hash over everything that a reconcile reads of a Task but its status.
fn fingerprint(task: &Task) -> u64 {
    let metadata = &task.metadata;
    let mut hash = DefaultHasher::new();
    metadata.uid.hash(&mut hash);
    metadata.generation.hash(&mut hash);
    metadata.annotations.hash(&mut hash);
    metadata.finalizers.hash(&mut hash);
    metadata.deletion_timestamp.is_some().hash(&mut hash);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector;

    use super::*;
    use crate::resource::{TaskSpec, TaskStatus};

    fn task(generation: i64) -> Task {
        let mut task = Task::new("a", TaskSpec::stand_in());
        task.metadata.namespace = Some("ns".into());
        task.metadata.uid = Some("u".into());
        task.metadata.generation = Some(generation);
        task
    }

    fn named(name: &str, generation: i64) -> Task {
        let mut task = task(generation);
        task.metadata.name = Some(name.into());
        task
    }

    fn names(tasks: Vec<TaskRef>) -> Vec<String> {
        tasks.into_iter().map(|task| task.name.to_string()).collect()
    }

    #[test]
    fn a_new_spec_needs_a_reconcile_and_a_new_status_does_not() {
        let (_reader, writer) = reflector::store::<Task>();
        let mut filter = ChangeFilter::new(writer);
        let mut changed = |event| !filter.take(event).is_empty();
        assert!(changed(Event::Apply(task(1))));
        let with_status = Task { status: Some(TaskStatus::default()), ..task(1) };
        assert!(!changed(Event::Apply(with_status)));
        assert!(changed(Event::Apply(task(2))));
        let mut annotated = task(2);
        annotated.metadata.annotations = Some([("sentinelnode.dev/cancel".into(), "1".into())].into());
        assert!(changed(Event::Apply(annotated)));
        assert!(changed(Event::Delete(task(2))));
        assert!(changed(Event::Apply(task(2))), "a new Task of the same name");
    }

    #[test]
    fn a_new_list_yields_what_changed_meanwhile() {
        let (reader, writer) = reflector::store::<Task>();
        let mut filter = ChangeFilter::new(writer);
        for (generation, changed) in [(1, true), (1, false), (2, true)] {
            filter.take(Event::Init);
            filter.take(Event::InitApply(task(generation)));
            assert_eq!(!filter.take(Event::InitDone).is_empty(), changed);
            assert_eq!(reader.len(), 1);
        }
    }

    /// An earlier reconcile found nothing in the cache and took the Task for deleted; no other followed.
    #[test]
    fn changes_of_a_list_are_yielded_once_the_cache_shows_them() {
        let (reader, writer) = reflector::store::<Task>();
        let mut filter = ChangeFilter::new(writer);
        filter.take(Event::Init);
        filter.take(Event::InitDone);
        filter.take(Event::Init);
        assert_eq!(names(filter.take(Event::InitApply(named("new", 1)))), [""; 0]);
        assert!(reader.is_empty());
        assert_eq!(names(filter.take(Event::InitDone)), ["new"]);
        assert_eq!(reader.len(), 1);
    }

    #[test]
    fn a_task_missing_from_a_new_list_is_yielded_as_deleted() {
        let (reader, writer) = reflector::store::<Task>();
        let mut filter = ChangeFilter::new(writer);
        for listed in [vec!["a", "b"], vec!["b"]] {
            filter.take(Event::Init);
            for name in &listed {
                filter.take(Event::InitApply(named(name, 1)));
            }
            let yielded = names(filter.take(Event::InitDone));
            assert_eq!(yielded, if listed.len() == 2 { vec!["a", "b"] } else { vec!["a"] });
        }
        assert_eq!(reader.len(), 1);
    }
}
