//! A whole system on the real parts: an operator and agents as processes, with stores of their own.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::cluster::{Piece, SERVICE_ACCOUNT};
use crate::programs::{Program, free_port};
use crate::wait::until;

/// An operator beside the first.
pub struct Follower {
    /// Its process.
    pub program: Program,
    api: u16,
    metrics: u16,
    gateway: u16,
}

impl Follower {
    /// URL of its metrics and health.
    pub fn metrics(&self) -> String {
        format!("http://127.0.0.1:{}", self.metrics)
    }
}

/// A whole system. The piece of the cluster, the operator's ports and the agents belong to one test.
pub struct Stage {
    /// Namespace and nodes.
    pub piece: Piece,
    /// State directories, tokens, logs.
    pub directory: TempDir,
    /// The operator, when it runs.
    pub operator: Option<Program>,
    /// URL of the HTTP API.
    pub api: String,
    /// URL of metrics and health.
    pub metrics: String,
    gateway: u16,
    /// For the HTTP API.
    pub http: reqwest::Client,
    /// Name of the database in MongoDB.
    pub database: String,
    /// Beginning of every key in Redis.
    pub prefix: String,
}

impl Drop for Stage {
    /// What a failed test leaves to look at.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for entry in std::fs::read_dir(self.path()).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "log") {
                    let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                    let lines: Vec<&str> = text.lines().collect();
                    let tail = lines[lines.len().saturating_sub(60)..].join("\n");
                    println!("--- {}\n{tail}", entry.path().display());
                }
            }
        }
    }
}

impl Stage {
    /// A namespace, and an operator that is ready.
    pub async fn new(test: &str) -> Self {
        let piece = Piece::new(test).await;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (api, metrics) = (free_port(), free_port());
        let mut stage = Self {
            database: piece.namespace.clone(),
            prefix: format!("{}:", piece.namespace),
            piece,
            directory,
            operator: None,
            api: format!("http://127.0.0.1:{api}"),
            metrics: format!("http://127.0.0.1:{metrics}"),
            gateway: free_port(),
            http: reqwest::Client::new(),
        };
        stage.start_operator().await;
        stage
    }

