//! Which changes of a Task are worth a look: not the status, which only we write.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::watcher::Event;

use crate::resource::Task;

/// Keeps the cache of Tasks and passes on what is worth a look.
pub(super) struct Trigger {
    writer: Writer<Task>,
    seen: HashMap<ObjectRef<Task>, u64>,
    listing: HashMap<ObjectRef<Task>, u64>,
}

impl Trigger {
    pub(super) fn new(writer: Writer<Task>) -> Self {
        Self { writer, seen: HashMap::new(), listing: HashMap::new() }
    }

    /// Takes a change in; answers with the Task when it is worth a look.
    pub(super) fn take(&mut self, event: Event<Task>) -> Option<Task> {
        self.writer.apply_watcher_event(&event);
        match event {
            Event::Init => {
                self.listing.clear();
                None
            }
            Event::InitApply(task) => {
                let (key, print) = (ObjectRef::from_obj(&task), fingerprint(&task));
                self.listing.insert(key.clone(), print);
                (self.seen.get(&key) != Some(&print)).then_some(task)
            }
            Event::InitDone => {
                self.seen = std::mem::take(&mut self.listing);
                None
            }
            Event::Apply(task) => {
                let print = fingerprint(&task);
                (self.seen.insert(ObjectRef::from_obj(&task), print) != Some(print)).then_some(task)
            }
            Event::Delete(task) => {
                self.seen.remove(&ObjectRef::from_obj(&task));
                Some(task)
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

    #[test]
    fn a_new_status_is_not_worth_a_look_and_a_new_spec_is() {
        let (_reader, writer) = reflector::store::<Task>();
        let mut trigger = Trigger::new(writer);
        assert!(trigger.take(Event::Apply(task(1))).is_some());
        let with_status = Task { status: Some(TaskStatus::default()), ..task(1) };
        assert!(trigger.take(Event::Apply(with_status)).is_none());
        assert!(trigger.take(Event::Apply(task(2))).is_some());
        let mut annotated = task(2);
        annotated.metadata.annotations = Some([("sentinelnode.dev/cancel".into(), "1".into())].into());
        assert!(trigger.take(Event::Apply(annotated)).is_some());
        assert!(trigger.take(Event::Delete(task(2))).is_some());
        assert!(trigger.take(Event::Apply(task(2))).is_some(), "one of the same name is another");
    }

    #[test]
    fn a_new_list_passes_on_what_changed_meanwhile() {
        let (reader, writer) = reflector::store::<Task>();
        let mut trigger = Trigger::new(writer);
        for (generation, worth) in [(1, true), (1, false), (2, true)] {
            trigger.take(Event::Init);
            assert_eq!(trigger.take(Event::InitApply(task(generation))).is_some(), worth);
            trigger.take(Event::InitDone);
            assert_eq!(reader.len(), 1);
        }
    }
}
