//! One operator, and agents that each connect through a proxy of their own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::process::{Process, signal};
use super::proxy::Proxy;
use crate::cluster::{SERVICE_ACCOUNT, TestNamespace};
use crate::ports::free_port;
use crate::programs::binary;
use crate::testbed::secret;
use crate::wait::until;

/// A node of the fleet.
pub struct Node {
    /// Its full name.
    pub name: String,
    /// Its agent.
    pub agent: Arc<Process>,
    /// Its network.
    pub proxy: Proxy,
    /// State directory of its agent.
    pub state: PathBuf,
}

/// A supervisor that has an Attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervisor {
    /// Its process id.
    pub pid: u32,
    /// Id of its Attempt.
    pub attempt: String,
}

/// Operator and agents.
pub struct Fleet {
    /// Namespace and nodes.
    pub namespace: TestNamespace,
    /// The operator.
    pub operator: Arc<Process>,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// URL of the HTTP API.
    pub api: String,
    /// URL of metrics and health.
    pub metrics: String,
    directory: PathBuf,
    /// For the HTTP API.
    pub http: reqwest::Client,
}

impl Fleet {
    /// Starts an operator and so many agents, and waits until all are connected.
    pub async fn start(namespace: TestNamespace, directory: &Path, agents: usize) -> Self {
        let ports: [u16; 3] = std::array::from_fn(|_| free_port());
        let [gateway, api, metrics] = ports;
        let operator = operator("operator", &namespace, directory, ports, &[]);
        operator.start().await;
        let mut nodes = Vec::new();
        for number in 0..agents {
            nodes.push(node(&namespace, directory, number, gateway).await);
        }
        let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().expect("a client");
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let fleet = Self {
            namespace,
            operator,
            nodes,
            api: url(api),
            metrics: url(metrics),
            directory: directory.to_owned(),
            http,
        };
        fleet.ready(Duration::from_mins(1)).await;
        fleet
    }

    /// Waits until the operator is ready and every agent is connected.
    pub async fn ready(&self, within: Duration) {
        until("the operator is ready", within, || async {
            self.restart_if_exited().await;
            let url = format!("{}/readyz", self.metrics);
            let answer = self.http.get(url).send().await.map_err(|error| error.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.text().await.unwrap_or_default()) }
        })
        .await;
        until("every node is reachable", within, || async {
            self.restart_if_exited().await;
            for node in &self.nodes {
                let view = self.get(&format!("/api/v1/nodes/{}", node.name)).await?;
                if view["reachable"] != true {
                    return Err(view.to_string());
                }
            }
            Ok(())
        })
        .await;
    }

    /// Restarts processes that have exited.
    pub async fn restart_if_exited(&self) {
        self.operator.restart_if_exited().await;
        for node in &self.nodes {
            node.agent.restart_if_exited().await;
        }
    }

    /// A JSON answer of the HTTP API.
    ///
    /// # Errors
    /// The answer, when it is not a success.
    pub async fn get(&self, path: &str) -> Result<serde_json::Value, String> {
        let text = self.text(path).await?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    /// A whole answer of the HTTP API.
    ///
    /// # Errors
    /// The answer, when it is not a success, or that it was cut short.
    pub async fn text(&self, path: &str) -> Result<String, String> {
        let answer = self.http.get(format!("{}{path}", self.api)).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| error.to_string())?;
        if status.is_success() { Ok(text) } else { Err(format!("{status}: {text}")) }
    }

    /// The supervisors of a node that have an Attempt, whatever their parent process.
    pub fn supervisors(&self, node: &Node) -> Vec<Supervisor> {
        let attempts = node.state.join("attempts");
        processes()
            .filter_map(|pid| {
                // A supervisor's child becomes the command: killed a moment later, that would have ended by a signal.
                if !is_of_supervisor(pid) || parent(pid).is_some_and(is_of_supervisor) {
                    return None;
                }
                let log = std::fs::read_link(format!("/proc/{pid}/fd/2")).ok()?;
                let folder = log.strip_prefix(&attempts).ok()?.iter().next()?.to_str()?;
                // <task>.<run>.<attempt>, where <task> is a uid and has no dot.
                let mut parts = folder.split('.');
                let (task, run, attempt) = (parts.next()?, parts.next()?, parts.next()?);
                Some(Supervisor { pid, attempt: format!("{task}/{run}/{}/{attempt}", node.name) })
            })
            .collect()
    }

    /// Ends all of it, and what it started.
    pub async fn end(&self) {
        self.operator.end().await;
        for node in &self.nodes {
            node.agent.end().await;
        }
        self.sweep();
    }

    /// Kills supervisors and recorders, which outlive agents by design.
    fn sweep(&self) {
        let supervisors = self.nodes.iter().flat_map(|node| self.supervisors(node)).map(|found| found.pid);
        // The directory is unique to this system and is among the arguments of a recorder.
        let ours = self.directory.display().to_string();
        let recorders = processes().filter(|pid| {
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments);
            arguments.split('\0').next().is_some_and(|program| program.ends_with("/recorder"))
                && arguments.contains(&ours)
        });
        for pid in supervisors.chain(recorders) {
            signal(pid, Signal::SIGKILL);
        }
    }
}

