//! A frozen target list: in the status while it is short, in slices beyond that.
//!
//! The name of a slice has a digest of its list, so that a slice that exists already is the right one: persisting again
//! after a crash, or by a second operator, can neither fail nor mix two lists.

use kube::api::{ObjectMeta, Resource};
use sentinel_protocol::ids::{NodeName, RunNumber};
use sha2::{Digest, Sha256};

use super::error::ClusterError;
use crate::digest;
use crate::resource::slice::{Frozen, MAX_SLICE_BYTES, MAX_SLICE_NODES};
use crate::resource::status::{MAX_LISTED, RunStatus};
use crate::resource::{TargetSlice, TargetSliceSpec, Task};

/// Label of a slice: the uid of its Task.
pub const TASK_UID_LABEL: &str = "sentinelnode.dev/task-uid";

/// Label of a slice: the digest of the whole list that it is a part of.
pub const DIGEST_LABEL: &str = "sentinelnode.dev/targets-digest";

/// Nodes in a slice of releases before 0.2. A list that they put into one slice is put there under the same name, so that either
/// release reads it.
const EARLIER_SLICE_NODES: usize = 1000;

/// What the status must record of this list.
pub fn plan(run: RunNumber, targets: &[NodeName]) -> Frozen {
    if targets.len() <= MAX_LISTED {
        return Frozen { targets: targets.to_vec(), ..Frozen::default() };
    }
    let slices = parts(targets).count();
    Frozen {
        targets: Vec::new(),
        slices: u32::try_from(slices).unwrap_or(u32::MAX),
        digest: digest_of(run, (targets.len() > EARLIER_SLICE_NODES).then_some(slices), targets),
    }
}

/// The slices that hold this list; empty when it is short.
pub fn slices(task: &Task, run: RunNumber, targets: &[NodeName]) -> Vec<TargetSlice> {
    let frozen = plan(run, targets);
    if frozen.slices == 0 {
        return Vec::new();
    }
    parts(targets).enumerate().map(|(index, nodes)| slice(task, run, &frozen.digest, index, nodes)).collect()
}

/// As few parts as the limits of a slice allow.
fn parts(mut targets: &[NodeName]) -> impl Iterator<Item = &[NodeName]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = targets.iter().take(MAX_SLICE_NODES).take_while(|node| {
            bytes += node.as_str().len() + 3;
            bytes <= MAX_SLICE_BYTES
        });
        let (part, rest) = targets.split_at(fits.count());
        targets = rest;
        (!part.is_empty()).then_some(part)
    })
}

/// The name of a slice of this Task.
pub fn slice_name(task: &Task, digest: &str, index: usize) -> String {
    let uid = task.metadata.uid.as_deref().unwrap_or_default();
    let uid: String = uid.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    format!("targets-{uid}-{digest}-{index}").to_ascii_lowercase()
}

/// The list that the status records, from the slices found.
///
/// # Errors
/// [`ClusterError::TargetsDamaged`] when a slice is missing, or the list is not the recorded one.
pub fn assemble(task: &Task, run: &RunStatus, found: &[TargetSlice]) -> Result<Vec<NodeName>, ClusterError> {
    let damaged = |wrong: String| ClusterError::TargetsDamaged { task: display(task), wrong };
    let mut names = Vec::new();
    for index in 0..usize::try_from(run.target_slices).unwrap_or(0) {
        let name = slice_name(task, &run.targets_digest, index);
        let slice = found.iter().find(|slice| slice.metadata.name.as_deref() == Some(&name));
        let slice = slice.ok_or_else(|| damaged(format!("TargetSlice {name} is missing")))?;
        names.extend_from_slice(&slice.spec.nodes);
    }
    if run.target_slices == 0 {
        names.clone_from(&run.targets);
    }
    if i64::try_from(names.len()).ok() != Some(run.target_count) {
        return Err(damaged(format!(
            "it has {} names, status.run.targetCount is {}",
            names.len(),
            run.target_count
        )));
    }
    let targets: Result<Vec<NodeName>, _> = names.into_iter().map(NodeName::new).collect();
    let targets = targets.map_err(|error| damaged(error.to_string()))?;
    let number = RunNumber(u32::try_from(run.number).unwrap_or(u32::MAX));
    if run.target_slices > 0 && !is_digest_of(number, run, &targets) {
        return Err(damaged("its names are not those that were frozen".to_owned()));
    }
    Ok(targets)
}

