//! An operator: every component made, connected and started; stopped in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sentinel_protocol::ids::NodeName;
use sentinel_viewer::BasePath;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::archive::{Archive, ArchiveParts, drained};
use super::audit_heads;
use super::caches::{self, CacheReaders};
use super::election::{Election, elect};
use super::error::RunError;
use super::gauges::Gauges;
use super::heap;
use super::listeners::{Addresses, ApiAt, ListenAt, Listeners};
use super::overview::Overview;
use super::tasks::{Tasks, until};
use crate::audit::Audit;
use crate::clock::Clock;
use crate::cluster::{Cluster, StoresByCaller};
use crate::controller::{
    self, Counters, CurrentCeilings, Endings, Leadership, Parts, ReconcileRequests, RunStore, RunStoreReader,
};
use crate::gateway::{
    Authenticate, Gateway, GatewayParts, Registry, Settings, departed, orphans, publish_node_gauges,
};
use crate::health::Health;
use crate::history::History;
use crate::history::archive::Archiver;
use crate::http::api::{Api, MAX_COMPRESSED, MAX_LISTS, MAX_MERGED, MAX_STREAMS};
use crate::http::feed::Feed;
use crate::http::guard::Door;
use crate::http::listings::Listings;
use crate::http::owners::Owners;
use crate::identity::local::Owner;
use crate::logs::LogReader;
use crate::metrics::Registry as MetricsRegistry;
use crate::presence::Presence;
use crate::presence::mirror::{MirrorOptions, PresenceMirror};
use crate::records::Records;
use crate::server::tls::Tls;
use crate::server::{Exposure, Server, Shares};
use crate::traces::Traces;

/// How long agents get to close their sockets when the operator stops.
const AGENTS_WITHIN: Duration = Duration::from_secs(2);

/// How long Sessions are kept while the lead is released and taken; then agents are closed without a successor.
const SUCCESSOR_WITHIN: Duration = Duration::from_secs(2);

/// How often orphaned Attempts are searched for.
const ORPHANS_EVERY: Duration = Duration::from_secs(30);

/// How often nodes that have left the cluster are removed from the registry.
const DEPARTED_EVERY: Duration = Duration::from_secs(30);

/// What differs between a cluster and dev mode.
pub struct Seams {
    /// Where Tasks and Nodes live.
    pub cluster: Arc<dyn Cluster>,
    /// The archive.
    pub history: Arc<dyn History>,
    /// Where presence is mirrored.
    pub presence: Arc<dyn Presence>,
    /// Authentication of agents.
    pub auth: Arc<dyn Authenticate>,
    /// Where callers with credentials of their own change Tasks; `None` where they have none.
    pub by_caller: Option<Arc<dyn StoresByCaller>>,
    /// Whose the API is, where that is one user of this machine.
    pub owner: Option<Owner>,
    /// Where the gateway may listen, given that.
    pub exposure: Exposure,
    /// The clock.
    pub clock: Clock,
    /// The metrics.
    pub metrics: MetricsRegistry,
    /// Where spans of Runs go.
    pub traces: Traces,
    /// Where audit records go.
    pub audit: Audit,
    /// How far Tasks may reach.
    pub ceilings: CurrentCeilings,
}

