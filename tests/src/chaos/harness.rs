//! One run of the fault injector, from the first server to the verdict.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};

use super::check::{Case, Findings, check, settle};
use super::faults::{FaultInjector, InjectedFaults};
use super::fleet::Fleet;
use super::load_generator::LoadGenerator;
use super::rng::Rng;
use super::servers::Servers;
use super::{process, recording};
use crate::cluster::TestNamespace;

/// Maximum number of faults at a time.
const AT_ONCE: usize = 6;

/// How to run it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Processes to kill.
    pub kills: u64,
    /// Agents.
    pub agents: usize,
    /// The seed of all that is random here; not of what the machine does with it.
    pub seed: u64,
    /// The longest that a command takes, milliseconds.
    pub most_millis: u64,
    /// The longest that a fault lasts, milliseconds.
    pub longest_fault: u64,
    /// Time between two faults on average, milliseconds.
    pub fault_every: u64,
    /// Time between two Tasks on average, milliseconds.
    pub task_every: u64,
    /// How long the system may take to settle when nothing is done to it any more.
    pub settle: Duration,
}

impl Options {
    /// The short form of a seed.
    pub fn short(seed: u64) -> Self {
        Self {
            kills: 25,
            agents: 4,
            seed,
            most_millis: 4_000,
            longest_fault: 5_000,
            fault_every: 900,
            task_every: 700,
            settle: Duration::from_mins(1),
        }
    }

    /// The long form.
    pub fn long(kills: u64, agents: usize, seed: u64) -> Self {
        Self {
            kills,
            agents,
            most_millis: 8_000,
            longest_fault: 25_000,
            fault_every: 600,
            task_every: 1_500,
            settle: Duration::from_mins(3),
            ..Self::short(seed)
        }
    }
}

/// The result.
#[derive(Debug, Clone)]
pub struct Report {
    /// How it was run.
    pub options: Options,
    /// What was done to the system.
    pub injected: InjectedFaults,
    /// What was found; why not, when the system did not even settle.
    pub findings: Result<Findings, String>,
    /// Unexpected exits of our processes, and panics in their logs.
    pub crashes: Vec<String>,
    /// How long all of it took.
    pub took: Duration,
    /// How long the system took to settle.
    pub settled: Duration,
}

impl Report {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.findings.as_ref().is_ok_and(|findings| findings.violations.is_empty()) && self.crashes.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        writeln!(
            f,
            "seed {}, {} agents, {:.0?} in all, {:.1?} to settle",
            options.seed, options.agents, self.took, self.settled
        )?;
        writeln!(f, "kills {}", self.injected.kills())?;
        for (kind, count) in &self.injected.counts {
            writeln!(f, "  {kind:<22}{count:>6}")?;
        }
        match &self.findings {
            Ok(found) => write!(f, "{found}")?,
            Err(why) => writeln!(f, "no verdict: {why}")?,
        }
        for crash in &self.crashes {
            writeln!(f, "crash: {crash}")?;
        }
        Ok(())
    }
}

/// A whole system: servers, operator and agents as child processes. Ended by [`System::end`].
pub struct System {
    /// Everything that is written lies here; kept when a verdict is bad.
    pub directory: PathBuf,
    /// The servers.
    pub servers: Arc<Servers>,
    /// Operator and agents.
    pub fleet: Arc<Fleet>,
    restarter: JoinHandle<()>,
}

impl System {
    /// Starts servers, operator and agents, and waits until they are ready.
    pub async fn start(test: &str, agents: usize) -> Self {
        let directory = tempfile::Builder::new().prefix("chaos-").tempdir().expect("a directory").keep();
        let servers = Arc::new(Servers::start(&directory).await);
        let namespace = TestNamespace::on(servers.parts.clone(), test).await;
        let fleet = Arc::new(Fleet::start(namespace, &directory, agents).await);
        let restarter = tokio::spawn(keep_running(Arc::clone(&servers), Arc::clone(&fleet)));
        Self { directory, servers, fleet, restarter }
    }

    /// The file that the recorders write.
    pub fn recording(&self) -> PathBuf {
        self.directory.join("recording")
    }

    /// Waits until everything answers again.
    pub async fn heal(&self) {
        for node in &self.fleet.nodes {
            node.proxy.set(super::proxy::Network::Normal);
        }
        self.servers.answer().await;
        self.fleet.ready(Duration::from_mins(1)).await;
    }

    /// Waits until every Task is over and archived, for at most `within`, then compares what was recorded with what the
    /// system reports. Returns the findings, and how long the system took to settle.
    pub async fn verdict(
        &self,
        load: &LoadGenerator,
        injected: &InjectedFaults,
        within: Duration,
        most_millis: u64,
    ) -> (Result<Findings, String>, Duration) {
        let begun = Instant::now();
        let settled = settle(&self.fleet, &load.requests, within).await;
        let took = begun.elapsed();
        let recording = recording::read(&self.recording());
        let case = Case { requests: &load.requests, injected, recording: &recording, most_millis };
        let findings = match settled {
            Ok((tasks, open)) => check(&self.fleet, &tasks, &case).await.map(|mut findings| {
                findings.violations.extend(open);
                findings
            }),
            Err(why) => Err(why),
        };
        (findings, took)
    }