    /// Starts the operator, and waits until it is ready.
    pub async fn start_operator(&mut self) {
        let program = Program::start("operator", "operator", self.path(), &self.operator_arguments());
        self.operator = Some(program);
        let ready = format!("{}/readyz", self.metrics);
        let begun = self.operator.as_mut().expect("just started");
        until("the operator is ready", Duration::from_secs(30), || async {
            let answer = self.http.get(&ready).send().await.map_err(|error| error.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.text().await.unwrap_or_default()) }
        })
        .await;
        assert!(begun.is_running(), "the operator ended:\n{}", begun.log());
    }

    /// Port of the gateway, on the loopback.
    pub fn gateway_port(&self) -> u16 {
        self.gateway
    }

    /// The flags of the operator.
    pub fn operator_arguments(&self) -> Vec<String> {
        let write = |name: &str, text: &str| {
            let path = self.path().join(name);
            std::fs::write(&path, text).expect("a written file");
            path.display().to_string()
        };
        let port = |url: &str| url.trim_start_matches("http://").to_owned();
        [
            ("--storage", "mongodb".to_owned()),
            ("--mongodb-url-file", write("mongodb-url", &self.piece.parts.mongodb_uri)),
            ("--mongodb-database", self.database.clone()),
            ("--redis-url-file", write("redis-url", &self.piece.parts.redis_url)),
            ("--redis-prefix", self.prefix.clone()),
            ("--kubeconfig", self.piece.parts.kubeconfig.display().to_string()),
            ("--watch-namespace", self.piece.namespace.clone()),
            ("--lease-namespace", self.piece.namespace.clone()),
            ("--gateway-listen", format!("127.0.0.1:{}", self.gateway)),
            ("--advertise", format!("127.0.0.1:{}", self.gateway)),
            ("--api-listen", port(&self.api)),
            ("--metrics-listen", port(&self.metrics)),
            ("--agent-service-account", format!("{}/{SERVICE_ACCOUNT}", self.piece.namespace)),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
    }

    /// A second operator beside the first, with ports of its own: a follower. Its ports become the stage's once
    /// [`Stage::promote`] is called.
    pub fn start_follower(&self) -> Follower {
        let (api, metrics, gateway) = (free_port(), free_port(), free_port());
        let mut arguments = self.operator_arguments();
        for (flag, port) in
            [("--api-listen", api), ("--metrics-listen", metrics), ("--gateway-listen", gateway)]
        {
            let at = arguments.iter().position(|argument| argument == flag).expect("a flag of the operator");
            arguments[at + 1] = format!("127.0.0.1:{port}");
        }
        let advertised = arguments.iter().position(|argument| argument == "--advertise").expect("a flag");
        arguments[advertised + 1] = format!("127.0.0.1:{gateway}");
        let program = Program::start("operator", &format!("operator-{gateway}"), self.path(), &arguments);
        Follower { program, api, metrics, gateway }
    }

    /// Another operator at the very ports of the first, which has ended: where the agents still knock.
    pub fn start_follower_at(stage: &Self) -> Program {
        Program::start("operator", "operator-again", stage.path(), &stage.operator_arguments())
    }

    /// The follower takes the place of the operator.
    pub fn promote(&mut self, follower: Follower) {
        self.api = format!("http://127.0.0.1:{}", follower.api);
        self.metrics = format!("http://127.0.0.1:{}", follower.metrics);
        self.gateway = follower.gateway;
        self.operator = Some(follower.program);
    }

    /// A Node object and an agent for it, connected.
    pub async fn agent(&self, short: &str, labels: &[(&str, &str)]) -> Program {
        let node = self.piece.node(short, labels).await;
        let token = self.piece.agent_token(&node).await;
        secret(&self.path().join(format!("{short}.token")), &token);
        let agent = self.start_agent(short);
        self.reachable(short).await;
        agent
    }

    /// Starts the agent of a node that has its token already.
    pub fn start_agent(&self, short: &str) -> Program {
        Program::start("node-agent", short, self.path(), &self.agent_arguments(short))
    }

    /// The flags of an agent.
    pub fn agent_arguments(&self, short: &str) -> Vec<String> {
        let path = |name: String| self.path().join(name).display().to_string();
        [
            ("--operator-url", format!("ws://127.0.0.1:{}", self.gateway)),
            ("--token-file", path(format!("{short}.token"))),
            ("--state-dir", path(format!("{short}.state"))),
            ("--profile", "container".to_owned()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
    }

    /// Waits until the API says that the node is reachable.
    pub async fn reachable(&self, short: &str) {
        let name = self.piece.node_name(short);
        until(&format!("{name} is reachable"), Duration::from_secs(20), || async {
            let node = self.get(&format!("/api/v1/nodes/{name}")).await?;
            if node["reachable"] == true { Ok(()) } else { Err(node.to_string()) }
        })
        .await;
    }

    /// A JSON answer of the HTTP API.
    ///
    /// # Errors
    /// What it said instead.
    pub async fn get(&self, path: &str) -> Result<serde_json::Value, String> {
        let answer =
            self.http.get(format!("{}{path}", self.api)).send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| error.to_string())?;
        if !status.is_success() {
            return Err(format!("{status}: {text}"));
        }
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    /// The temporary directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Stops the operator and removes what the test made in the cluster and the stores.
    pub async fn close(mut self) {
        if let Some(operator) = self.operator.take() {
            operator.stop(Duration::from_secs(30)).await;
        }
        let mongo = mongodb::Client::with_uri_str(&self.piece.parts.mongodb_uri).await.expect("a client");
        mongo.database(&self.database).drop().await.expect("database dropped");
        self.piece.close().await;
    }
}

/// Writes a file that only we can read, as a token's has to be.
pub fn secret(path: &Path, text: &str) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(path).expect("a token file");
    file.write_all(text.as_bytes()).expect("a token file");
}
