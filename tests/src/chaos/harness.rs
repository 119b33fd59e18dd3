//! One run of the kill harness, from the first server to the verdict.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};

use super::check::{Case, Findings, judge, settle};
use super::dice::Dice;
use super::faults::{Damage, Mischief};
use super::fleet::Fleet;
use super::load::Load;
use super::servers::Servers;
use super::{book, process};
use crate::cluster::Piece;

/// Faults that last at once, at most.
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

/// What came of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// How it was run.
    pub options: Options,
    /// What was done to the system.
    pub damage: Damage,
    /// What was found; why not, when the system did not even settle.
    pub findings: Result<Findings, String>,
    /// Processes of ours that ended though nobody asked, and panics in their logs.
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
        writeln!(f, "kills {}", self.damage.kills())?;
        for (kind, count) in &self.damage.counts {
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

/// A whole system of processes that all are ours. Ended by [`System::end`].
pub struct System {
    /// Everything that is written lies here; kept when a verdict is bad.
    pub directory: PathBuf,
    /// The servers.
    pub servers: Arc<Servers>,
    /// Operator and agents.
    pub fleet: Arc<Fleet>,
    keeper: JoinHandle<()>,
}

impl System {
    /// Starts servers, operator and agents, and waits until they are ready.
    pub async fn start(test: &str, agents: usize) -> Self {
        let directory = tempfile::Builder::new().prefix("chaos-").tempdir().expect("a directory").keep();
        // Ports must differ between two runs of one seed at a time.
        let mut ports = Dice::new(u64::from(std::process::id()));
        let servers = Arc::new(Servers::start(&directory, &mut ports).await);
        let piece = Piece::on(servers.parts.clone(), test).await;
        let fleet = Arc::new(Fleet::start(piece, &directory, agents, &mut ports).await);
        let keeper = tokio::spawn(keep(Arc::clone(&servers), Arc::clone(&fleet)));
        Self { directory, servers, fleet, keeper }
    }

    /// The file of the witnesses.
    pub fn book(&self) -> PathBuf {
        self.directory.join("witness.book")
    }

    /// Waits until everything answers again.
    pub async fn heal(&self) {
        for node in &self.fleet.nodes {
            node.cable.set(super::cable::Weather::Clear);
        }
        self.servers.answer().await;
        self.fleet.ready(Duration::from_mins(1)).await;
    }

    /// Ends all of it. Removes what was written, unless it is to be looked at.
    pub async fn end(self, clean: bool) {
        self.keeper.abort();
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

    /// Processes of ours that ended though nobody asked, and panics in their logs.
    pub fn crashes(&self) -> Vec<String> {
        let ours = std::iter::once(&self.fleet.operator).chain(self.fleet.nodes.iter().map(|n| &n.agent));
        ours.flat_map(|process| {
            let log = process.log();
            let mut found: Vec<_> =
                panics(&log).into_iter().map(|line| format!("{}: {line}", process.name)).collect();
            // Who loses the lead ends, and is started again: that is no crash.
            let gave_way = log.lines().filter(|line| line.contains("the lead was lost")).count() as u64;
            if process.ended_by_itself() > gave_way {
                let times = process.ended_by_itself();
                let lines: Vec<_> = log
                    .lines()
                    .filter(|line| line.contains("error: ") || line.contains("failed to"))
                    .collect();
                let last = lines.last().copied().unwrap_or_default();
                found.push(format!("{} ended by itself {times} times; {last}", process.name));
            }
            if process.would_not_stop() > 0 {
                found.push(format!(
                    "{} did not end in time on SIGTERM {} times",
                    process.name,
                    process.would_not_stop()
                ));
            }
            found
        })
        .collect()
    }
}

/// Panics in a log. Not those of the MongoDB driver while it says goodbye in a runtime that ends: its own task, after
/// all of ours.
fn panics(log: &str) -> Vec<&str> {
    let lines: Vec<&str> = log.lines().collect();
    let is_farewell = |at: usize| lines[at..].iter().take(48).any(|line| line.contains("end_all_sessions"));
    let panics = lines.iter().enumerate().filter(|(_, line)| line.contains("panicked at"));
    panics.filter(|(at, _)| !is_farewell(*at)).map(|(_, line)| *line).collect()
}

/// Starts again what ended by itself, as a kubelet would.
async fn keep(servers: Arc<Servers>, fleet: Arc<Fleet>) {
    let processes: Vec<Arc<process::Process>> = servers
        .all()
        .into_iter()
        .chain(std::iter::once(&fleet.operator))
        .chain(fleet.nodes.iter().map(|node| &node.agent))
        .cloned()
        .collect();
    loop {
        futures_util::future::join_all(processes.iter().map(|process| process.look_after())).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Runs the harness.
pub async fn run(options: Options) -> Report {
    let begun = Instant::now();
    let system = System::start("chaos", options.agents).await;
    println!("seed {}: the system is up after {:.1?}", options.seed, begun.elapsed());
    let mut dice = Dice::new(options.seed);
    let nodes = system.fleet.nodes.iter().map(|node| node.name.clone()).collect();
    let piece = &system.fleet.piece;
    let (book, load_dice) = (system.book(), Dice::new(dice.roll()));
    let load =
        Load::new(piece.client.clone(), &piece.namespace, nodes, &book, options.most_millis, load_dice);
    let load = Arc::new(Mutex::new(load));
    let loading = tokio::spawn(keep_loaded(Arc::clone(&load), options.task_every, dice.clone()));

    let (servers, fleet) = (Arc::clone(&system.servers), Arc::clone(&system.fleet));
    let mischief = Arc::new(Mischief::new(servers, fleet, options.longest_fault));
    let mut faults = JoinSet::new();
    let mut said = Instant::now();
    while mischief.damage().kills() < options.kills {
        while faults.len() >= AT_ONCE {
            faults.join_next().await;
        }
        if said.elapsed() > Duration::from_secs(15) {
            said = Instant::now();
            let (kills, attempts) = (mischief.damage().kills(), book::read(&book).len());
            println!("seed {}: {kills} kills, {attempts} attempts, {:.0?}", options.seed, begun.elapsed());
        }
        while faults.try_join_next().is_some() {}
        faults.spawn(mischief.next(&mut dice));
        tokio::time::sleep(dice.millis(options.fault_every / 2, options.fault_every * 3 / 2)).await;
    }
    while faults.join_next().await.is_some() {}
    loading.abort();
    println!("seed {}: the last fault is over after {:.1?}", options.seed, begun.elapsed());

    system.heal().await;
    let healed = Instant::now();
    let load = load.lock().await;
    let settled = settle(&system.fleet, &load.wishes, options.settle).await;
    let settled_after = healed.elapsed();
    let damage = mischief.damage();
    let book = book::read(&book);
    let case = Case { wishes: &load.wishes, damage: &damage, book: &book, most_millis: options.most_millis };
    let findings = match settled {
        Ok((tasks, open)) => judge(&system.fleet, &tasks, &case).await.map(|mut findings| {
            findings.violations.extend(open);
            findings
        }),
        Err(why) => Err(why),
    };
    let crashes = system.crashes();
    let report = Report {
        options,
        damage: damage.clone(),
        findings,
        crashes,
        took: begun.elapsed(),
        settled: settled_after,
    };
    system.end(report.is_clean()).await;
    report
}

/// Goes on with the load, a step every so many milliseconds on average.
pub(super) async fn keep_loaded(load: Arc<Mutex<Load>>, every: u64, mut dice: Dice) {
    loop {
        load.lock().await.step().await;
        tokio::time::sleep(dice.millis(every / 2, every * 3 / 2)).await;
    }
}
