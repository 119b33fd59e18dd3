//! An operator and a real agent, each in a process of its own, and the operator's API.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::operator::{Addresses, OPERATOR, Wanted, token};
use super::worker::Worker;
use crate::journal;
use crate::programs::Program;
use crate::testbed::secret;
use crate::wait::until;

/// The agent as it is shipped: where cargo puts it, seen from the programs of the release profile.
pub(super) const AGENT: &str = "../agent/node-agent";

/// A command that prints the time at which it was started.
pub(super) const PRINT_TIME: &str = "date +%s%N";

/// An operator in a child process.
pub(super) struct Setup {
    /// Everything on disk; removed at the end.
    pub(super) directory: TempDir,
    pub(super) operator: Worker,
    pub(super) addresses: Addresses,
    pub(super) api: Api,
    wanted: Wanted,
}

impl Setup {
    /// An operator that knows these nodes.
    pub(super) async fn new(nodes: &[String]) -> Self {
        Self::with(Wanted { nodes: nodes.to_vec(), ..Wanted::default() }).await
    }

    /// An operator in a directory of its own.
    pub(super) async fn with(wanted: Wanted) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let wanted = Wanted { directory: directory.path().to_owned(), ..wanted };
        Self::on(directory, wanted).await
    }

    async fn on(directory: TempDir, wanted: Wanted) -> Self {
        let mut operator = Worker::start(OPERATOR, &[]);
        operator.send(&wanted).await;
        let addresses: Addresses = operator.receive().await;
        let api = Api::at(&format!("http://{}", addresses.api));
        Self { directory, operator, addresses, api, wanted }
    }

    /// Kills the operator, and starts another one with the same state at the same addresses.
    pub(super) async fn restart(self) -> Self {
        self.operator.end().await;
        let at = Some([self.addresses.gateway, self.addresses.api]);
        Self::on(self.directory, Wanted { at, ..self.wanted }).await
    }

    /// The tokens of all nodes.
    pub(super) fn tokens(&self) -> Vec<String> {
        self.wanted.nodes.iter().map(|node| token(node)).collect()
    }

    /// Waits until the agent has forgotten every Attempt: then all of its output is archived, and nowhere else.
    pub(super) async fn forgotten(&self) {
        let state = self.directory.path().join("agent-state");
        until("the agent has forgotten every Attempt", Duration::from_secs(30), || async {
            let left = journal::attempts(&state);
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }

    /// A real agent for one of the nodes, connected.
    pub(super) async fn agent(&self, node: &str) -> Program {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        secret(Path::new(&path("token")), &token(node));
        let agent = start_agent(
            self.directory.path(),
            &format!("ws://{}", self.addresses.gateway),
            &path("token"),
            &path("agent-state"),
        );
        let url = format!("/api/v1/nodes/{node}");
        until("the agent is connected", Duration::from_secs(20), || async {
            let node = self.api.get(&url).await?;
            if node["reachable"] == true { Ok(()) } else { Err(node.to_string()) }
        })
        .await;
        agent
    }
}

/// The agent's own program. Its log goes to `agent.log` in the directory.
pub(super) fn start_agent(directory: &Path, gateway: &str, token: &str, state: &str) -> Program {
    let arguments = ["--operator-url", gateway, "--token-file", token, "--state-dir", state, "--log", "warn"];
    Program::start(AGENT, "agent", directory, &arguments.map(str::to_owned))
}

/// The HTTP API of an operator.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) url: String,
    pub(super) http: reqwest::Client,
}

/// A Task, where it was made.
#[derive(Debug, Clone)]
pub(super) struct CreatedTask {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

impl CreatedTask {
    /// From the object that the API answers with.
    pub(super) fn of(task: &Value) -> Self {
        let text =
            |field: &str| task["metadata"][field].as_str().unwrap_or_else(|| panic!("{task}")).to_owned();
        Self { namespace: text("namespace"), name: text("name"), uid: text("uid") }
    }
}

impl Api {
    pub(super) fn at(url: &str) -> Self {
        Self { url: url.to_owned(), http: reqwest::Client::new() }
    }

    /// A JSON answer.
    pub(super) async fn get(&self, path: &str) -> Result<Value, String> {
        let answer =
            self.http.get(format!("{}{path}", self.url)).send().await.map_err(|error| error.to_string())?;
        let text = answer.text().await.map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    /// Makes a Task.
    pub(super) async fn create(&self, task: &Value) -> CreatedTask {
        let sent = self.http.post(format!("{}/api/v1/tasks", self.url)).json(task).send();
        let answer: Value = sent.await.expect("an answer").json().await.expect("JSON");
        CreatedTask::of(&answer)
    }

    /// All output of a Task's first Run on a node, as it comes; it ends with the command.
    pub(super) async fn follow(&self, task: &CreatedTask, node: &str) -> reqwest::Response {
        self.follow_path(task, node, "log?follow=true").await
    }

    /// A stream about a Task's first Run on a node, once there is one.
    pub(super) async fn follow_path(&self, task: &CreatedTask, node: &str, path: &str) -> reqwest::Response {
        self.open(task, node, path, Duration::from_millis(1)).await
    }

    /// The same, asked for again and again without a pause.
    pub(super) async fn follow_at_once(&self, task: &CreatedTask, node: &str) -> reqwest::Response {
        self.open(task, node, "log?follow=true", Duration::ZERO).await
    }

    async fn open(&self, task: &CreatedTask, node: &str, path: &str, pause: Duration) -> reqwest::Response {
        let url = format!("{}/api/v1/executions/{}/1/{node}/{path}", self.url, task.uid);
        let begun = Instant::now();
        // The log exists as soon as the operator has observed the Task.
        loop {
            let answer = self.http.get(&url).send().await.expect("an answer");
            if answer.status().is_success() {
                return answer;
            }
            let last = answer.text().await.unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(10), "no log at {url}: {last}");
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Deletes a Task.
    pub(super) async fn delete(&self, task: &CreatedTask) {
        let url = format!("{}/api/v1/tasks/{}/{}", self.url, task.namespace, task.name);
        let answer = self.http.delete(url).header("sentinel-request", "1").send().await.expect("an answer");
        assert!(answer.status().is_success(), "not deleted: {answer:?}");
    }

    /// Waits until the Run is over in the Task's status.
    pub(super) async fn finished(&self, task: &CreatedTask) {
        let path = format!("/api/v1/tasks/{}/{}", task.namespace, task.name);
        let begun = Instant::now();
        loop {
            let seen = self.get(&path).await.expect("the Task");
            if seen["status"]["run"]["finishedAt"].is_string() {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "it does not end: {seen}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Names of so many nodes.
pub(super) fn node_names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("n-{number:05}")).collect()
}

/// A Task that runs a shell command on some nodes.
pub(super) fn task(name: &str, targets: &Value, command: &str) -> Value {
    json!({
        "apiVersion": "sentinelnode.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "targets": targets,
            "run": {"command": ["sh", "-c", command]},
            "rollout": {"maxConcurrent": "100%"},
        },
    })
}

/// The agent's binary, relative to where cargo puts the others.
pub(super) fn agent_binary() -> std::path::PathBuf {
    crate::programs::binary(AGENT)
}
