//! Wiring, top to bottom: adapters, tasks, the end. The only place that knows every part; there is no logic here.
//!
//! ```text
//!   cluster ──watch──▶ controller ──Start, Cancel, Forget──▶ registry ──▶ Sessions ──▶ agents
//!      ▲                   ▲   └──records──▶ archiver ──▶ History         │   │
//!      └──status───────────┘                 ▲    └─words─▶ results ──Ack─┘   │ output
//!        ledgers ◀──Reports──────────────────┼────────────── gateway ◀────────┘
//!                                            └── hub ◀── log sockets ── readers ◀── API
//! ```
//!
//! Every task is in one set; the first that ends by itself ends the process. On request everything stops in this
//! order: the controller (nothing new is started), the agents are told, what is on its way to History gets a while,
//! the listeners close. Commands on the nodes go on through all of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sentinel_protocol::ids::Epoch;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::cluster::{Cluster, KubeCluster};
use crate::config::{Config, Redis, Storage, TlsFiles};
use crate::controller::{Controller, ControllerParts, Ledgers, Moments, Wake};
use crate::gateway::{
    Authenticate, Gateway, GatewayParts, Registry, Results, ResultsParts, Settings, TokenReviews, TokenRules,
};
use crate::health::Health;
use crate::history::archive::{Archiver, ArchiverOptions};
use crate::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use crate::history::mongo::{MongoHistory, MongoOptions};
use crate::history::{History, HistoryError};
use crate::http::api::{Api, MAX_STREAMS, Surface};
use crate::http::feed::Feed;
use crate::http::routes as api_routes;
use crate::logs::{Hub, HubRules, LogReader};
use crate::metrics::Registry as MetricsRegistry;
use crate::presence::memory::MemoryPresence;
use crate::presence::mirror::{MirrorOptions, PresenceMirror};
use crate::presence::redis::{RedisOptions, RedisPresence};
use crate::presence::{Presence, PresenceError};
use crate::server::{Exposure, Limits, Server, ServerError, TlsError, TlsSource};

/// How long the agents get to close their sockets when the operator ends.
const AGENTS_WITHIN: Duration = Duration::from_secs(2);

/// How long tasks get to end when they are told to.
const TASKS_WITHIN: Duration = Duration::from_secs(6);

/// Words of the archiver that may wait for the gateway.
const WORDS: usize = 4096;

/// How often changed certificates are looked for.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(30);

