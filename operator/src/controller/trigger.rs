//! Which changes of a Task are worth a look: not the status, which only we write.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::watcher::Event;
use sentinel_protocol::ids::TaskRef;

use super::reconcile::name;
use crate::resource::Task;

/// Keeps the cache of Tasks and passes on what is worth a look.
pub(super) struct Trigger {
    writer: Writer<Task>,
    seen: HashMap<ObjectRef<Task>, u64>,
    /// The list that is being made, and what in it is worth a look: the cache has none of it before all of it is there.
    listing: HashMap<ObjectRef<Task>, u64>,
    worth: Vec<TaskRef>,
}

impl Trigger {
    pub(super) fn new(writer: Writer<Task>) -> Self {
        Self { writer, seen: HashMap::new(), listing: HashMap::new(), worth: Vec::new() }
    }

    /// Takes a change in; answers with the Tasks that are worth a look, which the cache then shows as they are.
    pub(super) fn take(&mut self, event: Event<Task>) -> Vec<TaskRef> {
        self.writer.apply_watcher_event(&event);
        match event {
            Event::Init => {
                self.listing.clear();
                self.worth.clear();
                Vec::new()
            }
            Event::InitApply(task) => {
                let (key, print) = (ObjectRef::from_obj(&task), fingerprint(&task));
                if self.seen.get(&key) != Some(&print) {
                    self.worth.extend(name(&task));
                }
                self.listing.insert(key, print);
                Vec::new()
            }
            Event::InitDone => {
                let before = std::mem::replace(&mut self.seen, std::mem::take(&mut self.listing));
                // What was deleted while nobody watched is missing in the list, and nothing else tells of it.
                let gone = before.into_keys().filter(|key| !self.seen.contains_key(key));
                self.worth.extend(
                    gone.filter_map(|key| TaskRef::new(key.namespace.unwrap_or_default(), key.name).ok()),
                );
                std::mem::take(&mut self.worth)
            }
            Event::Apply(task) => {
                let print = fingerprint(&task);
                let known = self.seen.insert(ObjectRef::from_obj(&task), print);
                if known == Some(print) { Vec::new() } else { Vec::from_iter(name(&task)) }
            }
            Event::Delete(task) => {
                self.seen.remove(&ObjectRef::from_obj(&task));
                Vec::from_iter(name(&task))
            }
        }
    }
}

/// All that a look reads of a Task but for its status.
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
    fn a_new_status_is_not_worth_a_look_and_a_new_spec_is() {
        let (_reader, writer) = reflector::store::<Task>();
        let mut trigger = Trigger::new(writer);
        let mut is_worth = |event| !trigger.take(event).is_empty();
        assert!(is_worth(Event::Apply(task(1))));
        let with_status = Task { status: Some(TaskStatus::default()), ..task(1) };
        assert!(!is_worth(Event::Apply(with_status)));
        assert!(is_worth(Event::Apply(task(2))));
        let mut annotated = task(2);
        annotated.metadata.annotations = Some([("sentinelnode.dev/cancel".into(), "1".into())].into());
        assert!(is_worth(Event::Apply(annotated)));
        assert!(is_worth(Event::Delete(task(2))));
        assert!(is_worth(Event::Apply(task(2))), "one of the same name is another");
    }

    #[test]
    fn a_new_list_passes_on_what_changed_meanwhile() {
        let (reader, writer) = reflector::store::<Task>();
        let mut trigger = Trigger::new(writer);
        for (generation, worth) in [(1, true), (1, false), (2, true)] {
            trigger.take(Event::Init);
            trigger.take(Event::InitApply(task(generation)));
            assert_eq!(!trigger.take(Event::InitDone).is_empty(), worth);
            assert_eq!(reader.len(), 1);
        }
    }

    /// A look before that found nothing in the cache and took the Task for deleted; nobody looked again.
    #[test]
    fn what_a_new_list_brings_is_passed_on_when_the_cache_has_it() {
        let (reader, writer) = reflector::store::<Task>();
        let mut trigger = Trigger::new(writer);
        trigger.take(Event::Init);
        trigger.take(Event::InitDone);
        trigger.take(Event::Init);
        assert_eq!(names(trigger.take(Event::InitApply(named("new", 1)))), [""; 0]);
        assert!(reader.is_empty());
        assert_eq!(names(trigger.take(Event::InitDone)), ["new"]);
        assert_eq!(reader.len(), 1);
    }

    #[test]
    fn what_is_missing_in_a_new_list_is_passed_on_as_gone() {
        let (reader, writer) = reflector::store::<Task>();
        let mut trigger = Trigger::new(writer);
        for there in [vec!["a", "b"], vec!["b"]] {
            trigger.take(Event::Init);
            for name in &there {
                trigger.take(Event::InitApply(named(name, 1)));
            }
            let passed_on = names(trigger.take(Event::InitDone));
            assert_eq!(passed_on, if there.len() == 2 { vec!["a", "b"] } else { vec!["a"] });
        }
        assert_eq!(reader.len(), 1);
    }
}