    /// Ends all processes. Removes the directory when `clean`, and keeps it for inspection otherwise.
    pub async fn end(self, clean: bool) {
        self.restarter.abort();
        self.fleet.end().await;
        for server in self.servers.all() {
            server.end().await;
        }
        if clean {
            let _ = std::fs::remove_dir_all(&self.directory);
        } else {
            println!("logs and states are left in {}", self.directory.display());
        }
    }

    /// Unexpected exits of our processes, and panics in their logs.
    pub fn crashes(&self) -> Vec<String> {
        let ours = std::iter::once(&self.fleet.operator).chain(self.fleet.nodes.iter().map(|n| &n.agent));
        ours.flat_map(|process| {
            let log = process.log();
            let mut found: Vec<_> =
                panics(&log).into_iter().map(|line| format!("{}: {line}", process.name)).collect();
            // An operator that loses its leadership exits and is restarted: that is not a crash.
            let lost_lead =
                log.lines().filter(|line| line.contains("lost leadership; exiting")).count() as u64;
            if process.unexpected_exits() > lost_lead {
                let times = process.unexpected_exits();
                let lines: Vec<_> = log
                    .lines()
                    .filter(|line| line.contains("error: ") || line.contains("failed to"))
                    .collect();
                let last = lines.last().copied().unwrap_or_default();
                found.push(format!("{} exited unexpectedly {times} times; {last}", process.name));
            }
            if process.stop_timeouts() > 0 {
                found.push(format!(
                    "{} did not exit in time on SIGTERM {} times",
                    process.name,
                    process.stop_timeouts()
                ));
            }
            found
        })
        .collect()
    }
}

/// Panics in a log. Not those of the MongoDB driver while it ends its sessions during runtime shutdown: a task of its
/// own, after all of ours.
fn panics(log: &str) -> Vec<&str> {
    let lines: Vec<&str> = log.lines().collect();
    let is_driver_shutdown =
        |at: usize| lines[at..].iter().take(48).any(|line| line.contains("end_all_sessions"));
    let panics = lines.iter().enumerate().filter(|(_, line)| line.contains("panicked at"));
    panics.filter(|(at, _)| !is_driver_shutdown(*at)).map(|(_, line)| *line).collect()
}

/// Restarts processes that have exited, as a kubelet would.
async fn keep_running(servers: Arc<Servers>, fleet: Arc<Fleet>) {
    let processes: Vec<Arc<process::Process>> = servers
        .all()
        .into_iter()
        .chain(std::iter::once(&fleet.operator))
        .chain(fleet.nodes.iter().map(|node| &node.agent))
        .cloned()
        .collect();
    loop {
        futures_util::future::join_all(processes.iter().map(|process| process.restart_if_exited())).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Runs it.
pub async fn run(options: Options) -> Report {
    let begun = Instant::now();
    let system = System::start("chaos", options.agents).await;
    println!("seed {}: the system is up after {:.1?}", options.seed, begun.elapsed());
    let mut rng = Rng::new(options.seed);
    let nodes = system.fleet.nodes.iter().map(|node| node.name.clone()).collect();
    let namespace = &system.fleet.namespace;
    let (recording, load_rng) = (system.recording(), Rng::new(rng.next_u64()));
    let load = LoadGenerator::new(
        namespace.client.clone(),
        &namespace.name,
        nodes,
        &recording,
        options.most_millis,
        load_rng,
    );
    let load = Arc::new(Mutex::new(load));
    let loading = tokio::spawn(keep_loaded(Arc::clone(&load), options.task_every, rng.clone()));

    let (servers, fleet) = (Arc::clone(&system.servers), Arc::clone(&system.fleet));
    let injector = Arc::new(FaultInjector::new(servers, fleet, options.longest_fault));
    inject(&injector, &options, &recording, begun, &mut rng).await;
    loading.abort();
    println!("seed {}: the last fault is over after {:.1?}", options.seed, begun.elapsed());

    system.heal().await;
    let load = load.lock().await;
    let injected = injector.injected();
    let (findings, settled) = system.verdict(&load, &injected, options.settle, options.most_millis).await;
    let crashes = system.crashes();
    let report = Report { options, injected, findings, crashes, took: begun.elapsed(), settled };
    system.end(report.is_clean()).await;
    report
}

/// Injects faults until so many processes were killed, and waits until all faults are over.
async fn inject(
    injector: &Arc<FaultInjector>,
    options: &Options,
    recording: &Path,
    begun: Instant,
    rng: &mut Rng,
) {
    let mut faults = JoinSet::new();
    let mut reported = Instant::now();
    while injector.injected().kills() < options.kills {
        while faults.len() >= AT_ONCE {
            faults.join_next().await;
        }
        if reported.elapsed() > Duration::from_secs(15) {
            reported = Instant::now();
            let (kills, attempts) = (injector.injected().kills(), recording::read(recording).len());
            println!("seed {}: {kills} kills, {attempts} attempts, {:.0?}", options.seed, begun.elapsed());
        }
        while faults.try_join_next().is_some() {}
        faults.spawn(injector.next(rng));
        tokio::time::sleep(rng.millis(options.fault_every / 2, options.fault_every * 3 / 2)).await;
    }
    while faults.join_next().await.is_some() {}
}

/// Continues the load, a step every `every` milliseconds on average.
pub(super) async fn keep_loaded(load: Arc<Mutex<LoadGenerator>>, every: u64, mut rng: Rng) {
    loop {
        load.lock().await.step().await;
        tokio::time::sleep(rng.millis(every / 2, every * 3 / 2)).await;
    }
}