/// Pauses between attempts to prepare History: they grow from the first to the second.
const PREPARE_PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// Why the operator could not begin, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The cluster's address or credentials cannot be used.
    #[error("failed to find a Kubernetes cluster; give --kubeconfig, or run in a pod with a service account")]
    Kubeconfig(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// History cannot be used.
    #[error("failed to use History")]
    History(#[source] HistoryError),
    /// Presence cannot be used.
    #[error("failed to use presence")]
    Presence(#[source] PresenceError),
    /// The directory of the embedded History cannot be made.
    #[error("failed to make the data directory {directory}")]
    DataDirectory {
        /// The directory.
        directory: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A port could not be had.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The certificate cannot be used.
    #[error("failed to use the gateway's certificate")]
    Certificate(#[source] TlsError),
    /// Signals cannot be listened for.
    #[error("failed to listen for signals")]
    Signals(#[source] std::io::Error),
    /// A part that must never end ended.
    #[error("{part} ended by itself")]
    Ended {
        /// Which.
        part: &'static str,
    },
    /// A part broke an invariant of its own; the log has its words.
    #[error("{part} failed: {message}")]
    Broke {
        /// Which.
        part: &'static str,
        /// What it said last.
        message: String,
    },
}

impl RunError {
    /// Whether other flags or files would help, and trying again would not.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Kubeconfig(_) | Self::Certificate(_) | Self::DataDirectory { .. } => true,
            Self::History(error) => matches!(error, HistoryError::InvalidUri { .. } | HistoryError::Open { .. }),
            Self::Presence(error) => matches!(error, PresenceError::InvalidUrl { .. }),
            Self::Server(error) => matches!(error, ServerError::Exposed { .. } | ServerError::Tls { .. }),
            _ => false,
        }
    }
}

/// What differs between a cluster and dev mode.
pub struct Seams {
    /// Where Tasks and Nodes live.
    pub cluster: Arc<dyn Cluster>,
    /// The archive.
    pub history: Arc<dyn History>,
    /// Where presence is mirrored to.
    pub presence: Arc<dyn Presence>,
    /// Who agents are.
    pub auth: Arc<dyn Authenticate>,
    /// Where the gateway may listen, given that.
    pub exposure: Exposure,
    /// The wall clock.
    pub clock: Clock,
    /// Where everything is counted.
    pub metrics: MetricsRegistry,
}

/// Where to listen, and how patient to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address for agents.
    pub gateway: SocketAddr,
    /// Certificate and key of the gateway; without them it speaks plainly.
    pub gateway_tls: Option<TlsFiles>,
    /// Address of the HTTP API.
    pub api: SocketAddr,
    /// Address for metrics and probes; `None` has them on the API's listener alone.
    pub metrics: Option<SocketAddr>,
    /// How long what is on its way to History may take when ending.
    pub drain: Duration,
    /// The gateway's times.
    pub settings: Settings,
    /// The number of this leader.
    pub epoch: Epoch,
}

/// An operator that runs.
#[derive(Debug)]
pub struct Operator {
    tasks: Tasks,
    /// Ends the controller, then everything else.
    stop_controller: CancellationToken,
    stop: CancellationToken,
    gateway: Gateway,
    archiver: Archiver,
    mirror: PresenceMirror,
    drain: Duration,
    api_addr: SocketAddr,
    gateway_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
}

/// Runs an operator for a Kubernetes cluster until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`] when it could not begin, or when a part ended by itself.
pub async fn run(config: Config) -> Result<(), RunError> {
    let metrics = MetricsRegistry::new();
    let cluster = Arc::new(kubernetes(config.kubeconfig.as_deref()).await?);
    let account = &config.agent_service_account;
    let rules = TokenRules {
        audience: config.token_audience.clone(),
        ..TokenRules::new(&account.namespace, &account.name)
    };
    let seams = Seams {
        auth: Arc::new(TokenReviews::new(cluster.client(), rules, &metrics)),
        cluster,
        history: history(&config).await?,
        presence: presence(config.redis.as_ref())?,
        exposure: Exposure::Anywhere,
        clock: Clock::system(),
        metrics,
    };
    let options = Options {
        gateway: config.gateway_listen,
        gateway_tls: config.gateway_tls,
        api: config.api_listen,
        metrics: Some(config.metrics_listen),
        drain: config.drain,
        settings: Settings::default(),
        epoch: Epoch(1),
    };
    let stop = signals()?;
    let operator = Operator::start(seams, options).await?;
    tracing::info!(
        gateway = %operator.gateway_addr, api = %operator.api_addr, metrics = ?operator.metrics_addr,
        "the operator is up"
    );
    operator.run_until(stop).await
}

impl Operator {
    /// Opens the ports and starts every part.
    ///
    /// # Errors
    /// [`RunError`] when a port or certificate cannot be had; then nothing was started.
    pub async fn start(seams: Seams, options: Options) -> Result<Self, RunError> {
        let Seams { cluster, history, presence, auth, exposure, clock, metrics } = seams;
        let limits = Limits::default();
        let mut gateway_server =
            Server::bind("gateway", options.gateway, exposure, limits, &metrics).await?;
        let certificate = options.gateway_tls.as_ref().map(open_certificate).transpose()?;
        if let Some(certificate) = &certificate {
            gateway_server = gateway_server.with_tls(certificate.clone());
        }
        let api_server = Server::bind("api", options.api, Exposure::NO_PEOPLE, limits, &metrics).await?;
        let metrics_server = match options.metrics {
            Some(addr) => Some(Server::bind("metrics", addr, Exposure::Anywhere, limits, &metrics).await?),
            None => None,
        };
        let (gateway_addr, api_addr) = (gateway_server.local_addr(), api_server.local_addr());
        let metrics_addr = metrics_server.as_ref().map(Server::local_addr);

        let moments = Moments::new(clock.clone());
        let ledgers = Ledgers::new(Wake::default());
        let health = Health::new();
        let registry = Registry::new();
        registry.set_epoch(options.epoch);

        let (words_in, words) = mpsc::channel(WORDS);
        let (archiver, archiving) = Archiver::new(history.clone(), ArchiverOptions::default(), words_in);
        let hub = Hub::new(archiver.clone(), HubRules::default(), &metrics);
        let (results, settling) = Results::new(ResultsParts {
            archiver: archiver.clone(),
            words,
            history: history.clone(),
            books: Arc::new(ledgers.clone()),
            registry: registry.clone(),
            hub: hub.clone(),
            metrics: metrics.clone(),
        });
        let (mirror, mirroring) = PresenceMirror::new(presence, MirrorOptions::default());
        let renew = mirror.clone();
        let gateway = Gateway::new(GatewayParts {
            settings: options.settings,
            auth,
            registry: registry.clone(),
            books: Arc::new(ledgers.clone()),
            results,
            hub: hub.clone(),
            presence: Box::new(move |record| renew.renew(record)),
            moments: moments.clone(),
            metrics: metrics.clone(),
        });
        let stores = Stores { archiver: archiver.clone(), mirror: mirror.clone(), ledgers: ledgers.clone() };
        stores.count(&metrics);

        let controller = Controller::new(
            ControllerParts {
                cluster: cluster.clone(),
                fleet: Arc::new(registry.clone()),
                ledgers,
                history: history.clone(),
                archiver: archiver.clone(),
                moments: moments.clone(),
                epoch: options.epoch,
            },
            &metrics,
            &health,
        );
        let nodes = controller.nodes();
        let feed = Feed::new(controller.tasks(), controller.bell(), move || (*nodes.nodes()).clone());
        let api = Arc::new(Api {
            cluster,
            feed,
            history: history.clone(),
            registry: registry.clone(),
            logs: LogReader::new(hub, history.clone(), registry),
            metrics,
            health,
            moments,
            dead_after_ms: options.settings.dead_after.as_millis() as u64,
            streams: Arc::new(tokio::sync::Semaphore::new(MAX_STREAMS)),
        });

        let (stop_controller, stop) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks = Tasks::default();
        tasks.spawn("preparing History", prepare(history, stop.clone()));
        tasks.spawn("the archiver", archiving.run());
        tasks.spawn("the results", settling.run());
        tasks.spawn("the presence mirror", until(stop.clone(), mirroring.run()));
        tasks.spawn("the controller", controller.run(stop_controller.clone()));
        if let Some(certificate) = certificate {
            tasks.spawn("the certificate", certificate.keep_current(CERTIFICATES_EVERY, stop.clone()));
        }
        let agents = crate::gateway::routes::service(gateway.clone());
        tasks.spawn("the gateway", gateway_server.serve(agents, stop.clone()));
        let people = api_routes::service(api.clone(), Surface::Everything);
        tasks.spawn("the API", api_server.serve(people, stop.clone()));
        if let Some(server) = metrics_server {
            let probes = api_routes::service(api, Surface::ProbesAndMetrics);
            tasks.spawn("the metrics listener", server.serve(probes, stop.clone()));
        }
        let drain = options.drain;
        Ok(Self {
            tasks,
            stop_controller,
            stop,
            gateway,
            archiver,
            mirror,
            drain,
            api_addr,
            gateway_addr,
            metrics_addr,
        })
    }

    /// Address of the HTTP API.
    pub fn api_addr(&self) -> SocketAddr {
        self.api_addr
    }

    /// Address for agents.
    pub fn gateway_addr(&self) -> SocketAddr {
        self.gateway_addr
    }

    /// Address for metrics and probes, where they have one of their own.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// The connected agents.
    pub fn registry(&self) -> &Registry {
        self.gateway.registry()
    }

    /// Runs until `stop` is done, then ends in order.
    ///
    /// # Errors
    /// [`RunError`] when a part ended by itself; the others were ended in order all the same.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<(), RunError> {
        let result = tokio::select! {
            () = stop => Ok(()),
            error = self.tasks.first_end() => Err(error),
        };
        if let Err(error) = &result {
            tracing::error!(%error, "ending, since a part is gone");
        }
        self.end().await;
        result
    }

    async fn end(mut self) {
        tracing::info!("ending: nothing new is started; commands on the nodes go on");
        self.stop_controller.cancel();
        self.gateway.stop(AGENTS_WITHIN).await;
        self.mirror.flush();
        if tokio::time::timeout(self.drain, drained(&self.archiver)).await.is_err() {
            let status = self.archiver.status();
            tracing::warn!(
                records = status.queued_entries,
                bytes = status.queued_bytes,
                "History does not take what is on its way to it; the agents keep it until they hear of it"
            );
        }
        self.stop.cancel();
        self.tasks.end().await;
    }
}

/// Done when nothing waits for History any more.
async fn drained(archiver: &Archiver) {
    loop {
        let status = archiver.status();
        if status.queued_entries == 0 && status.queued_bytes == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// All tasks, by name. None of them may end by itself.
#[derive(Debug, Default)]
struct Tasks {
    set: JoinSet<()>,
    names: HashMap<tokio::task::Id, &'static str>,
}

impl Tasks {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Waits until one ends, and says which.
    async fn first_end(&mut self) -> RunError {
        match self.set.join_next_with_id().await {
            None => std::future::pending().await,
            Some(Ok((id, ()))) => RunError::Ended { part: self.name(id) },
            Some(Err(error)) => RunError::Broke { part: self.name(error.id()), message: error.to_string() },
        }
    }

    fn name(&self, id: tokio::task::Id) -> &'static str {
        self.names.get(&id).copied().unwrap_or("a task")
    }

    /// Waits for those that end when they are told to, and cuts the rest.
    async fn end(&mut self) {
        let all = async { while self.set.join_next().await.is_some() {} };
        if tokio::time::timeout(TASKS_WITHIN, all).await.is_err() {
            self.set.shutdown().await;
        }
    }
}

/// Done when the work is, or when told to stop.
async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// Prepares History, however long it takes to answer; says once that it does not, and once that it does again.
async fn prepare(history: Arc<dyn History>, stop: CancellationToken) {
    let mut pause = PREPARE_PAUSES.0;
    let mut complained = false;
    while let Err(error) = history.prepare().await {
        if !complained {
            complained = true;
            tracing::warn!(%error, "History does not answer yet; commands run, their results wait on the nodes");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PREPARE_PAUSES.1),
        }
    }
    if complained {
        tracing::info!("History answers");
    }
    stop.cancelled().await;
}

fn open_certificate(files: &TlsFiles) -> Result<TlsSource, RunError> {
    let files = crate::server::TlsFiles { certificate: files.cert.clone(), key: files.key.clone() };
    TlsSource::open(files).map_err(RunError::Certificate)
}

async fn kubernetes(kubeconfig: Option<&Path>) -> Result<KubeCluster, RunError> {
    use kube::config::{KubeConfigOptions, Kubeconfig};
    let unusable = |error: Box<dyn std::error::Error + Send + Sync>| RunError::Kubeconfig(error);
    let config = match kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(|error| unusable(error.into()))?;
            let options = KubeConfigOptions::default();
            kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| unusable(error.into()))?
        }
        None => kube::Config::infer().await.map_err(|error| unusable(error.into()))?,
    };
    let instance = host_name();
    KubeCluster::new(config, instance).map_err(|error| unusable(error.into()))
}

