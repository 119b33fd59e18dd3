//! A real operator in the test's process, over embedded stores, for agents that live elsewhere.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_operator::audit::Audit;
use sentinel_operator::clock::Clock;
use sentinel_operator::cluster::{EmbeddedCluster, TaskStore};
use sentinel_operator::config::any_loopback_port;
use sentinel_operator::controller::CurrentCeilings;
use sentinel_operator::gateway::{Settings, StaticTokens};
use sentinel_operator::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use sentinel_operator::metrics::Registry;
use sentinel_operator::presence::memory::MemoryPresence;
use sentinel_operator::run::{Election, Operator, Options, Seams};
use sentinel_operator::server::Exposure;
use sentinel_operator::traces::Traces;
use sentinel_protocol::ids::{Epoch, NodeName, TaskRef};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::wait::until;

/// The namespace of its Tasks.
pub const NAMESPACE: &str = "default";

/// An operator with one node.
pub struct EmbeddedOperator {
    /// Name of the node.
    pub node: String,
    /// The token of the node's agent.
    pub token: String,
    /// Address for the node's agent, on this machine's loopback.
    pub gateway: SocketAddr,
    cluster: EmbeddedCluster,
    api: String,
    http: reqwest::Client,
    stop: CancellationToken,
    directory: TempDir,
}

impl EmbeddedOperator {
    /// An operator that is up, with a node of this name.
    pub async fn new(node: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (clock, tokens) = (Clock::system(), StaticTokens::new());
        let name = NodeName::new(node).expect("a node's name");
        let cluster = EmbeddedCluster::in_memory(clock.clone());
        cluster.set_nodes(BTreeMap::from([(name.clone(), NodeFacts { labels: BTreeMap::new() })]));
        let history = EmbeddedHistory::open(directory.path().join("history.db"), EmbeddedOptions::default());
        let seams = Seams {
            cluster: Arc::new(cluster.clone()),
            history: Arc::new(history.expect("a history")),
            presence: Arc::new(MemoryPresence::new(clock.clone())),
            auth: Arc::new(tokens.clone()),
            by_caller: None,
            owner: None,
            exposure: Exposure::NO_TOKEN_REVIEW,
            clock,
            metrics: Registry::new(),
            traces: Traces::off(),
            audit: Audit::default(),
            ceilings: CurrentCeilings::default(),
        };
        let options = Options {
            gateway: any_loopback_port(),
            gateway_tls: None,
            api: any_loopback_port().into(),
            base_path: sentinel_operator::http::BasePath::default(),
            metrics: None,
            background: Vec::new(),
            drain: Duration::from_secs(3),
            settings: Settings::default(),
            election: Election::Alone(Epoch::from(1)),
        };
        let operator = Operator::start(seams, options).await.expect("an operator");
        let (api, gateway) = (operator.api_addr(), operator.gateway_addr());
        let stop = CancellationToken::new();
        tokio::spawn(operator.run_until(stop.clone().cancelled_owned()));
        Self {
            node: node.to_owned(),
            token: tokens.issue(&name),
            gateway,
            cluster,
            api: format!("http://{api}"),
            http: reqwest::Client::new(),
            stop,
            directory,
        }
    }

    /// The operator's directory.
    pub fn path(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Makes a Task for the node from what it runs and more of its spec; returns its uid.
    pub async fn task(&self, name: &str, run: Value, more: &[(&str, Value)]) -> String {
        let mut spec = json!({ "targets": { "all": true }, "run": run });
        for (field, value) in more {
            spec[*field] = value.clone();
        }
        let task = serde_json::from_value(json!({
            "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task",
            "metadata": { "name": name, "namespace": NAMESPACE }, "spec": spec,
        }));
        let task = self.cluster.create(task.expect("a Task")).await.expect("a valid Task");
        task.metadata.uid.expect("a uid")
    }

    /// Requests the cancellation of Run 1 of a Task.
    pub async fn cancel(&self, name: &str) {
        let task = TaskRef::new(NAMESPACE, name).unwrap();
        self.cluster.annotate(task, "sentinelnode.dev/cancel", Some("1".into())).await.expect("annotated");
    }

    /// A JSON answer of the API.
    ///
    /// # Errors
    /// The answer, when it is not a success.
    pub async fn get(&self, path: &str) -> Result<Value, String> {
        let text = self.text(path).await?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    /// An answer of the API.
    ///
    /// # Errors
    /// The answer, when it is not a success.
    pub async fn text(&self, path: &str) -> Result<String, String> {
        let answer = self.http.get(format!("{}{path}", self.api)).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| error.to_string())?;
        if status.is_success() { Ok(text) } else { Err(format!("{status}: {text}")) }
    }

    /// Run 1 of a Task on the node, as History has it.
    ///
    /// # Errors
    /// The answer of the API, when it is not a success.
    pub async fn execution(&self, uid: &str) -> Result<Value, String> {
        self.get(&format!("/api/v1/executions/{uid}/1/{}", self.node)).await
    }

    /// Waits for the end of Run 1 of a Task on the node, and returns the Execution.
    pub async fn ended(&self, uid: &str, within: Duration) -> Value {
        until(&format!("{uid} has ended"), within, || async {
            let execution = self.execution(uid).await?;
            if execution["outcome"].is_string() { Ok(execution) } else { Err(execution.to_string()) }
        })
        .await
    }

    /// The output of Run 1 of a Task on the node.
    ///
    /// # Errors
    /// The answer of the API, when it is not a success.
    pub async fn log(&self, uid: &str) -> Result<String, String> {
        self.text(&format!("/api/v1/executions/{uid}/1/{}/log", self.node)).await
    }

    /// Waits until the agent of a boot other than this one is connected; returns the new boot id.
    pub async fn connected(&self, not_boot: &str, within: Duration) -> String {
        until("the agent is connected", within, || async {
            let node = self.get(&format!("/api/v1/nodes/{}", self.node)).await?;
            match node["bootId"].as_str() {
                Some(boot) if node["reachable"] == true && boot != not_boot => Ok(boot.to_owned()),
                _ => Err(node.to_string()),
            }
        })
        .await
    }

    /// The script that makes a machine of `tests/vm` this node.
    pub fn script(&self) -> String {
        format!(
            "umask 077\necho {} >/run/token\nexec node-agent --operator-url ws://10.0.2.2:{} --token-file /run/token \
             --state-dir /var/lib/sentinel --profile host --node-name {}\n",
            self.token,
            self.gateway.port(),
            self.node
        )
    }
}

impl Drop for EmbeddedOperator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