/// A component that runs until the operator stops: its name, and how it is started.
pub type Background = (&'static str, Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, ()> + Send>);

/// Where to listen, and the times.
pub struct Options {
    /// Address for agents.
    pub gateway: SocketAddr,
    /// The TLS of the gateway; plain TCP without it.
    pub gateway_tls: Option<Tls>,
    /// Where the HTTP API is.
    pub api: ApiAt,
    /// Where an ingress has web page and API, besides the root.
    pub base_path: BasePath,
    /// The listener for metrics and probes; `None` has them on the API's listener alone.
    pub metrics: Option<(Server, Door)>,
    /// Further components, which run until the operator stops.
    pub background: Vec<Background>,
    /// How long what is on its way to History may take at the end.
    pub drain: Duration,
    /// The gateway's times.
    pub settings: Settings,
    /// How this operator becomes the leader.
    pub election: Election,
}

/// A running operator.
#[derive(Debug)]
pub struct Operator {
    tasks: Tasks,
    stop: Stop,
    /// The address of the next leader, once the lead is released.
    successor: oneshot::Receiver<Option<String>>,
    gateway: Gateway,
    archiver: Archiver,
    mirror: PresenceMirror,
    drain: Duration,
    addresses: Addresses,
}

/// What stops the components, in this order.
#[derive(Debug, Clone, Default)]
struct Stop {
    controller: CancellationToken,
    /// Releases the lead.
    election: CancellationToken,
    /// Everything else.
    all: CancellationToken,
}

/// What most components share.
struct Shared {
    health: Health,
    clock: Clock,
    metrics: MetricsRegistry,
    registry: Registry,
    runs: RunStore,
    ceilings: CurrentCeilings,
    stop: Stop,
}

impl Operator {
    /// Opens the ports and starts every component.
    ///
    /// # Errors
    /// [`RunError`] when a port cannot be opened or the certificate cannot be used; then nothing was started.
    pub async fn start(seams: Seams, options: Options) -> Result<Self, RunError> {
        let Seams {
            cluster,
            history,
            presence,
            auth,
            by_caller,
            owner,
            exposure,
            clock,
            metrics,
            traces,
            audit,
            ceilings,
        } = seams;
        let Options {
            gateway,
            gateway_tls,
            api,
            base_path,
            metrics: metrics_listener,
            background,
            drain,
            settings,
            election,
        } = options;
        heap::keep_blocks();
        let at = ListenAt { gateway, gateway_tls, api, metrics: metrics_listener };
        let listeners = Listeners::bind(at, exposure, &metrics).await?;
        let addresses = listeners.addresses();

        let requests = ReconcileRequests::default();
        let shared = Shared::new(clock, metrics, (traces, audit.clone()), (requests.clone(), ceilings));
        let stop = shared.stop.clone();
        let (mut tasks, counters) = (Tasks::new(shared.health.clone()), Arc::new(Counters::default()));

        let (readers, caches) = caches::start(&mut tasks, &shared.health, stop.all.clone());
        let archive = Archive::start(&mut tasks, &shared.archive_parts(&history));
        shared.keep_audit_heads(&mut tasks, &audit, &history);
        let (mirror, presence_answered) = start_mirror(&mut tasks, presence, &stop.all);
        let gateway = shared.gateway(settings, auth, &archive, &mirror, audit.clone());
        let lease = election.lease().map(str::to_owned);
        let elected = elect(election, &gateway, &shared.clock, stop.election.clone());
        tasks.spawn("the election", elected.work);
        let (leadership, successor) = (elected.leadership, elected.successor);
        let parts = shared.parts(&cluster, &history, &archive, &readers, &leadership);
        let controller = controller::run(parts, caches, requests, counters.clone(), stop.controller.clone());
        tasks.spawn("the reconcile loop", controller);
        shared.start_sweeps(&mut tasks, &readers, &gateway);
        shared.start_memory_release(&mut tasks, &gateway);
        shared.start_reading_ceilings(&mut tasks);

        shared.publish_metrics(&*cluster, &archive, &mirror, counters, presence_answered, settings);
        shared.publish_overview(&readers, &leadership, lease.as_deref());
        let archiver = archive.archiver.clone();
        for (name, start) in background {
            tasks.spawn(name, start(stop.all.clone()));
        }
        let mut api = shared.api(cluster, history, archive, readers, settings, base_path);
        (api.by_caller, api.owner, api.audit) = (by_caller, owner, audit);
        listeners.serve(&mut tasks, gateway.clone(), Arc::new(api), &stop.all);
        Ok(Self { tasks, stop, successor, gateway, archiver, mirror, drain, addresses })
    }

    /// Address of the HTTP API.
    pub fn api_addr(&self) -> SocketAddr {
        self.addresses.api
    }

    /// Address for agents.
    pub fn gateway_addr(&self) -> SocketAddr {
        self.addresses.gateway
    }

    /// Address for metrics and probes, where they have one of their own.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.addresses.metrics
    }

    /// The connected agents.
    pub fn registry(&self) -> &Registry {
        self.gateway.registry()
    }

    /// Runs until `stop` completes, then stops in order.
    ///
    /// # Errors
    /// [`RunError`] when a component exited; the others were stopped in order all the same.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<(), RunError> {
        let result = tokio::select! {
            () = stop => Ok(()),
            error = self.tasks.first_exit() => Err(error),
        };
        if let Err(error) = &result {
            tracing::error!(%error, category = error.category(), "shutting down: a component exited");
        }
        self.shut_down().await;
        result
    }

    async fn shut_down(mut self) {
        tracing::info!("shutting down: nothing new is started; commands on the nodes keep running");
        self.stop.controller.cancel();
        // The next leader need not wait: its epoch is higher than that of anything still in flight from here.
        self.stop.election.cancel();
        let successor = tokio::time::timeout(SUCCESSOR_WITHIN, self.successor).await;
        let successor = successor.ok().and_then(Result::ok).flatten();
        tracing::info!(successor = successor.as_deref(), "closing the Sessions");
        self.gateway.stop(AGENTS_WITHIN, successor).await;
        self.mirror.flush();
        if tokio::time::timeout(self.drain, drained(&self.archiver)).await.is_err() {
            let status = self.archiver.status();
            tracing::warn!(
                records = status.queued_records,
                bytes = status.queued_bytes,
                "drain timed out; agents will resend unarchived records"
            );
        }
        self.stop.all.cancel();
        self.tasks.join().await;
    }
}

