//! An operator: every part made, joined and started; ended in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use kube::runtime::reflector;
use sentinel_protocol::refusal::SessionRefusal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::election::{Election, stand};
use super::error::RunError;
use super::gauges::Gauges;
use super::tasks::{Tasks, until};
use crate::clock::Clock;
use crate::cluster::{Cluster, NodeCache};
use crate::config::{TlsFiles, any_loopback_port};
use crate::controller::{
    self, Caches, Counters, Lead, LeadSetter, Ledgers, LiveLedgers, Moments, Parts, Seen, Wake,
};
use crate::gateway::{
    Authenticate, Gateway, GatewayParts, OUTPUT_WITHIN, Registry, Results, ResultsParts, Settings, strays,
};
use crate::health::{Condition, Health};
use crate::history::History;
use crate::history::archive::{Archiver, ArchiverOptions};
use crate::http::api::{Api, MAX_LISTS, MAX_STREAMS};
use crate::http::feed::Feed;
use crate::http::guard::{Access, Door, Surface};
use crate::http::routes as api_routes;
use crate::logs::{Hub, HubRules, LogReader};
use crate::metrics::{Registry as MetricsRegistry, sources};
use crate::presence::Presence;
use crate::presence::mirror::{MirrorOptions, PresenceMirror};
use crate::records::Records;
use crate::server::tls::TlsSource;
use crate::server::{Exposure, Limits, Server, Shares};

/// How long the agents get to close their sockets when the operator ends.
const AGENTS_WITHIN: Duration = Duration::from_secs(2);

/// How long agents are kept while the lead is given back and taken; then they are told only that we stop.
const SUCCESSOR_WITHIN: Duration = Duration::from_secs(2);

/// Words of the archiver that may wait for the gateway.
const WORDS: usize = 4096;

/// How often what agents own and nobody asks for any more is looked for.
const STRAYS_EVERY: Duration = Duration::from_secs(30);

/// How often changed certificates are looked for.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(30);

/// Pauses between attempts to prepare History: they grow from the first to the second.
const PREPARE_PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

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
#[derive(Debug)]
pub struct Options {
    /// Address for agents.
    pub gateway: SocketAddr,
    /// Certificate and key of the gateway; without them it speaks plainly.
    pub gateway_tls: Option<TlsFiles>,
    /// Where the HTTP API is.
    pub api: ApiAt,
    /// Address for metrics and probes; `None` has them on the API's listener alone.
    pub metrics: Option<SocketAddr>,
    /// How long what is on its way to History may take when ending.
    pub drain: Duration,
    /// The gateway's times.
    pub settings: Settings,
    /// How it comes to lead.
    pub election: Election,
}

/// Where the HTTP API is.
#[derive(Debug)]
pub enum ApiAt {
    /// At an address of loopback, open to everyone who can connect.
    Open(SocketAddr),
    /// At these listeners, each with those whom it answers. The first is the one whose address is shown.
    Servers(Vec<(Server, Access)>),
}

impl From<SocketAddr> for ApiAt {
    fn from(addr: SocketAddr) -> Self {
        Self::Open(addr)
    }
}

impl ApiAt {
    async fn servers(self, metrics: &MetricsRegistry) -> Result<Vec<(Server, Access)>, RunError> {
        match self {
            Self::Servers(servers) => Ok(servers),
            Self::Open(addr) => {
                let limits = Limits::of_people();
                let server = Server::bind("api", addr, Exposure::NO_PEOPLE, limits, metrics).await?;
                Ok(vec![(server, Access::Open)])
            }
        }
    }
}

/// An operator that runs.
#[derive(Debug)]
pub struct Operator {
    tasks: Tasks,
    /// Ends the controller, then everything else.
    stop_controller: CancellationToken,
    /// Gives the lead back.
    stop_election: CancellationToken,
    /// Where the next leader is, once that is done.
    successor: oneshot::Receiver<Option<String>>,
    stop: CancellationToken,
    gateway: Gateway,
    archiver: Archiver,
    mirror: PresenceMirror,
    drain: Duration,
    api_addr: SocketAddr,
    gateway_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
}

