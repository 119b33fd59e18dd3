//! A whole system on the real parts: an operator and agents as processes, with stores of their own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::certificates::ServerCertificate;
use crate::cluster::{SERVICE_ACCOUNT, TestNamespace};
use crate::ports::free_port;
use crate::programs::{Program, binary};
use crate::wait::until;

/// What differs from the default: programs of this build, and a gateway without TLS.
#[derive(Debug, Clone)]
pub struct Options {
    /// The operator's program.
    pub operator: PathBuf,
    /// The agents' program.
    pub agent: PathBuf,
    /// Certificate of the gateway; agents then dial `wss://`.
    pub tls: Option<ServerCertificate>,
    /// Further flags of the operator.
    pub flags: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { operator: binary("operator"), agent: binary("node-agent"), tls: None, flags: Vec::new() }
    }
}

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

/// A whole system. The namespace of the cluster, the operator's ports and the agents belong to one test.
pub struct Testbed {
    /// Namespace and nodes.
    pub namespace: TestNamespace,
    /// State directories, tokens, logs.
    pub directory: TempDir,
    /// The operator, when it runs.
    pub operator: Option<Program>,
    /// URL of the HTTP API.
    pub api: String,
    /// URL of metrics and health.
    pub metrics: String,
    gateway: u16,
    /// Programs, and the gateway's certificate. A change counts for what is started from then on.
    pub options: Options,
    /// For the HTTP API.
    pub http: reqwest::Client,
    /// Name of the database in MongoDB.
    pub database: String,
    /// Beginning of every key in Redis.
    pub prefix: String,
}

impl Drop for Testbed {
    /// Prints the logs of a failed test.
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

impl Testbed {
    /// A namespace, and an operator that is ready.
    pub async fn new(test: &str) -> Self {
        Self::with(test, Options::default()).await
    }

    /// The same with other programs or with TLS.
    pub async fn with(test: &str, options: Options) -> Self {
        let namespace = TestNamespace::new(test).await;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (api, metrics) = (free_port(), free_port());
        let mut testbed = Self {
            database: namespace.name.clone(),
            prefix: format!("{}:", namespace.name),
            namespace,
            directory,
            operator: None,
            api: format!("http://127.0.0.1:{api}"),
            metrics: format!("http://127.0.0.1:{metrics}"),
            gateway: free_port(),
            options,
            http: reqwest::Client::new(),
        };
        testbed.start_operator().await;
        testbed
    }

    /// Starts the operator, and waits until it is ready.
    pub async fn start_operator(&mut self) {
        let arguments = self.operator_arguments();
        let program = Program::start_binary(&self.options.operator, "operator", self.path(), &arguments);
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
        let tls = self.options.tls.iter().flat_map(|tls| {
            [
                ("--tls-cert-file", tls.certificate.display().to_string()),
                ("--tls-key-file", tls.key.display().to_string()),
            ]
        });
        [
            ("--storage", "mongodb".to_owned()),
            ("--mongodb-url-file", write("mongodb-url", &self.namespace.parts.mongodb_uri)),
            ("--mongodb-database", self.database.clone()),
            ("--redis-url-file", write("redis-url", &self.namespace.parts.redis_url)),
            ("--redis-prefix", self.prefix.clone()),
            ("--kubeconfig", self.namespace.parts.kubeconfig.display().to_string()),
            ("--watch-namespace", self.namespace.name.clone()),
            ("--lease-namespace", self.namespace.name.clone()),
            ("--gateway-listen", format!("127.0.0.1:{}", self.gateway)),
            ("--advertise", format!("127.0.0.1:{}", self.gateway)),
            ("--api-listen", port(&self.api)),
            ("--metrics-listen", port(&self.metrics)),
            ("--agent-service-account", format!("{}/{SERVICE_ACCOUNT}", self.namespace.name)),
        ]
        .into_iter()
        .chain(tls)
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .chain(self.options.flags.iter().cloned())
        .collect()
    }

    /// A second operator beside the first, with ports of its own: a follower. Its ports become the testbed's once
    /// [`Testbed::promote`] is called.
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

    /// Another operator at the ports of the first, which has ended; the agents still dial them.
    pub fn start_follower_at(testbed: &Self) -> Program {
        Program::start("operator", "operator-again", testbed.path(), &testbed.operator_arguments())
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
        self.add_node(short, labels).await;
        let agent = self.start_agent(short);
        self.reachable(short).await;
        agent
    }

    /// A Node object, and a token for its agent.
    pub async fn add_node(&self, short: &str, labels: &[(&str, &str)]) {
        let node = self.namespace.node(short, labels).await;
        let token = self.namespace.agent_token(&node).await;
        secret(&self.path().join(format!("{short}.token")), &token);
    }

    /// Starts the agent of a node that has its token already.
    pub fn start_agent(&self, short: &str) -> Program {
        let arguments = self.agent_arguments(short);
        Program::start_binary(&self.options.agent, short, self.path(), &arguments)
    }

    /// The same with this URL of the gateway, and trust in these certificates.
    pub fn start_agent_at(&self, short: &str, url: &str, ca: Option<&Path>) -> Program {
        let arguments = self.agent_arguments_at(short, url, ca);
        Program::start_binary(&self.options.agent, short, self.path(), &arguments)
    }

    /// The flags of an agent.
    pub fn agent_arguments(&self, short: &str) -> Vec<String> {
        self.agent_arguments_at(short, &format!("ws://127.0.0.1:{}", self.gateway), None)
    }

    fn agent_arguments_at(&self, short: &str, url: &str, ca: Option<&Path>) -> Vec<String> {
        let path = |name: String| self.path().join(name).display().to_string();
        [
            ("--operator-url", url.to_owned()),
            ("--token-file", path(format!("{short}.token"))),
            ("--state-dir", path(format!("{short}.state"))),
            ("--profile", "container".to_owned()),
        ]
        .into_iter()
        .chain(ca.map(|ca| ("--ca-file", ca.display().to_string())))
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
    }

    /// The sum of a metric of the operator over all of its labels; 0 where it is missing.
    ///
    /// # Errors
    /// When the operator does not answer.
    pub async fn metric(&self, name: &str) -> Result<f64, String> {
        let answer = self.http.get(format!("{}/metrics", self.metrics)).send().await;
        let text =
            answer.map_err(|error| error.to_string())?.text().await.map_err(|error| error.to_string())?;
        let value = |line: &str| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        };
        Ok(text.lines().filter_map(value).sum())
    }

    /// Waits until the API reports the node as reachable.
    pub async fn reachable(&self, short: &str) {
        let name = self.namespace.node_name(short);
        until(&format!("{name} is reachable"), Duration::from_secs(20), || async {
            let node = self.get(&format!("/api/v1/nodes/{name}")).await?;
            if node["reachable"] == true { Ok(()) } else { Err(node.to_string()) }
        })
        .await;
    }

    /// A JSON answer of the HTTP API.
    ///
    /// # Errors
    /// The answer, when it is not a success.
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
        let mongo = mongodb::Client::with_uri_str(&self.namespace.parts.mongodb_uri).await.expect("a client");
        mongo.database(&self.database).drop().await.expect("database dropped");
        self.namespace.close().await;
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