impl Shared {
    /// What the reconcile loop works with.
    fn parts(
        &self,
        cluster: &Arc<dyn Cluster>,
        history: &Arc<dyn History>,
        archive: &Archive,
        readers: &CacheReaders,
        leadership: &Leadership,
    ) -> Parts {
        Parts {
            cluster: cluster.clone(),
            fleet: Arc::new(self.registry.clone()),
            runs: self.runs.clone(),
            history: history.clone(),
            archiver: archive.archiver.clone(),
            nodes: readers.nodes.clone(),
            clock: self.clock.clone(),
            leadership: leadership.clone(),
            health: self.health.clone(),
            metrics: self.metrics.clone(),
            stamps: cluster.stamps(),
            ceilings: self.ceilings.clone(),
        }
    }

    fn new(
        clock: Clock,
        metrics: MetricsRegistry,
        (traces, audit): (Traces, Audit),
        (requests, ceilings): (ReconcileRequests, CurrentCeilings),
    ) -> Self {
        let registry = Registry::new();
        let (endings, agents) = (Endings::new(&metrics, traces, audit, clock.clone()), registry.clone());
        let offset = move |node: &NodeName| agents.clock_offset_millis(node);
        let runs = RunStore::noting(requests, endings, offset);
        let (health, stop) = (Health::new(), Stop::default());
        Self { health, clock, metrics, registry, runs, ceilings, stop }
    }

    fn publish_overview(&self, readers: &CacheReaders, leadership: &Leadership, lease: Option<&str>) {
        let (metrics, agents, clock) = (&self.metrics, &self.registry, &self.clock);
        Overview { metrics, agents, clock, readers, leadership, lease }.publish();
    }

    fn archive_parts<'a>(&'a self, history: &'a Arc<dyn History>) -> ArchiveParts<'a> {
        let Self { runs, registry, metrics, stop, .. } = self;
        ArchiveParts { history, runs, registry, metrics, stop: &stop.all }
    }

    fn gateway(
        &self,
        settings: Settings,
        auth: Arc<dyn Authenticate>,
        archive: &Archive,
        mirror: &PresenceMirror,
        audit: Audit,
    ) -> Gateway {
        let mirror = mirror.clone();
        Gateway::new(GatewayParts {
            settings,
            auth,
            registry: self.registry.clone(),
            ledgers: Arc::new(self.runs.clone()),
            results: archive.results.clone(),
            hub: archive.hub.clone(),
            presence: Box::new(move |record| mirror.renew(record)),
            audit,
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        })
    }

    /// Removes what is left of Runs and of nodes, at intervals.
    fn start_sweeps(&self, tasks: &mut Tasks, readers: &CacheReaders, gateway: &Gateway) {
        self.start_orphan_sweep(tasks, readers, gateway);
        self.start_departed_sweep(tasks, readers);
    }

    /// Cancels and forgets Attempts that no tracked Run has.
    fn start_orphan_sweep(&self, tasks: &mut Tasks, readers: &CacheReaders, gateway: &Gateway) {
        let CacheReaders { tasks: known, progress, .. } = readers.clone();
        let (runs, ledgers) = (self.runs.clone(), Arc::new(self.runs.clone()));
        let owner = move |task: &_| if progress.borrow().listed { runs.owner(task, &known) } else { None };
        let (registry, metrics) = (self.registry.clone(), gateway.metrics().clone());
        let stop = self.stop.all.clone();
        tasks.spawn("the orphan sweep", orphans::run(registry, ledgers, owner, metrics, ORPHANS_EVERY, stop));
    }

