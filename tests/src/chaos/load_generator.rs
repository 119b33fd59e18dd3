//! Generates load: Tasks are created all the time, rerun, cancelled and deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use sentinel_operator::resource::Task;
use serde_json::json;

use super::rng::Rng;
use crate::programs::binary;

/// Timeout of a request to an API server that may be down.
const PATIENCE: Duration = Duration::from_secs(3);

/// What was requested; recorded before the request is sent.
#[derive(Debug, Default)]
pub struct Requests {
    /// Task names and Runs to cancel.
    pub cancelled: BTreeSet<(String, u32)>,
    /// Names of Tasks to delete.
    pub deleted: BTreeSet<String>,
    /// Names of Tasks to run again.
    pub rerun: BTreeMap<String, String>,
    /// Names of Tasks that the API server took.
    pub created: BTreeSet<String>,
}

/// Generates the load.
pub struct LoadGenerator {
    api: Api<Task>,
    nodes: Vec<String>,
    recording: PathBuf,
    most_millis: u64,
    rng: Rng,
    number: u64,
    /// What was requested.
    pub requests: Requests,
}

impl LoadGenerator {
    /// A load on these nodes; each command takes up to `most_millis` milliseconds.
    pub fn new(
        client: kube::Client,
        namespace: &str,
        nodes: Vec<String>,
        recording: &Path,
        most_millis: u64,
        rng: Rng,
    ) -> Self {
        let api = Api::namespaced(client, namespace);
        Self {
            api,
            nodes,
            recording: recording.to_owned(),
            most_millis,
            rng,
            number: 0,
            requests: Requests::default(),
        }
    }

    /// A step: mostly a new Task.
    pub async fn step(&mut self) {
        // A failed request is not retried: the check reads what exists.
        let _ = match self.rng.below(20) {
            0..=13 => self.create().await,
            14..=16 => self.rerun().await,
            17..=18 => self.cancel().await,
            _ => self.delete().await,
        };
    }

    /// A new Task on a random set of nodes.
    pub async fn create(&mut self) -> Option<()> {
        self.number += 1;
        let name = format!("t{}", self.number);
        let share = 10 + self.rng.below(91);
        let rng = &mut self.rng;
        let mut nodes: Vec<&String> = self.nodes.iter().filter(|_| rng.percent(share)).collect();
        if nodes.is_empty() {
            nodes.extend(self.nodes.first());
        }
        let spec = json!({
            "targets": {"nodeNames": nodes},
            "run": {"command": [binary("recorder"), self.recording, self.most_millis.to_string()], "sandbox": "Privileged"},
            "timeouts": {"grace": "1s", "start": "10m"},
            "rollout": {"maxConcurrent": if self.rng.percent(30) { "50%" } else { "100%" }},
        });
        self.submit(&name, spec).await
    }

    /// A Task of this name and spec.
    pub async fn submit(&mut self, name: &str, spec: serde_json::Value) -> Option<()> {
        let task = json!({
            "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task",
            "metadata": {"name": name}, "spec": spec,
        });
        let task: Task = serde_json::from_value(task).expect("a Task");
        let parameters = PostParams::default();
        let created = tokio::time::timeout(PATIENCE, self.api.create(&parameters, &task)).await.ok()?;
        match created {
            Ok(_) => drop(self.requests.created.insert(name.to_owned())),
            Err(kube::Error::Api(status)) if status.code == 400 || status.code == 422 => {
                panic!("the API server refuses the Task: {status:?}")
            }
            Err(_) => return None,
        }
        Some(())
    }

    /// All Tasks, as the API server has them.
    pub async fn tasks(&self) -> Vec<Task> {
        self.api.list(&ListParams::default()).await.expect("the API server answers").items
    }

    /// One of the latest Tasks that was not deleted.
    fn some_name(&mut self) -> Option<String> {
        let back = 1 + self.rng.below(20);
        let name = format!("t{}", self.number.checked_sub(back)?);
        (!self.requests.deleted.contains(&name)).then_some(name)
    }

    async fn rerun(&mut self) -> Option<()> {
        let name = self.some_name()?;
        let token = format!("r{}", self.rng.next_u64());
        self.requests.rerun.insert(name.clone(), token.clone());
        self.annotate(&name, "sentinelnode.dev/rerun", &token).await
    }

    async fn cancel(&mut self) -> Option<()> {
        let name = self.some_name()?;
        let task = tokio::time::timeout(PATIENCE, self.api.get(&name)).await.ok()?.ok()?;
        let run = task.status?.run?;
        if run.finished_at.is_some() {
            return None;
        }
        self.requests.cancelled.insert((name.clone(), run.number as u32));
        self.annotate(&name, "sentinelnode.dev/cancel", &run.number.to_string()).await
    }

    async fn delete(&mut self) -> Option<()> {
        let name = self.some_name()?;
        self.requests.deleted.insert(name.clone());
        let parameters = DeleteParams::default();
        tokio::time::timeout(PATIENCE, self.api.delete(&name, &parameters)).await.ok()?.ok().map(drop)
    }

    async fn annotate(&self, name: &str, key: &str, value: &str) -> Option<()> {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {key: value}}}));
        let parameters = PatchParams::default();
        tokio::time::timeout(PATIENCE, self.api.patch(name, &parameters, &patch)).await.ok()?.ok().map(drop)
    }
}
