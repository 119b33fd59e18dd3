//! A real operator, alone in a child process: as dev mode has it, or with a Redis or an API server.

use std::collections::BTreeMap;
use std::future::ready;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kube::config::{KubeConfigOptions, Kubeconfig};
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_operator::audit::Audit;
use sentinel_operator::clock::Clock;
use sentinel_operator::cluster::{Cluster, EmbeddedCluster, KubeCluster};
use sentinel_operator::config::any_loopback_port;
use sentinel_operator::controller::CurrentCeilings;
use sentinel_operator::gateway::{AgentIdentity, Authenticate, Settings};
use sentinel_operator::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use sentinel_operator::identity::AuthError;
use sentinel_operator::metrics::Registry;
use sentinel_operator::presence::Presence;
use sentinel_operator::presence::memory::MemoryPresence;
use sentinel_operator::presence::redis::{RedisOptions, RedisPresence};
use sentinel_operator::run::{Election, Operator, Options, Seams};
use sentinel_operator::server::Exposure;
use sentinel_operator::traces::Traces;
use sentinel_protocol::ids::{Epoch, Namespace, NodeName};
use serde::{Deserialize, Serialize};

use super::worker;

/// The role of the operator.
pub(super) const OPERATOR: &str = "operator";

/// What an operator is to be.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Wanted {
    /// Where it keeps its state.
    pub(super) directory: PathBuf,
    /// The nodes that it knows, if it has no API server.
    pub(super) nodes: Vec<String>,
    /// Where it listens, for agents and for people; on free ports without.
    pub(super) at: Option<[SocketAddr; 2]>,
    /// URL of the Redis where it mirrors Presence; in memory without.
    pub(super) redis: Option<String>,
    /// Where Tasks and Nodes are; in its directory without.
    pub(super) api_server: Option<ApiServer>,
}

/// An API server, and the namespace of it that an operator watches.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ApiServer {
    pub(super) kubeconfig: PathBuf,
    pub(super) namespace: String,
}

/// Where an operator is.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Addresses {
    pub(super) api: SocketAddr,
    pub(super) gateway: SocketAddr,
}

/// The token of a node's agent, which outlives the operator.
pub(super) fn token(node: &str) -> String {
    format!("{TOKEN}{node}")
}

const TOKEN: &str = "token-of-";

/// Takes the tokens of [`token`].
struct NamedTokens;

impl Authenticate for NamedTokens {
    fn agent<'a>(&'a self, bearer: &'a str) -> BoxFuture<'a, Result<AgentIdentity, AuthError>> {
        let node = bearer.strip_prefix(TOKEN).and_then(|name| NodeName::new(name).ok());
        let agent = node.map(|node| AgentIdentity { node, node_uid: None, pod_uid: None });
        ready(agent.ok_or_else(|| AuthError::Invalid("it names no node".to_owned()))).boxed()
    }
}

/// In a child: the operator.
pub(super) fn run() {
    let wanted: Wanted = worker::read_line();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let [gateway, api] = wanted.at.unwrap_or([any_loopback_port(); 2]);
        let seams = seams(&wanted).await;
        let options = Options {
            gateway,
            gateway_tls: None,
            api: api.into(),
            base_path: sentinel_operator::http::BasePath::default(),
            metrics: None,
            background: Vec::new(),
            drain: Duration::from_secs(1),
            settings: Settings::default(),
            election: Election::Alone(Epoch::from(1)),
        };
        let operator = Operator::start(seams, options).await.expect("an operator");
        worker::write_line(&Addresses { api: operator.api_addr(), gateway: operator.gateway_addr() });
        operator.run_until(std::future::pending()).await.expect("an operator that runs");
    });
}

async fn seams(wanted: &Wanted) -> Seams {
    let (clock, metrics) = (Clock::system(), Registry::new());
    let cluster: Arc<dyn Cluster> = match &wanted.api_server {
        Some(server) => Arc::new(kubernetes(server, &metrics).await),
        None => Arc::new(embedded(wanted, clock.clone())),
    };
    let presence: Arc<dyn Presence> = match &wanted.redis {
        Some(url) => Arc::new(RedisPresence::new(url, RedisOptions::default()).expect("a URL of Redis")),
        None => Arc::new(MemoryPresence::new(clock.clone())),
    };
    let options = EmbeddedOptions { clock: clock.clone(), ..EmbeddedOptions::default() };
    let history = EmbeddedHistory::open(wanted.directory.join("history.db"), options).expect("a history");
    Seams {
        cluster,
        history: Arc::new(history),
        presence,
        auth: Arc::new(NamedTokens),
        by_caller: None,
        owner: None,
        exposure: Exposure::NO_TOKEN_REVIEW,
        clock,
        metrics,
        traces: Traces::off(),
        audit: Audit::default(),
        ceilings: CurrentCeilings::default(),
    }
}

fn embedded(wanted: &Wanted, clock: Clock) -> EmbeddedCluster {
    let cluster = EmbeddedCluster::in_directory(&wanted.directory.join("cluster"), clock).expect("a cluster");
    let nodes = wanted.nodes.iter().map(|node| {
        let node = NodeName::new(node.clone()).expect("a node's name");
        (node, NodeFacts { labels: BTreeMap::new() })
    });
    cluster.set_nodes(nodes.collect());
    cluster
}

async fn kubernetes(server: &ApiServer, metrics: &Registry) -> KubeCluster {
    rustls::crypto::ring::default_provider().install_default().ok();
    let config = Kubeconfig::read_from(&server.kubeconfig).expect("a kubeconfig");
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(config, &options).await.expect("a usable kubeconfig");
    let cluster = KubeCluster::new(config, Some("bench".to_owned()), metrics).expect("a cluster");
    cluster.within(Some(Namespace::new(server.namespace.clone()).expect("a namespace")))
}
