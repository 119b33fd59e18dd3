//! A real operator over embedded stores, and a real agent, each in a process of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_operator::clock::Clock;
use sentinel_operator::cluster::EmbeddedCluster;
use sentinel_operator::config::any_loopback_port;
use sentinel_operator::gateway::{Settings, StaticTokens};
use sentinel_operator::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use sentinel_operator::metrics::Registry;
use sentinel_operator::presence::memory::MemoryPresence;
use sentinel_operator::run::{Election, Operator, Options, Seams};
use sentinel_operator::server::Exposure;
use sentinel_operator::traces::Traces;
use sentinel_protocol::ids::{Epoch, NodeName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::worker::{self, Worker};
use crate::programs::Program;
use crate::testbed::secret;
use crate::wait::until;

/// The role of the operator.
pub(super) const OPERATOR: &str = "operator";

/// The agent as it is shipped: where cargo puts it, seen from the programs of the release profile.
pub(super) const AGENT: &str = "../agent/node-agent";

/// A command that prints the time at which it was started.
pub(super) const PRINT_TIME: &str = "date +%s%N";

/// Where an operator is, and who may connect.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Addresses {
    pub(super) api: SocketAddr,
    pub(super) gateway: SocketAddr,
    /// Token of each node.
    pub(super) tokens: BTreeMap<String, String>,
}

/// In a child: an operator as dev mode has it, but alone in its process and with its state in the given directory.
pub(super) fn operator(arguments: &[String]) {
    let directory = Path::new(&arguments[0]).to_owned();
    let nodes: Vec<NodeName> = worker::read_line();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let clock = Clock::system();
        let tokens = StaticTokens::new();
        let cluster =
            EmbeddedCluster::in_directory(&directory.join("cluster"), clock.clone()).expect("a cluster");
        cluster.set_nodes(
            nodes.iter().map(|node| (node.clone(), NodeFacts { labels: BTreeMap::new() })).collect(),
        );
        let options = EmbeddedOptions { clock: clock.clone(), ..EmbeddedOptions::default() };
        let history = EmbeddedHistory::open(directory.join("history.db"), options).expect("a history");
        let seams = Seams {
            cluster: Arc::new(cluster),
            history: Arc::new(history),
            presence: Arc::new(MemoryPresence::new(clock.clone())),
            auth: Arc::new(tokens.clone()),
            by_caller: None,
            exposure: Exposure::NO_TOKEN_REVIEW,
            clock,
            metrics: Registry::new(),
            traces: Traces::off(),
        };
        let options = Options {
            gateway: any_loopback_port(),
            gateway_tls: None,
            api: any_loopback_port().into(),
            base_path: sentinel_operator::http::BasePath::default(),
            metrics: None,
            background: Vec::new(),
            drain: Duration::from_secs(1),
            settings: Settings::default(),
            election: Election::Alone(Epoch::from(1)),
        };
        let operator = Operator::start(seams, options).await.expect("an operator");
        let tokens = nodes.iter().map(|node| (node.to_string(), tokens.issue(node))).collect();
        worker::write_line(&Addresses { api: operator.api_addr(), gateway: operator.gateway_addr(), tokens });
        operator.run_until(std::future::pending()).await.expect("an operator that runs");
    });
}

/// An operator in a child process.
pub(super) struct Setup {
    /// Everything on disk; removed at the end.
    pub(super) directory: TempDir,
    pub(super) operator: Worker,
    pub(super) addresses: Addresses,
    pub(super) api: Api,
}

impl Setup {
    /// An operator that knows these nodes.
    pub(super) async fn new(nodes: &[String]) -> Self {
        Self::on(tempfile::tempdir().expect("a temporary directory"), nodes).await
    }

    async fn on(directory: TempDir, nodes: &[String]) -> Self {
        let mut operator = Worker::start(OPERATOR, &[&directory.path().display().to_string()]);
        operator.send(&nodes).await;
        let addresses: Addresses = operator.receive().await;
        let api = Api::at(&format!("http://{}", addresses.api));
        Self { directory, operator, addresses, api }
    }

    /// Another operator in place of this one, with the same state.
    pub(super) async fn restart(self, nodes: &[String]) -> Self {
        self.operator.end().await;
        Self::on(self.directory, nodes).await
    }

    /// A real agent for one of the nodes, connected.
    pub(super) async fn agent(&self, node: &str) -> Program {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        secret(Path::new(&path("token")), &self.addresses.tokens[node]);
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
        let url = format!("{}/api/v1/executions/{}/1/{node}/{path}", self.url, task.uid);
        let mut last = String::new();
        // The log exists as soon as the operator has observed the Task.
        for _ in 0..2000 {
            let answer = self.http.get(&url).send().await.expect("an answer");
            if answer.status().is_success() {
                return answer;
            }
            last = answer.text().await.unwrap_or_default();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("no log at {url}: {last}")
    }

    /// Waits until the Run is over in the Task's status.
    pub(super) async fn finished(&self, task: &CreatedTask) {
        let path = format!("/api/v1/tasks/{}/{}", task.namespace, task.name);
        let begun = std::time::Instant::now();
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
