//! The objects of an embedded cluster, and the rules by which they change.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::Event;
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_core::reconcile::{Finalizer, Notice};
use sentinel_protocol::ids::{NodeName, TaskRef};
use sentinel_protocol::requester::Requester;
use sentinel_protocol::time::UnixMillis;
use serde::Serialize;
use uuid::Uuid;

use super::commits::Commits;
use super::disk::{self, Found};
use super::log_file::Change;
use super::published::{Events, Published};
use crate::cluster::error::ClusterError;
use crate::cluster::targets::display;
use crate::resource::invalid::describe;
use crate::resource::marks::FINALIZER;
use crate::resource::stamp::Stamps;
use crate::resource::{TargetSlice, Task, TaskStatus, schema, version};

/// Most deleted Tasks that are remembered for watches; a watch that is further behind lists again.
const MAX_DELETED: usize = 1024;

/// The namespace of an object that names none.
const DEFAULT_NAMESPACE: &str = "default";

type Key = (String, String);

#[derive(Debug, Default)]
pub(super) struct State {
    version: u64,
    tasks: BTreeMap<Key, (u64, Task)>,
    /// The Tasks by the version of their last change. Versions of restored Tasks may be equal: no watch asks for those.
    by_version: BTreeMap<u64, Key>,
    deleted: VecDeque<(u64, Task)>,
    slices: BTreeMap<String, TargetSlice>,
    nodes: BTreeMap<NodeName, NodeFacts>,
    nodes_version: u64,
    events: Events,
    commits: Option<Arc<Commits>>,
}

/// Who asks for a change, and how that is stamped on the Task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Author<'a> {
    pub(super) stamps: &'a Stamps,
    pub(super) who: Option<&'a Requester>,
}

/// The version up to which a watch has been served.
#[derive(Debug, Default)]
pub(super) struct Cursor(Option<u64>);