fn slice(task: &Task, run: RunNumber, digest: &str, index: usize, nodes: &[NodeName]) -> TargetSlice {
    let mut labels = std::collections::BTreeMap::new();
    labels.insert(TASK_UID_LABEL.to_owned(), task.metadata.uid.clone().unwrap_or_default());
    labels.insert(DIGEST_LABEL.to_owned(), digest.to_owned());
    TargetSlice {
        metadata: ObjectMeta {
            name: Some(slice_name(task, digest, index)),
            namespace: task.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: task.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: TargetSliceSpec {
            run: i64::from(run.0),
            index: i64::try_from(index).unwrap_or(i64::MAX),
            nodes: nodes.iter().map(ToString::to_string).collect(),
        },
    }
}

/// Whether the status has the digest of this list; releases before 0.2 left out into how many slices it was cut.
fn is_digest_of(number: RunNumber, run: &RunStatus, targets: &[NodeName]) -> bool {
    let slices = usize::try_from(run.target_slices).ok();
    [slices, None].into_iter().any(|slices| digest_of(number, slices, targets) == run.targets_digest)
}

/// A digest of the Run, the number of slices and the names: enough to distinguish the lists of one Task, and a slice of one cut
/// from a slice of another.
fn digest_of(run: RunNumber, slices: Option<usize>, targets: &[NodeName]) -> String {
    let mut hash = Sha256::new();
    hash.update(run.0.to_be_bytes());
    if let Some(slices) = slices {
        hash.update((slices as u64).to_be_bytes());
    }
    for node in targets {
        hash.update(node.as_str());
        hash.update([0]);
    }
    digest::short(hash)
}

/// `namespace/name` of a Task, for messages.
pub(crate) fn display(task: &Task) -> String {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", of(&task.metadata.namespace), of(&task.metadata.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::TaskSpec;

    fn names(count: usize, length: usize) -> Vec<NodeName> {
        (0..count).map(|n| NodeName::new(format!("{n:06}{}", "a".repeat(length - 6))).unwrap()).collect()
    }

    #[test]
    fn slices_are_as_few_as_their_limits_allow() {
        for (count, length, slices) in [
            (101, 10, 1),
            (15_000, 44, 1),
            (20_000, 10, 1),
            (20_001, 10, 2),
            (4096, 253, 1),
            (4097, 253, 2),
            (12_000, 253, 3),
        ] {
            let list = names(count, length);
            let parts: Vec<_> = parts(&list).collect();
            assert_eq!(parts.len(), slices, "{count} names of {length} bytes");
            assert_eq!(parts.concat(), list);
        }
    }

    #[test]
    fn a_list_that_an_earlier_release_recorded_is_still_whole() {
        let list = names(2500, 10);
        let earlier = digest_of(RunNumber(1), None, &list);
        let task = Task::new("t", TaskSpec::stand_in());
        let found: Vec<_> = list
            .chunks(1000)
            .enumerate()
            .map(|(at, part)| slice(&task, RunNumber(1), &earlier, at, part))
            .collect();
        let run = RunStatus {
            number: 1,
            target_count: 2500,
            target_slices: 3,
            targets_digest: earlier,
            ..RunStatus::default()
        };
        assert_eq!(assemble(&task, &run, &found).unwrap(), list);
        assert_ne!(
            plan(RunNumber(1), &list).digest,
            run.targets_digest,
            "its slices would be taken for these"
        );
        let short = names(1000, 10);
        let frozen = plan(RunNumber(1), &short);
        assert_eq!((frozen.slices, frozen.digest), (1, digest_of(RunNumber(1), None, &short)));
    }
}
