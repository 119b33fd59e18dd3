//! The nodes of dev mode: this machine and simulated ones, each with a real agent and a state directory of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_node_agent::heartbeat::Sampler;
use sentinel_node_agent::shortage::{Needs, describe};
use sentinel_node_agent::supervisor::{HostNamespaces, Prefork};
use sentinel_node_agent::{AgentConfig, AgentError, Endpoint, PolicyFiles, Rules, Token};
use sentinel_operator::gateway::StaticTokens;
use sentinel_protocol::ids::NodeName;
use sentinel_protocol::request::Environment;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::exit::Failure;
use crate::output::format::note;

/// How long the agent of this machine may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long all agents may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Label of simulated nodes.
const SIMULATED: &str = "sentinelnode.dev/simulated";

/// The nodes of dev mode.
#[derive(Debug)]
pub(super) struct Nodes {
    local: NodeName,
    simulated: Vec<NodeName>,
    rules: Rules,
    policy: Option<PathBuf>,
}

/// The running agents.
#[derive(Debug)]
pub(super) struct Agents {
    set: JoinSet<(NodeName, Result<(), AgentError>)>,
    stop: CancellationToken,
}

impl Nodes {
    /// This machine and a number of simulated nodes.
    ///
    /// # Errors
    /// The limits of this machine are too low for that many; some would fail later, at any time.
    pub(super) fn plan(simulated: u16) -> Result<Self, Failure> {
        if simulated > 0
            && let Some(lack) = needs(simulated).lacking()
        {
            return Err(Failure::new(format!(
                "--nodes {simulated} exceeds what this machine can hold: {lack}"
            ))
            .hint("Simulate fewer nodes, or raise the limit"));
        }
        let local =
            NodeName::new(node_name(&host_name())).map_err(|error| Failure::new(error.to_string()))?;
        let simulated = (1..=simulated)
            .map(|number| {
                let name = if local.as_str() == format!("sim-{number}") { "simulated" } else { "sim" };
                NodeName::new(format!("{name}-{number}")).map_err(|error| Failure::new(error.to_string()))
            })
            .collect::<Result<Vec<NodeName>, Failure>>()?;
        // Commands run on this machine in either environment, with no more rights than this process has.
        let environments = vec![Environment::Host, Environment::Container];
        Ok(Self { local, simulated, rules: Rules { environments, ..Rules::default() }, policy: None })
    }

    /// The same nodes with limits: commands at once, and free disk space for a start, bytes.
    pub(super) fn with_limits(mut self, max_attempts: u32, min_free: u64) -> Self {
        self.rules = Rules { max_attempts, min_free, ..self.rules };
        self
    }

    /// The same nodes with a policy.
    pub(super) fn with_policy(mut self, policy: Option<PathBuf>) -> Self {
        self.policy = policy;
        self
    }

    /// The nodes as a cluster would list them. Simulated ones have zones and pools, for selectors.
    pub(super) fn facts(&self) -> BTreeMap<NodeName, NodeFacts> {
        let common = |name: &NodeName| {
            BTreeMap::from([
                ("kubernetes.io/hostname".to_owned(), name.to_string()),
                ("kubernetes.io/os".to_owned(), std::env::consts::OS.to_owned()),
                ("kubernetes.io/arch".to_owned(), arch().to_owned()),
            ])
        };
        let mut facts = BTreeMap::from([(self.local.clone(), NodeFacts { labels: common(&self.local) })]);
        for (index, name) in self.simulated.iter().enumerate() {
            let mut labels = common(name);
            let zone = ["a", "b", "c"][index % 3];
            let pool = ["web", "db"][index % 2];
            labels.insert("topology.kubernetes.io/zone".to_owned(), zone.to_owned());
            labels.insert("pool".to_owned(), pool.to_owned());
            labels.insert(SIMULATED.to_owned(), "true".to_owned());
            facts.insert(name.clone(), NodeFacts { labels });
        }
        facts
    }

    /// The nodes, for the banner.
    pub(super) fn summary(&self) -> String {
        match &self.simulated[..] {
            [] => format!("{} (this machine)", self.local),
            [only] => format!("{} (this machine), {only} (simulated)", self.local),
            [first, .., last] => {
                format!("{} (this machine), {first} … {last} (simulated; pools web and db)", self.local)
            }
        }
    }