/// The name of this process's pod, which is its host's name.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

async fn history(config: &Config) -> Result<Arc<dyn History>, RunError> {
    Ok(match &config.storage {
        Storage::Embedded { directory } => {
            std::fs::create_dir_all(directory).map_err(|source| RunError::DataDirectory {
                directory: directory.display().to_string(),
                source,
            })?;
            let options = EmbeddedOptions { retention: config.retention, ..EmbeddedOptions::default() };
            Arc::new(EmbeddedHistory::open(directory.join("history.db"), options).map_err(RunError::History)?)
        }
        Storage::Mongodb { url, database } => {
            let options = MongoOptions {
                retention: config.retention,
                database: Some(database.clone()),
                ..MongoOptions::default()
            };
            Arc::new(MongoHistory::new(url, options).await.map_err(RunError::History)?)
        }
    })
}

fn presence(redis: Option<&Redis>) -> Result<Arc<dyn Presence>, RunError> {
    Ok(match redis {
        None => Arc::new(MemoryPresence::new(Clock::system())),
        Some(redis) => {
            let options = RedisOptions { prefix: redis.prefix.clone(), ..RedisOptions::default() };
            Arc::new(RedisPresence::new(&redis.url, options).map_err(RunError::Presence)?)
        }
    })
}

/// Done at SIGTERM or SIGINT.
fn signals() -> Result<impl Future<Output = ()>, RunError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("asked to end (SIGTERM)"),
            _ = interrupt.recv() => tracing::info!("asked to end (SIGINT)"),
        }
    })
}
