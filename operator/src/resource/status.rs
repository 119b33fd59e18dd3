//! The status of a Task. Bounded, independent of the number of nodes.
//!
//! Names that only the operator writes are strings and not enums: an older operator must be able to read the status of a
//! newer one.

#![expect(clippy::doc_markdown, reason = "kubectl explain prints these texts as they are")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use schemars::JsonSchema;
use sentinel_protocol::requester::{MAX_GROUPS, RequestedBy, Requester};
use serde::{Deserialize, Serialize};

/// Number of nodes in `status.nodes`, and of targets in `status.run.targets`.
pub const MAX_LISTED: usize = 100;

/// Number of earlier Runs in `status.recentRuns`.
pub const MAX_RECENT_RUNS: usize = 10;

/// The status of the Task. `observedGeneration` is -1 until the operator has observed the Task.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    /// The `metadata.generation` that this status is about, -1 before the first reconciliation. Example: `3`.
    #[serde(default = "unseen")]
    pub observed_generation: i64,

    /// A summary for people; programs read the conditions. Example: `Running`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub phase: Option<String>,

    /// Conditions of the Task, for programs: Accepted, Reconciling, Ready, Complete, Failed, Stalled, Suspended,
    /// Archived. Example: `kubectl wait --for=condition=Complete stask/hello`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The latest Run. Example: `{number: 2, trigger: SpecChange}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunStatus>,

    /// What the Run that is due waits for: an approval of exactly this. Example:
    /// `{run: 3, specHash: 196549c399bb6b28…, targetsDigest: 3f1c2a9b04d7e815…, targetCount: 24}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaiting_approval: Option<AwaitingApproval>,

    /// Instead of a Run, with onRecreate OncePerSpec: the Run of an earlier Task of this name that ran the same.
    /// Example: `{taskUid: 0f8e…, number: 1, verdict: Complete}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier_run: Option<EarlierRunStatus>,

    /// Up to 100 nodes of the latest Run, failures first; the API has all of them. Example:
    /// `[{node: worker-1, state: Failed, exitCode: 3}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["node"]))]
    pub nodes: Vec<NodeStatus>,

    /// Up to 10 earlier Runs, newest first. Example: `[{number: 1, verdict: Complete}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["number"]))]
    pub recent_runs: Vec<RecentRun>,

    /// One-time requests that were handled, so that each is handled once. Example: `{cancel: 2}`.
    #[serde(default, skip_serializing_if = "Handled::is_empty")]
    pub handled: Handled,
}

fn unseen() -> i64 {
    -1
}

impl Default for TaskStatus {
    fn default() -> Self {
        Self {
            observed_generation: unseen(),
            phase: None,
            conditions: Vec::new(),
            run: None,
            awaiting_approval: None,
            earlier_run: None,
            nodes: Vec::new(),
            recent_runs: Vec::new(),
            handled: Handled::default(),
        }
    }
}

/// One execution of a Task on all its targets.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RunStatus {
    /// Its number in this Task: 1, 2, 3 and so on. Example: `2`.
    pub number: i64,

    /// Why it began: SpecChange or RerunToken. Example: `SpecChange`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub trigger: String,

    /// Digest of the fields that decide what runs and where. Example: `196549c399bb6b28…`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub spec_hash: String,

    /// The rerunToken it began with. Example: `2026-11-24`.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub rerun_token: String,

    /// When it began. Example: `2026-11-24T03:00:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<MicroTime>,

    /// When its last target ended. Example: `2026-11-24T03:00:07Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<MicroTime>,

    /// Complete or Failed; absent while it is active. Example: `Complete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub verdict: Option<String>,

    /// Why it starts no more commands; absent otherwise. Example: `Cancelled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub stopping: Option<String>,

    /// Who asked for it, as stamped when it began; absent where nothing is stamped. Example: `{author: {user: alice}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<RunRequestedBy>,

    /// Who cancelled it; absent if it was not cancelled, or where that is unknown. Example: `{user: bob}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<Person>,

    /// Who approved it; absent if it needed no approval. Example: `{user: bob}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<Person>,

    /// The ceiling that it began within; absent without ceilings. Example: `{name: team-a, maxConcurrent: 20}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<RunCeilingStatus>,

    /// Number of targets by state. Example: `{succeeded: 37, running: 13}`.
    #[serde(default)]
    pub counts: Counts,

    /// Finished targets out of total. Example: `37/50`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub progress: String,

    /// The target list, if it has at most 100 names; a longer one is in TargetSlices. Example: `[worker-1]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 253)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub targets: Vec<String>,

    /// Number of targets. Example: `50`.
    #[serde(default)]
    pub target_count: i64,

    /// Number of TargetSlices that hold the target list; 0 when the list is in targets. Example: `10`.
    #[serde(default)]
    pub target_slices: i64,

    /// Digest of the target list in the TargetSlices, a part of their names. Example: `3f1c2a9b04d7e815`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub targets_digest: String,
}

/// What of a ceiling holds while a Run is active, as it was when the Run began.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RunCeilingStatus {
    /// Its name. Example: `team-a`.
    #[schemars(length(max = 63))]
    pub name: String,

    /// Targets that are active at once, at most, whatever the Task asks for. Example: `20`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<i64>,
}