    /// The flag that `run` needs to choose nodes.
    pub(super) fn run_flag(&self) -> &'static str {
        if self.simulated.is_empty() { "" } else { " --all" }
    }

    /// Starts an agent for each node. Commands do not see what is `private`, unless they are privileged.
    pub(super) fn start(
        &self,
        gateway: SocketAddr,
        tokens: &StaticTokens,
        state: &Path,
        private: &[PathBuf],
    ) -> Result<Agents, Failure> {
        let operator: Endpoint = format!("ws://{gateway}")
            .parse()
            .map_err(|error| Failure::new(format!("failed to address the gateway: {error}")))?;
        let sampler = Sampler::start(AgentConfig::sample_period())
            .map_err(|error| Failure::new(format!("failed to measure this machine: {error}")))?;
        let mut agents = Agents { set: JoinSet::new(), stop: CancellationToken::new() };
        for name in std::iter::once(&self.local).chain(&self.simulated) {
            let directory = state.join("nodes").join(name.as_str());
            let token = Token::Fixed(tokens.issue(name));
            let mut config = AgentConfig::new(operator.clone(), token, directory);
            config.sampler = Some(sampler.clone());
            config.prefork = if *name == self.local { Prefork::On } else { Prefork::Off };
            config.node_name = Some(name.to_string());
            config.rules = self.rules.clone();
            config.host = HostNamespaces::Own;
            config.policy = PolicyFiles { policy: self.policy.clone(), kill_switch: None };
            config.hidden = private.to_vec();
            let (name, stop) = (name.clone(), agents.stop.clone());
            agents.set.spawn(async move {
                let result = sentinel_node_agent::run(config, stop.cancelled_owned()).await;
                if let Err(error) = &result {
                    note(&format!("sentinel: the agent of {name} failed: {}", describe(error)));
                }
                (name, result)
            });
        }
        Ok(agents)
    }

    /// Waits until the agent of this machine is connected; simulated ones may connect later.
    pub(super) async fn wait_until_connected(&self, client: &Client) -> Result<(), Failure> {
        let connected = async {
            loop {
                if client.node(self.local.as_str()).await?.reachable {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connected).await.unwrap_or_else(|_| {
            Err(Failure::new(format!(
                "the agent of {} did not connect within {} s",
                self.local,
                CONNECT_TIMEOUT.as_secs()
            ))
            .hint("Find out why with: --log info"))
        })
    }
}

impl Agents {
    /// Stops all agents.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        let all = async { while self.set.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
            self.set.abort_all();
        }
    }
}

/// What nodes need with a command on each: files, sockets (both ends) and thread of the agent, a supervisor, a command.
fn needs(simulated: u16) -> Needs {
    let nodes = u64::from(simulated) + 1;
    Needs { descriptors: 64 + 16 * nodes, processes: 32 + 3 * nodes, memory: (64 + 5 * nodes) << 20 }
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// A host name as the name of a node: invalid characters become dashes.
fn node_name(host: &str) -> String {
    let allowed = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' { c } else { '-' };
    let text: String = host.to_ascii_lowercase().chars().map(allowed).take(253).collect();
    let parts: Vec<&str> =
        text.split('.').map(|part| part.trim_matches('-')).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "localhost".to_owned() } else { parts.join(".") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_name_becomes_a_valid_node_name() {
        for (host, expected) in [
            ("My_Laptop.local", "my-laptop.local"),
            ("-a-..b-", "a.b"),
            ("", "localhost"),
            ("日本", "localhost"),
        ] {
            assert_eq!(node_name(host), expected);
            assert!(NodeName::new(node_name(host)).is_ok());
        }
        assert!(NodeName::new(node_name(&"x".repeat(300))).is_ok());
    }

    #[test]
    fn simulated_nodes_differ_by_labels() {
        let nodes = Nodes { local: NodeName::new("here").unwrap(), ..Nodes::plan(4).unwrap() };
        let facts = nodes.facts();
        assert_eq!(facts.len(), 5);
        let web =
            facts.values().filter(|node| node.labels.get("pool").is_some_and(|pool| pool == "web")).count();
        assert_eq!(web, 2);
    }
}
