//! What is done to the system.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::cable::{Way, Weather};
use super::dice::Dice;
use super::fleet::{Fleet, Node};
use super::process::{Process, signal};
use super::servers::Servers;

/// Whom a fault befalls.
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
    Cable,
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
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
    (16, Victim::Cable),
];

const DEEDS: [(u64, Deed); 3] = [(70, Deed::Kill), (20, Deed::Freeze), (10, Deed::Restart)];

/// Everything that was done.
#[derive(Debug, Clone, Default)]
pub struct Damage {
    /// How often, by kind: `kill agent`, `freeze etcd`, `cable Cut` …
    pub counts: BTreeMap<String, u64>,
    /// Attempts whose supervisor was killed.
    pub supervisors: BTreeSet<String>,
}

impl Damage {
    /// How many processes were killed.
    pub fn kills(&self) -> u64 {
        self.counts.iter().filter(|(kind, _)| kind.starts_with("kill ")).map(|(_, count)| count).sum()
    }
}

/// Does damage, and writes it down before it is done.
pub struct Mischief {
    servers: Arc<Servers>,
    fleet: Arc<Fleet>,
    /// The longest that a fault lasts, milliseconds.
    longest: u64,
    damage: Mutex<Damage>,
}

impl Mischief {
    /// No fault lasts longer than so many milliseconds.
    pub fn new(servers: Arc<Servers>, fleet: Arc<Fleet>, longest: u64) -> Self {
        Self { servers, fleet, longest, damage: Mutex::default() }
    }

    /// What was done so far.
    pub fn damage(&self) -> Damage {
        self.damage.lock().expect("nobody panicked with it").clone()
    }

    fn note(&self, kind: String) {
        *self.damage.lock().expect("nobody panicked with it").counts.entry(kind).or_default() += 1;
    }

    /// Chooses a fault. The future that is returned does it, and is done when it is healed.
    pub fn next(self: &Arc<Self>, dice: &mut Dice) -> impl Future<Output = ()> + Send + 'static {
        let victim = dice.weighted(&VICTIMS).unwrap_or(Victim::Agent);
        let deed = dice.weighted(&DEEDS).unwrap_or(Deed::Kill);
        // Most faults are short; one in sixteen is long.
        let most = if dice.percent(6) { self.longest } else { self.longest.min(2_000) };
        let (span, own) = (dice.millis(0, most), Dice::new(dice.roll()));
        let this = Arc::clone(self);
        async move { this.befall(victim, deed, span, own).await }
    }

    async fn befall(&self, victim: Victim, deed: Deed, span: Duration, mut dice: Dice) {
        let Some(node) = dice.pick(&self.fleet.nodes) else { return };
        let process = match victim {
            Victim::Operator => &self.fleet.operator,
            Victim::Agent => &node.agent,
            Victim::Redis => &self.servers.redis,
            Victim::Ferretdb => &self.servers.ferretdb,
            Victim::Postgres => &self.servers.postgres,
            Victim::Apiserver => &self.servers.apiserver,
            Victim::Etcd => &self.servers.etcd,
            Victim::Cable => return self.weather(node, span, &mut dice).await,
            Victim::Supervisor => return self.supervisor(deed, span, &mut dice).await,
        };
        self.process(process, &format!("{victim:?}").to_lowercase(), deed, span).await;
    }

    async fn process(&self, process: &Process, kind: &str, deed: Deed, span: Duration) {
        let (word, done) = match deed {
            Deed::Kill => ("kill", process.kill(span).await),
            Deed::Freeze => ("freeze", process.freeze(span).await),
            Deed::Restart => ("restart", process.restart(Duration::from_secs(20)).await),
        };
        if done {
            self.note(format!("{word} {kind}"));
        }
    }

    async fn weather(&self, node: &Node, span: Duration, dice: &mut Dice) {
        if node.cable.weather() != Weather::Clear {
            return;
        }
        let weather = match dice.below(6) {
            0 => Weather::Cut,
            1 => Weather::Silent,
            2 => Weather::Deaf(Way::Up),
            3 => Weather::Deaf(Way::Down),
            4 => Weather::Late(dice.millis(50, 1_000)),
            _ => Weather::Trickle(200 + dice.below(20_000)),
        };
        node.cable.set(weather);
        let kind = format!("{weather:?}");
        let kind = kind.split('(').next().unwrap_or_default().to_lowercase();
        self.note(format!("cable {kind}"));
        tokio::time::sleep(span.max(Duration::from_millis(100))).await;
        node.cable.set(Weather::Clear);
    }

    /// A supervisor of any node that has one.
    async fn supervisor(&self, deed: Deed, span: Duration, dice: &mut Dice) {
        let all: Vec<_> = self.fleet.nodes.iter().flat_map(|node| self.fleet.supervisors(node)).collect();
        let Some(supervisor) = dice.pick(&all) else { return };
        if deed == Deed::Freeze {
            self.note("freeze supervisor".to_owned());
            signal(supervisor.pid, Signal::SIGSTOP);
            tokio::time::sleep(span).await;
            signal(supervisor.pid, Signal::SIGCONT);
        } else {
            let attempt = supervisor.attempt.clone();
            self.damage.lock().expect("nobody panicked with it").supervisors.insert(attempt);
            self.note("kill supervisor".to_owned());
            signal(supervisor.pid, Signal::SIGKILL);
        }
    }
}