    /// Keeps the heads of audit chains in History.
    fn keep_audit_heads(&self, tasks: &mut Tasks, audit: &Audit, history: &Arc<dyn History>) {
        let heads = audit_heads::run(audit.clone(), history.clone(), self.clock.clone());
        tasks.spawn("the audit heads in History", until(self.stop.all.clone(), heads));
    }

    /// Returns memory to the kernel after waves of agents.
    fn start_memory_release(&self, tasks: &mut Tasks, gateway: &Gateway) {
        let sessions = gateway.metrics().sessions.begun.clone();
        let waves = heap::after_waves(move || sessions.get(), heap::release);
        tasks.spawn("the return of memory", until(self.stop.all.clone(), waves));
    }

    /// Reads the file of ceilings again when it changes.
    fn start_reading_ceilings(&self, tasks: &mut Tasks) {
        let (runs, metrics, stop) = (self.runs.clone(), self.metrics.clone(), self.stop.all.clone());
        tasks.spawn("the ceilings", self.ceilings.clone().keep_current(runs, metrics, stop));
    }

    /// Removes nodes that have left the cluster from the registry.
    fn start_departed_sweep(&self, tasks: &mut Tasks, readers: &CacheReaders) {
        let (registry, ledgers) = (self.registry.clone(), Arc::new(self.runs.clone()));
        let (nodes, clock, stop) = (readers.nodes.clone(), self.clock.clone(), self.stop.all.clone());
        let sweep = departed::run(registry, ledgers, nodes, clock, DEPARTED_EVERY, stop);
        tasks.spawn("the removal of departed nodes", sweep);
    }

    fn publish_metrics(
        &self,
        cluster: &dyn Cluster,
        archive: &Archive,
        mirror: &PresenceMirror,
        counters: Arc<Counters>,
        presence_answered: Arc<AtomicBool>,
        settings: Settings,
    ) {
        for watch in cluster.watches() {
            watch.publish(&self.health, &self.metrics);
        }
        publish_node_gauges(&self.metrics, &self.registry, &self.clock, settings.dead_after);
        let gauges = Gauges {
            archiver: archive.archiver.clone(),
            mirror: mirror.clone(),
            runs: self.runs.clone(),
            counters,
            history_answered: archive.answered.clone(),
            presence_answered,
        };
        gauges.publish(&self.metrics);
    }

    fn api(
        self,
        cluster: Arc<dyn Cluster>,
        history: Arc<dyn History>,
        archive: Archive,
        readers: CacheReaders,
        settings: Settings,
        base_path: BasePath,
    ) -> Api {
        let CacheReaders { tasks, nodes, progress } = readers;
        let live = RunStoreReader::new(self.runs, Arc::new(self.registry.clone()));
        let records = Records::new(history.clone(), archive.archiver, Arc::new(live), tasks.clone());
        let all_nodes = move || (*nodes.nodes()).clone();
        Api {
            within: cluster.within(),
            stamps: cluster.stamps(),
            store: cluster,
            by_caller: None,
            audit: Audit::default(),
            owner: None,
            owners: Owners::default(),
            base_path,
            feed: Feed::new(tasks, progress, records.clone(), all_nodes),
            records,
            registry: self.registry.clone(),
            logs: LogReader::new(archive.hub, history, self.registry),
            metrics: self.metrics,
            health: self.health,
            clock: self.clock,
            dead_after_ms: settings.dead_after.as_millis() as u64,
            streams: Shares::new(MAX_STREAMS.0, MAX_STREAMS.1),
            lists: Shares::new(MAX_LISTS.0, MAX_LISTS.1),
            listings: Listings::default(),
            merged: Shares::new(MAX_MERGED.0, MAX_MERGED.1),
            compressed: Shares::new(MAX_COMPRESSED.0, MAX_COMPRESSED.1),
            stop: self.stop.all,
        }
    }
}

/// Starts the mirror of presence; the flag is set once its store has answered.
fn start_mirror(
    tasks: &mut Tasks,
    presence: Arc<dyn Presence>,
    stop: &CancellationToken,
) -> (PresenceMirror, Arc<AtomicBool>) {
    let (mirror, mirroring) = PresenceMirror::new(presence.clone(), MirrorOptions::default());
    let answered = Arc::new(AtomicBool::new(false));
    let noted = answered.clone();
    let work = async move {
        // The store logs its failures: a wrong address is logged at the start, and not with the first agent.
        noted.store(presence.check().await.is_ok(), Ordering::Relaxed);
        mirroring.run().await;
    };
    tasks.spawn("the presence mirror", until(stop.clone(), work));
    (mirror, answered)
}