impl State {
    pub(super) fn restored(commits: Arc<Commits>, found: Found) -> Self {
        let mut state = Self { commits: Some(commits), ..Self::default() };
        for task in found.tasks {
            let version = version(&task);
            state.version = state.version.max(version);
            state.insert(version, task);
        }
        let named = |slice: TargetSlice| Some((slice.metadata.name.clone()?, slice));
        state.slices = found.slices.into_iter().filter_map(named).collect();
        state
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    // Writes of people.

    pub(super) fn get(&self, task: &TaskRef) -> Option<Task> {
        self.tasks.get(&(task.namespace.to_string(), task.name.to_string())).map(|(_, task)| task.clone())
    }

    pub(super) fn list(&self, namespace: Option<&str>) -> Vec<Task> {
        let wanted = |task: &&Task| namespace.is_none_or(|n| task.metadata.namespace.as_deref() == Some(n));
        self.tasks.values().map(|(_, task)| task).filter(wanted).cloned().collect()
    }

    pub(super) fn create(
        &mut self,
        task: &Task,
        by: Author<'_>,
        now: UnixMillis,
    ) -> Result<Task, ClusterError> {
        self.put(self.created(task, by, now)?)
    }

    /// The Task as [`Self::create`] would store it.
    pub(super) fn created(&self, task: &Task, by: Author<'_>, now: UnixMillis) -> Result<Task, ClusterError> {
        let doing = format!("create Task {}", display(task));
        let mut task = admitted(&doing, task)?;
        let metadata = &mut task.metadata;
        if metadata.name.is_none() {
            let random = Uuid::new_v4().simple().to_string();
            metadata.name = metadata.generate_name.as_ref().map(|prefix| format!("{prefix}{}", &random[..5]));
        }
        if self.tasks.contains_key(&key(&task)) {
            return Err(ClusterError::Exists { doing });
        }
        let metadata = &mut task.metadata;
        metadata.uid = Some(Uuid::new_v4().to_string());
        metadata.generation = Some(1);
        metadata.creation_timestamp = Some(time(now));
        metadata.deletion_timestamp = None;
        task.status = Some(TaskStatus::default());
        by.stamps.stamp(None, &mut task, by.who, now);
        Ok(task)
    }

    pub(super) fn apply(
        &mut self,
        task: &Task,
        by: Author<'_>,
        now: UnixMillis,
    ) -> Result<Task, ClusterError> {
        self.put(self.applied(task, by, now)?)
    }

    /// The Task as [`Self::apply`] would store it.
    pub(super) fn applied(&self, task: &Task, by: Author<'_>, now: UnixMillis) -> Result<Task, ClusterError> {
        let doing = format!("apply Task {}", display(task));
        let task = admitted(&doing, task)?;
        let Some((_, existing)) = self.tasks.get(&key(&task)) else { return self.created(&task, by, now) };
        let mut changed = existing.clone();
        for (old, new) in [
            (&mut changed.metadata.labels, task.metadata.labels),
            (&mut changed.metadata.annotations, task.metadata.annotations),
        ] {
            if let Some(new) = new.filter(|new| !new.is_empty()) {
                old.get_or_insert_default().extend(new);
            }
        }
        if changed.spec != task.spec {
            changed.spec = task.spec;
            changed.metadata.generation = changed.metadata.generation.map(|generation| generation + 1);
        }
        by.stamps.stamp(Some(existing), &mut changed, by.who, now);
        Ok(changed)
    }

    pub(super) fn annotate(
        &mut self,
        task: &TaskRef,
        (key, value): (&str, Option<String>),
        by: Author<'_>,
        now: UnixMillis,
    ) -> Result<Task, ClusterError> {
        let gone = || ClusterError::Gone { doing: format!("annotate Task {task} with {key}") };
        let existing = self.get(task).ok_or_else(gone)?;
        let mut task = existing.clone();
        let annotations = task.metadata.annotations.get_or_insert_default();
        match value {
            Some(value) => annotations.insert(key.to_owned(), value),
            None => annotations.remove(key),
        };
        by.stamps.stamp(Some(&existing), &mut task, by.who, now);
        self.put(task)
    }

    pub(super) fn delete(&mut self, task: &TaskRef, now: UnixMillis) -> Result<(), ClusterError> {
        let gone = || ClusterError::Gone { doing: format!("delete Task {task}") };
        let mut task = self.get(task).ok_or_else(gone)?;
        if task.metadata.finalizers.as_ref().is_none_or(Vec::is_empty) {
            return self.remove(&task);
        }
        if task.metadata.deletion_timestamp.is_none() {
            task.metadata.deletion_timestamp = Some(time(now));
            // As in an API server: a deletion request changes the generation.
            task.metadata.generation = task.metadata.generation.map(|generation| generation + 1);
            self.put(task)?;
        }
        Ok(())
    }

    // Writes of the operator.

    pub(super) fn write_status(&mut self, seen: &Task, status: TaskStatus) -> Result<Task, ClusterError> {
        let mut task = self.unchanged(seen, "write the status of")?;
        task.status = Some(status);
        self.put(task)
    }

    pub(super) fn write_status_and_hold(
        &mut self,
        seen: &Task,
        status: TaskStatus,
    ) -> Result<Task, ClusterError> {
        let mut task = self.unchanged(seen, "write the status of")?;
        task.status = Some(status);
        let finalizers = task.metadata.finalizers.get_or_insert_default();
        // `set_finalizer` reports why a Task that is being deleted gets none.
        if task.metadata.deletion_timestamp.is_none() && !finalizers.iter().any(|text| text == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        self.put(task)
    }

    pub(super) fn set_finalizer(&mut self, seen: &Task, finalizer: Finalizer) -> Result<Task, ClusterError> {
        let mut task = self.unchanged(seen, "set the finalizer of")?;
        let deleting = task.metadata.deletion_timestamp.is_some();
        let finalizers = task.metadata.finalizers.get_or_insert_default();
        let is_present = finalizers.iter().any(|text| text == FINALIZER);
        match finalizer {
            Finalizer::Present if !is_present && deleting => {
                return Err(ClusterError::Refused {
                    doing: format!("set the finalizer of Task {}", display(seen)),
                    code: 422,
                    message: "no new finalizers can be added if the object is being deleted".to_owned(),
                });
            }
            Finalizer::Present if !is_present => finalizers.push(FINALIZER.to_owned()),
            Finalizer::Present => {}
            Finalizer::Absent => finalizers.retain(|text| text != FINALIZER),
        }
        if deleting && finalizers.is_empty() {
            self.remove(&task)?;
            return Ok(task);
        }
        self.put(task)
    }

    pub(super) fn add_slices(&mut self, slices: Vec<TargetSlice>) -> Result<(), ClusterError> {
        for slice in slices {
            let Some(name) = slice.metadata.name.clone() else { continue };
            match self.slices.get(&name) {
                Some(existing) if existing.spec == slice.spec => continue,
                Some(_) => {
                    let wrong = format!("TargetSlice {name} exists already, with other nodes");
                    return Err(ClusterError::TargetsDamaged { task: "a Task".to_owned(), wrong });
                }
                None => {}
            }
            self.store(disk::slice_file(&name), Some(&slice))?;
            self.slices.insert(name, slice);
        }
        Ok(())
    }

    pub(super) fn slices_of(&self, task: &Task) -> Vec<TargetSlice> {
        self.slices.values().filter(|slice| owner(slice) == task.metadata.uid.as_deref()).cloned().collect()
    }

    pub(super) fn remove_old_slices(&mut self, task: &Task) -> Result<(), ClusterError> {
        let run = task.status.as_ref().and_then(|status| status.run.as_ref());
        let digest = run.map(|run| run.targets_digest.clone()).unwrap_or_default();
        let named = |slice: &TargetSlice| {
            let labels = slice.metadata.labels.as_ref();
            labels.and_then(|labels| labels.get(crate::cluster::targets::DIGEST_LABEL)) == Some(&digest)
        };
        self.remove_slices(task, |slice| !named(slice))
    }

    pub(super) fn publish(&mut self, task: &Task, notice: &Notice, at: UnixMillis) {
        let (namespace, name) = key(task);
        let Ok(task) = TaskRef::new(namespace, name) else { return };
        self.events.publish(task, notice, at);
    }

    pub(super) fn published(&self) -> Vec<Published> {
        self.events.all()
    }

    // Nodes.

    pub(super) fn set_nodes(&mut self, nodes: BTreeMap<NodeName, NodeFacts>) {
        if self.nodes != nodes || self.nodes_version == 0 {
            self.version += 1;
            self.nodes_version = self.version;
            self.nodes = nodes;
        }
    }

    // Watches.

    pub(super) fn task_changes(&self, cursor: &mut Cursor) -> Vec<Event<Task>> {
        let since = cursor.0.replace(self.version);
        let oldest = self.deleted.front().map_or(0, |(version, _)| *version);
        match since {
            Some(since) if self.deleted.len() < MAX_DELETED || oldest <= since => {
                let changed = self.by_version.range(since + 1..).filter_map(|(_, key)| self.tasks.get(key));
                let deleted = self.deleted.iter().rev().take_while(|(version, _)| *version > since);
                let mut events: Vec<(u64, Event<Task>)> =
                    changed.map(|(version, task)| (*version, Event::Apply(task.clone()))).collect();
                events.extend(deleted.map(|(version, task)| (*version, Event::Delete(task.clone()))));
                events.sort_by_key(|(version, _)| *version);
                events.into_iter().map(|(_, event)| event).collect()
            }
            _ => {
                let all = self.tasks.values().map(|(_, task)| Event::InitApply(task.clone()));
                std::iter::once(Event::Init).chain(all).chain([Event::InitDone]).collect()
            }
        }
    }

    /// Nodes change seldom here, so every change lists all of them.
    pub(super) fn node_changes(&self, cursor: &mut Cursor) -> Vec<Event<(NodeName, NodeFacts)>> {
        // Before the first `set_nodes` the list is not complete.
        if self.nodes_version == 0 || cursor.0 == Some(self.nodes_version) {
            return Vec::new();
        }
        cursor.0 = Some(self.nodes_version);
        let all = self.nodes.iter().map(|(name, facts)| Event::InitApply((name.clone(), facts.clone())));
        std::iter::once(Event::Init).chain(all).chain([Event::InitDone]).collect()
    }

    // Rules.

    /// The current Task, if it is still as it was read.
    fn unchanged(&self, seen: &Task, doing: &str) -> Result<Task, ClusterError> {
        let doing = || format!("{doing} Task {}", display(seen));
        let Some((_, task)) = self.tasks.get(&key(seen)) else {
            return Err(ClusterError::Gone { doing: doing() });
        };
        let (now, then) = (&task.metadata, &seen.metadata);
        if now.uid != then.uid || now.resource_version != then.resource_version {
            return Err(ClusterError::Conflict { doing: doing() });
        }
        Ok(task.clone())
    }

    /// Stores a Task; an unchanged one keeps its version.
    fn put(&mut self, mut task: Task) -> Result<Task, ClusterError> {
        let key = key(&task);
        if let Some((_, existing)) = self.tasks.get(&key)
            && *existing == task
        {
            return Ok(task);
        }
        task.metadata.resource_version = Some((self.version + 1).to_string());
        self.store(disk::task_file(&task), Some(&task))?;
        self.insert(self.version, task.clone());
        Ok(task)
    }

    fn insert(&mut self, version: u64, task: Task) {
        let key = key(&task);
        self.by_version.insert(version, key.clone());
        if let Some((before, _)) = self.tasks.insert(key, (version, task))
            && before != version
        {
            self.by_version.remove(&before);
        }
    }

    /// The next version, which changes this file; where there is a directory, it will be durable.
    fn store(&mut self, file: String, object: Option<&impl Serialize>) -> Result<(), ClusterError> {
        let version = self.version + 1;
        if let Some(commits) = &self.commits {
            let content = object.map_or(Ok(Vec::new()), serde_json::to_vec).map_err(|error| {
                ClusterError::Unavailable { doing: format!("write {file}"), source: Box::new(error) }
            })?;
            commits.queue(version, Change { file, content })?;
        }
        self.version = version;
        Ok(())
    }

    /// Removes a Task and what it owns.
    fn remove(&mut self, task: &Task) -> Result<(), ClusterError> {
        self.store(disk::task_file(task), None::<&Task>)?;
        if let Some((before, _)) = self.tasks.remove(&key(task)) {
            self.by_version.remove(&before);
        }
        self.deleted.push_back((self.version, task.clone()));
        while self.deleted.len() > MAX_DELETED {
            self.deleted.pop_front();
        }
        self.remove_slices(task, |_| true)
    }

    fn remove_slices(
        &mut self,
        task: &Task,
        which: impl Fn(&TargetSlice) -> bool,
    ) -> Result<(), ClusterError> {
        let ours = |slice: &TargetSlice| owner(slice) == task.metadata.uid.as_deref() && which(slice);
        let names: Vec<String> =
            self.slices.iter().filter(|(_, slice)| ours(slice)).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.store(disk::slice_file(&name), None::<&TargetSlice>)?;
            self.slices.remove(&name);
        }
        Ok(())
    }
}

/// Admission of a Task, as in an API server: defaults and validation.
fn admitted(doing: &str, task: &Task) -> Result<Task, ClusterError> {
    let refused = |message: String| ClusterError::Refused { doing: doing.to_owned(), code: 422, message };
    let json = serde_json::to_value(task).map_err(|error| refused(error.to_string()))?;
    let mut task = schema::admit(json).map_err(|problems| refused(describe(&problems)))?;
    task.metadata.namespace.get_or_insert_with(|| DEFAULT_NAMESPACE.to_owned());
    Ok(task)
}

fn key(task: &Task) -> Key {
    (
        task.metadata.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
        task.metadata.name.clone().unwrap_or_default(),
    )
}

fn owner(slice: &TargetSlice) -> Option<&str> {
    slice.metadata.owner_references.as_ref()?.first().map(|owner| owner.uid.as_str())
}

fn time(at: UnixMillis) -> Time {
    Time(Timestamp::from_second(at.0.div_euclid(1000)).unwrap_or_default())
}