impl Operator {
    /// Opens the ports and starts every part.
    ///
    /// # Errors
    /// [`RunError`] when a port or certificate cannot be had; then nothing was started.
    pub async fn start(seams: Seams, options: Options) -> Result<Self, RunError> {
        let Seams { cluster, history, presence, auth, exposure, clock, metrics } = seams;
        let limits = Limits::default();
        // On loopback every agent has the same address.
        let agents = if exposure == Exposure::Anywhere { Limits::of_agents() } else { limits };
        let mut gateway_server = Server::bind("gateway", options.gateway, exposure, agents, &metrics).await?;
        let certificate = options.gateway_tls.as_ref().map(open_certificate).transpose()?;
        if let Some(certificate) = &certificate {
            gateway_server = gateway_server.with_tls(certificate.clone());
        }
        let api_servers = options.api.servers(&metrics).await?;
        let probes = Limits::of_probes();
        let metrics_server = match options.metrics {
            Some(addr) => Some(Server::bind("metrics", addr, Exposure::Anywhere, probes, &metrics).await?),
            None => None,
        };
        let gateway_addr = gateway_server.local_addr();
        let api_addr = api_servers.first().map_or_else(any_loopback_port, |(server, _)| server.local_addr());
        let metrics_addr = metrics_server.as_ref().map(Server::local_addr);

        let (stop_controller, stop) = (CancellationToken::new(), CancellationToken::new());
        let moments = Moments::new(clock.clone());
        let wake = Wake::default();
        let ledgers = Ledgers::new(wake.clone());
        let health = Health::new();
        let tasks_listed = health.require("tasks", "the Tasks have not all been listed yet");
        let nodes_listed = health.require("nodes", "the Nodes have not all been listed yet");
        let registry = Registry::new();

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
            output_within: OUTPUT_WITHIN,
            metrics: metrics.clone(),
        });
        let looked_at = presence.clone();
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
        let (tasks_seen, tasks_writer) = reflector::store();
        let (nodes, nodes_writer) = NodeCache::new();
        let (bell, rings) = watch::channel(Seen::default());
        let counters = Arc::new(Counters::default());
        let gauges = Gauges {
            archiver: archiver.clone(),
            mirror: mirror.clone(),
            ledgers: ledgers.clone(),
            counters: counters.clone(),
            history_answered: AtomicBool::new(false).into(),
            presence_answered: AtomicBool::new(false).into(),
        };
        let (history_answered, presence_answered) =
            (gauges.history_answered.clone(), gauges.presence_answered.clone());
        gauges.publish(&metrics);
        sources::agents(&metrics, &registry, &moments, options.settings.dead_after);
        let (owners, known, seen) = (ledgers.clone(), tasks_seen.clone(), rings.clone());
        let strays = strays::sweep(
            registry.clone(),
            Arc::new(ledgers.clone()),
            move |task| if seen.borrow().listed { owners.owner(task, &known) } else { None },
            STRAYS_EVERY,
            stop.clone(),
        );
        let stop_election = CancellationToken::new();
        let (successor_in, successor) = oneshot::channel();
        let (lead, standing) = match options.election {
            Election::Alone(epoch) => {
                registry.set_epoch(epoch);
                let (setter, lead) = Lead::always(epoch, moments.now());
                (lead, until(stop_election.clone(), hold(setter)).boxed())
            }
            Election::Lease(election) => {
                gateway.decline(Some(SessionRefusal::NotLeader { leader: None }));
                let (setter, lead) = Lead::new();
                let stop = stop_election.clone();
                (lead, stand(*election, setter, gateway.clone(), moments.clone(), successor_in, stop).boxed())
            }
        };
        let live = LiveLedgers::new(ledgers.clone(), Arc::new(registry.clone()));
        let records = Records::new(history.clone(), archiver.clone(), Arc::new(live), tasks_seen.clone());
        let parts = Parts {
            cluster: cluster.clone(),
            fleet: Arc::new(registry.clone()),
            ledgers,
            history: history.clone(),
            archiver: archiver.clone(),
            nodes: nodes.clone(),
            moments: moments.clone(),
            lead,
        };
        let caches = Caches { tasks_writer, tasks: tasks_seen.clone(), nodes_writer, bell };
        let nodes_known = nodes.clone();
        let all_nodes = move || (*nodes.nodes()).clone();
        let feed = Feed::new(tasks_seen.clone(), rings.clone(), records.clone(), all_nodes);
        let api = Arc::new(Api {
            within: cluster.within(),
            cluster,
            feed,
            records,
            registry: registry.clone(),
            logs: LogReader::new(hub, history.clone(), registry),
            metrics,
            health,
            moments,
            dead_after_ms: options.settings.dead_after.as_millis() as u64,
            streams: Shares::new(MAX_STREAMS.0, MAX_STREAMS.1),
            lists: Shares::new(MAX_LISTS.0, MAX_LISTS.1),
            stop: stop.clone(),
        });

        let mut tasks = Tasks::default();
        tasks.spawn(
            "the caches",
            report_ready((rings.clone(), tasks_listed), (nodes_known, nodes_listed), stop.clone()),
        );
        tasks.spawn("preparing History", prepare(history, history_answered, stop.clone()));
        tasks.spawn("the archiver", until(stop.clone(), archiving.run()));
        tasks.spawn("the results", until(stop.clone(), settling.run()));
        tasks.spawn(
            "the presence mirror",
            until(stop.clone(), async move {
                // So that a wrong address is said at the start, and not when the first agent comes. The store says it itself.
                presence_answered.store(looked_at.check().await.is_ok(), Ordering::Relaxed);
                mirroring.run().await;
            }),
        );
        tasks
            .spawn("the controller", controller::run(parts, caches, wake, counters, stop_controller.clone()));
        tasks.spawn("the sweep for strays", strays);
        tasks.spawn("the election", standing);
        if let Some(certificate) = certificate {
            tasks.spawn("the certificate", certificate.keep_current(CERTIFICATES_EVERY, stop.clone()));
        }
        let agents = crate::gateway::routes::service(gateway.clone());
        tasks.spawn("the gateway", gateway_server.serve(agents, stop.clone()));
        for (server, access) in api_servers {
            let door = Door { surface: Surface::Everything, access };
            tasks.spawn("the API", server.serve(api_routes::service(api.clone(), door), stop.clone()));
        }
        if let Some(server) = metrics_server {
            let door = Door { surface: Surface::ProbesAndMetrics, access: Access::Open };
            let probes = api_routes::service(api, door);
            tasks.spawn("the metrics listener", server.serve(probes, stop.clone()));
        }
        let drain = options.drain;
        Ok(Self {
            tasks,
            stop_controller,
            stop_election,
            successor,
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
        // The next leader need not wait: the epoch keeps what is still on its way from here apart.
        self.stop_election.cancel();
        let successor = tokio::time::timeout(SUCCESSOR_WITHIN, self.successor).await;
        let successor = successor.ok().and_then(Result::ok).flatten();
        tracing::info!(successor = successor.as_deref(), "the agents are told");
        self.gateway.stop(AGENTS_WITHIN, successor).await;
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

/// Keeps the lead of an operator without rivals.
async fn hold(lead: LeadSetter) {
    std::future::pending::<()>().await;
    drop(lead);
}

/// Is ready once all Tasks and Nodes have been listed.
async fn report_ready(
    (mut tasks, tasks_listed): (watch::Receiver<Seen>, Condition),
    (nodes, nodes_listed): (NodeCache, Condition),
    stop: CancellationToken,
) {
    let listed = async {
        // It fails only when the writer is gone, and with it the controller.
        if tasks.wait_for(|seen| seen.listed).await.is_ok() {
            tasks_listed.met();
        }
        nodes.wait_until_complete().await;
        nodes_listed.met();
        std::future::pending::<()>().await;
    };
    until(stop, listed).await;
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

/// Prepares History, however long it takes to answer; says once that it does not, and once that it does again.
async fn prepare(history: Arc<dyn History>, answered: Arc<AtomicBool>, stop: CancellationToken) {
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
    answered.store(true, Ordering::Relaxed);
    if complained {
        tracing::info!("History answers");
    }
    stop.cancelled().await;
}

fn open_certificate(files: &TlsFiles) -> Result<TlsSource, RunError> {
    let files = crate::server::tls::TlsFiles { certificate: files.cert.clone(), key: files.key.clone() };
    TlsSource::open(files).map_err(|error| RunError::Certificate(Box::new(error)))
}