/// A Run that begins once another person than those behind it approves it.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AwaitingApproval {
    /// The number that the Run will have. Example: `3`.
    pub run: i64,

    /// Digest of the fields that decide what runs and where. Example: `196549c399bb6b28…`.
    #[schemars(length(max = 64))]
    pub spec_hash: String,

    /// SHA-256 of the names of its targets, each with a line feed behind it. Example: `3f1c2a9b04d7e815…`.
    #[schemars(length(max = 64))]
    pub targets_digest: String,

    /// The users who are behind it and cannot approve it, the author first; none where that is unknown. Example: `[alice]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), inner(length(max = 256)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub requested_by: Vec<String>,

    /// Number of its targets. Example: `24`.
    pub target_count: i64,

    /// The first of its targets, at most 10. Example: `[worker-1, worker-2]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(max = 253)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub first_targets: Vec<String>,

    /// The ceiling that asks for the approval. Example: `team-a`.
    #[schemars(length(max = 63))]
    pub ceiling: String,

    /// How long an approval will be valid, seconds. Example: `3600`.
    pub valid_for_seconds: i64,
}

/// Who is behind a Run.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RunRequestedBy {
    /// Who created the Task. Example: `{user: alice}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creator: Option<Person>,

    /// Who last changed its spec before the Run. Example: `{user: alice}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Person>,

    /// Who set the annotation that asks for a rerun, if that is why the Run began. Example: `{user: bob}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<Person>,

    /// Why it is unknown who asked: NotStamped, Signature, OtherTask, SpecChanged, Unnamed or RerunNotStamped; absent when
    /// it is known. Example: `NotStamped`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub unknown: Option<String>,
}

/// A user as the API server has authenticated them.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// The user's name. Example: `system:serviceaccount:ops:deployer`.
    #[schemars(length(max = 256))]
    pub user: String,

    /// Their uid, where the authenticator has one. Example: `0f8e4d9c-3b1a-4a51-9d0c-6c1d2f5b7a10`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub uid: Option<String>,

    /// The groups they were in, at most 128. Example: `[ops, system:authenticated]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(max = 256)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub groups: Vec<String>,
}

impl From<&Requester> for Person {
    fn from(who: &Requester) -> Self {
        let groups = who.groups.iter().map(ToString::to_string).collect();
        Self { user: who.user.to_string(), uid: who.uid.as_ref().map(ToString::to_string), groups }
    }
}

impl From<&Person> for Requester {
    fn from(person: &Person) -> Self {
        let groups = person.groups.iter().take(MAX_GROUPS).map(|group| group.as_str().into()).collect();
        Self { user: person.user.as_str().into(), uid: person.uid.as_deref().map(Into::into), groups }
    }
}

impl RunRequestedBy {
    /// Who asked, if that is known.
    pub fn known(&self) -> Option<RequestedBy> {
        let author = self.author.as_ref().filter(|_| self.unknown.is_none())?;
        let known = RequestedBy::new(author.into(), self.rerun.as_ref().map(Into::into));
        Some(RequestedBy { creator: self.creator.as_ref().map(Into::into), ..known })
    }
}

/// The Run of an earlier Task of the same name that ran the same.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EarlierRunStatus {
    /// The uid of that Task. Example: `0f8e4d9c-3b1a-4a51-9d0c-6c1d2f5b7a10`.
    #[schemars(length(max = 253))]
    pub task_uid: String,

    /// Its number there. Example: `1`.
    pub number: i64,

    /// Digest of the fields that decide what runs and where. Example: `196549c399bb6b28…`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub spec_hash: String,

    /// The rerunToken it began with. Example: `2026-11-24`.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub rerun_token: String,

    /// Complete or Failed; absent if History has only its begin. Example: `Complete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub verdict: Option<String>,

    /// When its last target ended. Example: `2026-11-24T03:00:07Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<MicroTime>,
}

/// Number of targets by state. The five add up to all targets.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Targets that have not started. Example: `10`.
    #[serde(default)]
    pub waiting: i64,
    /// Targets on which the command was dispatched or is running. Example: `13`.
    #[serde(default)]
    pub running: i64,
    /// Targets that succeeded. Example: `37`.
    #[serde(default)]
    pub succeeded: i64,
    /// Targets that ended without success. Example: `2`.
    #[serde(default)]
    pub failed: i64,
    /// Targets that were never reached, or whose result is unknown. Example: `1`.
    #[serde(default)]
    pub unreachable: i64,
}

/// The state of one target.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node's name. Example: `worker-1`.
    #[schemars(length(max = 253))]
    pub node: String,
    /// Pending, WaitingForNode, Dispatched, Running, or its Outcome. Example: `Failed`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub state: String,
    /// Number of its latest Attempt, absent for the first. Example: `2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i64>,
    /// Details of the state, for people. Example: `exited with code 3`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// The command's exit code, where it has one. Example: `3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// When the command was started, by the node's clock. Example: `2026-11-24T03:00:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<MicroTime>,
    /// When it ended, by the node's clock. Example: `2026-11-24T03:00:07Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<MicroTime>,
    /// Whether its agent is Reachable or Unreachable. Example: `Reachable`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub reach: String,
}

/// An earlier Run.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RecentRun {
    /// Its number in this Task. Example: `1`.
    pub number: i64,
    /// Why it began. Example: `SpecChange`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub trigger: String,
    /// Complete or Failed. Example: `Complete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub verdict: Option<String>,
    /// When it began. Example: `2026-11-24T03:00:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<MicroTime>,
    /// When it ended. Example: `2026-11-24T03:00:07Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<MicroTime>,
    /// Number of targets by state. Example: `{succeeded: 50}`.
    #[serde(default)]
    pub counts: Counts,
}

/// One-time requests that were handled.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Handled {
    /// The Run that the `sentinelnode.dev/cancel` annotation last named. Example: `2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<i64>,
    /// What the `sentinelnode.dev/rerun` annotation last held. Example: `2026-11-24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub rerun: Option<String>,
}

impl Handled {
    /// Whether no request was handled yet.
    pub fn is_empty(&self) -> bool {
        self.cancel.is_none() && self.rerun.is_none()
    }
}
