//! Injects faults: kills, freezes, restarts, network faults.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::fleet::{Fleet, Node};
use super::process::{Process, signal};
use super::proxy::{Direction, Network};
use super::rng::Rng;
use super::servers::Servers;

/// What a fault is injected into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Operator,
    Agent,
    Supervisor,
    Redis,
    Ferretdb,
    Postgres,
    Apiserver,
    Etcd,
    Proxy,
}

/// The kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Freeze,
    Restart,
}

const VICTIMS: [(u64, Victim); 9] = [
    (18, Victim::Operator),
    (24, Victim::Agent),
    (14, Victim::Supervisor),
    (6, Victim::Redis),
    (6, Victim::Ferretdb),
    (5, Victim::Postgres),
    (6, Victim::Apiserver),
    (5, Victim::Etcd),
    (16, Victim::Proxy),
];

const FAULTS: [(u64, Fault); 3] = [(70, Fault::Kill), (20, Fault::Freeze), (10, Fault::Restart)];

/// All faults injected so far.
#[derive(Debug, Clone, Default)]
pub struct InjectedFaults {
    /// How often, by kind: `kill agent`, `freeze etcd`, `proxy cut` …
    pub counts: BTreeMap<String, u64>,
    /// Attempts that had their supervisor killed.
    pub supervisors: BTreeSet<String>,
}

impl InjectedFaults {
    /// How many processes were killed.
    pub fn kills(&self) -> u64 {
        self.counts.iter().filter(|(kind, _)| kind.starts_with("kill ")).map(|(_, count)| count).sum()
    }
}

/// Injects faults; each is recorded before it takes effect where the check depends on it.
pub struct FaultInjector {
    servers: Arc<Servers>,
    fleet: Arc<Fleet>,
    /// The longest that a fault lasts, milliseconds.
    longest: u64,
    injected: Mutex<InjectedFaults>,
}

impl FaultInjector {
    /// `longest` is the longest duration of a fault, milliseconds.
    pub fn new(servers: Arc<Servers>, fleet: Arc<Fleet>, longest: u64) -> Self {
        Self { servers, fleet, longest, injected: Mutex::default() }
    }

    /// All faults injected so far.
    pub fn injected(&self) -> InjectedFaults {
        self.injected.lock().expect("not poisoned").clone()
    }

    fn record(&self, kind: String) {
        *self.injected.lock().expect("not poisoned").counts.entry(kind).or_default() += 1;
    }

    /// Chooses a fault. The returned future injects it, and completes when the fault is over.
    pub fn next(self: &Arc<Self>, rng: &mut Rng) -> impl Future<Output = ()> + Send + 'static {
        let victim = rng.weighted(&VICTIMS).unwrap_or(Victim::Agent);
        let fault = rng.weighted(&FAULTS).unwrap_or(Fault::Kill);
        // Most faults are short; one in sixteen is long.
        let most = if rng.percent(6) { self.longest } else { self.longest.min(2_000) };
        let (span, own) = (rng.millis(0, most), Rng::new(rng.next_u64()));
        let this = Arc::clone(self);
        async move { this.inject(victim, fault, span, own).await }
    }

    async fn inject(&self, victim: Victim, fault: Fault, span: Duration, mut rng: Rng) {
        let Some(node) = rng.pick(&self.fleet.nodes) else { return };
        let process = match victim {
            Victim::Operator => &self.fleet.operator,
            Victim::Agent => &node.agent,
            Victim::Redis => &self.servers.redis,
            Victim::Ferretdb => &self.servers.ferretdb,
            Victim::Postgres => &self.servers.postgres,
            Victim::Apiserver => &self.servers.apiserver,
            Victim::Etcd => &self.servers.etcd,
            Victim::Proxy => return self.network(node, span, &mut rng).await,
            Victim::Supervisor => return self.supervisor(fault, span, &mut rng).await,
        };
        self.process(process, &format!("{victim:?}").to_lowercase(), fault, span).await;
    }

    async fn process(&self, process: &Process, kind: &str, fault: Fault, span: Duration) {
        let (verb, done) = match fault {
            Fault::Kill => ("kill", process.kill(span).await),
            Fault::Freeze => ("freeze", process.freeze(span).await),
            Fault::Restart => ("restart", process.restart(Duration::from_secs(20)).await),
        };
        if done {
            self.record(format!("{verb} {kind}"));
        }
    }

    async fn network(&self, node: &Node, span: Duration, rng: &mut Rng) {
        if node.proxy.network() != Network::Normal {
            return;
        }
        let network = match rng.below(6) {
            0 => Network::Cut,
            1 => Network::Blackhole,
            2 => Network::OneWayBlackhole(Direction::Up),
            3 => Network::OneWayBlackhole(Direction::Down),
            4 => Network::Delayed(rng.millis(50, 1_000)),
            _ => Network::Throttled(200 + rng.below(20_000)),
        };
        node.proxy.set(network);
        let kind = format!("{network:?}");
        let kind = kind.split('(').next().unwrap_or_default().to_lowercase();
        self.record(format!("proxy {kind}"));
        tokio::time::sleep(span.max(Duration::from_millis(100))).await;
        node.proxy.set(Network::Normal);
    }

    /// A supervisor of any node that has one.
    async fn supervisor(&self, fault: Fault, span: Duration, rng: &mut Rng) {
        let all: Vec<_> = self.fleet.nodes.iter().flat_map(|node| self.fleet.supervisors(node)).collect();
        let Some(supervisor) = rng.pick(&all) else { return };
        if fault == Fault::Freeze {
            self.record("freeze supervisor".to_owned());
            signal(supervisor.pid, Signal::SIGSTOP);
            tokio::time::sleep(span).await;
            signal(supervisor.pid, Signal::SIGCONT);
        } else {
            let attempt = supervisor.attempt.clone();
            self.injected.lock().expect("not poisoned").supervisors.insert(attempt);
            self.record("kill supervisor".to_owned());
            signal(supervisor.pid, Signal::SIGKILL);
        }
    }
}