impl Drop for Fleet {
    /// A failed test leaves no process running.
    fn drop(&mut self) {
        self.sweep();
    }
}

/// Whether this is a supervisor, or its copy that has not executed the command yet.
fn is_of_supervisor(pid: u32) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments.split(|byte| *byte == 0).nth(1) == Some(b"__supervise")
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Describes the process of an operator at these ports: of its gateway, API and metrics.
pub fn operator(
    name: &str,
    namespace: &TestNamespace,
    directory: &Path,
    [gateway, api, metrics]: [u16; 3],
    more: &[(&str, String)],
) -> Arc<Process> {
    // Files of its own: another operator may be reading its.
    let write = |what: &str, text: &str| -> String {
        let path = directory.join(format!("{name}.{what}"));
        std::fs::write(&path, text).expect("a written file");
        path.display().to_string()
    };
    let flags = [
        ("--storage", "mongodb".to_owned()),
        ("--mongodb-url-file", write("mongodb-url", &namespace.parts.mongodb_uri)),
        ("--mongodb-database", namespace.name.clone()),
        ("--redis-url-file", write("redis-url", &namespace.parts.redis_url)),
        ("--redis-prefix", format!("{}:", namespace.name)),
        ("--kubeconfig", namespace.parts.kubeconfig.display().to_string()),
        ("--watch-namespace", namespace.name.clone()),
        ("--gateway-listen", format!("127.0.0.1:{gateway}")),
        ("--api-listen", format!("127.0.0.1:{api}")),
        ("--metrics-listen", format!("127.0.0.1:{metrics}")),
        ("--agent-service-account", format!("{}/{SERVICE_ACCOUNT}", namespace.name)),
    ];
    let flags: Vec<_> = flags.into_iter().chain(more.iter().cloned()).collect();
    Process::new(name, binary("operator"), arguments(&flags), directory.join(format!("{name}.log")))
}

async fn node(namespace: &TestNamespace, directory: &Path, number: usize, gateway: u16) -> Node {
    let short = format!("n{number}");
    let name = namespace.node(&short, &[]).await;
    let token = directory.join(format!("{short}.token"));
    secret(&token, &namespace.agent_token(&name).await);
    let proxy = Proxy::to(gateway).await;
    let state = directory.join(format!("{short}.state"));
    let agent = agent(&short, directory, proxy.port, &token, &state);
    agent.start().await;
    Node { name, agent, proxy, state }
}

/// Describes the process of an agent.
pub fn agent(short: &str, directory: &Path, port: u16, token: &Path, state: &Path) -> Arc<Process> {
    let flags = [
        ("--operator-url", format!("ws://127.0.0.1:{port}")),
        ("--token-file", token.display().to_string()),
        ("--state-dir", state.display().to_string()),
        ("--profile", "container".to_owned()),
    ];
    Process::new(short, binary("node-agent"), arguments(&flags), directory.join(format!("{short}.log")))
}

fn arguments(flags: &[(&str, String)]) -> Vec<OsString> {
    flags.iter().flat_map(|(flag, value)| [OsString::from(flag), OsString::from(value)]).collect()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
