//! MongoDB down for long, under load: Tasks continue, records and output wait on the agents, and all of it is archived
//! when the server is back.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::check::Findings;
use super::faults::InjectedFaults;
use super::harness::{System, keep_loaded};
use super::load_generator::LoadGenerator;
use super::recording;
use super::rng::Rng;
use crate::wait::until;

/// How often the system is polled.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// The longest that a command takes, milliseconds.
const MOST_MILLIS: u64 = 8_000;

/// Time between two Tasks on average, milliseconds.
const TASK_EVERY: u64 = 1_500;

/// How to run it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long the server is down.
    pub down: Duration,
    /// Agents.
    pub agents: usize,
    /// The seed of the load.
    pub seed: u64,
}

/// Maxima observed while the server was down.
#[derive(Debug, Clone, Copy, Default)]
pub struct Observations {
    /// Attempts that began meanwhile.
    pub attempts: usize,
    /// Tasks with a Run that is over and `Archived=False`.
    pub unarchived: usize,
    /// Bytes of output that agents hold.
    pub spooled: u64,
    /// The same of one agent.
    pub spooled_by_one: u64,
    /// Records and bytes of output that wait in the operator.
    pub queued: (u64, u64),
    /// Scrapes with `sentinel_history_up` at 0, and all scrapes.
    pub scrapes_down: (u64, u64),
    /// Maximum of `sentinel_history_lag_seconds`.
    pub lag: u64,
}

/// The result.
#[derive(Debug)]
pub struct Report {
    options: Options,
    seen: Observations,
    drained: Duration,
    /// Bytes of output that agents still held when everything was archived.
    left: u64,
    findings: Result<Findings, String>,
    crashes: Vec<String>,
}

impl Report {
    /// Whether Tasks continued, the outage was visible, and nothing was lost.
    pub fn is_clean(&self) -> bool {
        let visible = self.seen.unarchived > 0 && self.seen.scrapes_down.0 > 0;
        let whole = self.findings.as_ref().is_ok_and(|findings| findings.violations.is_empty());
        self.seen.attempts > 0 && visible && whole && self.crashes.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, seen, .. } = self;
        writeln!(f, "MongoDB down for {:?}, {} agents, seed {}", options.down, options.agents, options.seed)?;
        writeln!(f, "attempts begun meanwhile            {:>10}", seen.attempts)?;
        writeln!(f, "Tasks over with Archived=False      {:>10}", seen.unarchived)?;
        writeln!(
            f,
            "scrapes with sentinel_history_up 0  {:>10} of {}",
            seen.scrapes_down.0, seen.scrapes_down.1
        )?;
        writeln!(f, "longest sentinel_history_lag        {:>10} s", seen.lag)?;
        writeln!(f, "most held by agents                 {:>10} bytes", seen.spooled)?;
        writeln!(f, "most held by one of them            {:>10} bytes", seen.spooled_by_one)?;
        writeln!(
            f,
            "most held by the operator           {:>10} records, {} bytes",
            seen.queued.0, seen.queued.1
        )?;
        writeln!(f, "drained after it was back           {:>10.1} s", self.drained.as_secs_f64())?;
        writeln!(f, "held by agents then                 {:>10} bytes", self.left)?;
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

/// Runs it.
pub async fn run(options: Options) -> Report {
    let system = System::start("outage", options.agents).await;
    let namespace = &system.fleet.namespace;
    let nodes = system.fleet.nodes.iter().map(|node| node.name.clone()).collect();
    let (path, mut rng) = (system.recording(), Rng::new(options.seed));
    let load_rng = Rng::new(rng.next_u64());
    let load =
        LoadGenerator::new(namespace.client.clone(), &namespace.name, nodes, &path, MOST_MILLIS, load_rng);
    let load = Arc::new(Mutex::new(load));
    let loading = tokio::spawn(keep_loaded(Arc::clone(&load), TASK_EVERY, rng));
    until("commands run", Duration::from_mins(1), || async {
        let started = recording::read(&path).len();
        if started >= options.agents { Ok(()) } else { Err(started) }
    })
    .await;

    let seen = watch(&system, &load, options.down).await;
    println!("the server is back; {seen:?}");
    loading.abort();
    let load = load.lock().await;
    // Records of many minutes may take some minutes to archive.
    let patience = Duration::from_mins(3).max(options.down / 2);
    let injected = InjectedFaults::default();
    let (findings, drained) = system.verdict(&load, &injected, patience, MOST_MILLIS).await;
    let left = spooled(&system).iter().sum();
    let crashes = system.crashes();
    let report = Report { options, seen, drained, left, findings, crashes };
    system.end(report.is_clean()).await;
    report
}

/// Stops the server, and polls the system until it is back.
async fn watch(system: &System, load: &Mutex<LoadGenerator>, down: Duration) -> Observations {
    let begun = Instant::now();
    let before = recording::read(&system.recording()).len();
    let ferretdb = Arc::clone(&system.servers.ferretdb);
    let outage = tokio::spawn(async move { ferretdb.kill(down).await });
    let (mut seen, mut reported) = (Observations::default(), Instant::now());
    while !outage.is_finished() {
        seen.attempts = recording::read(&system.recording()).len() - before;
        let held = spooled(system);
        seen.spooled = seen.spooled.max(held.iter().sum());
        seen.spooled_by_one = seen.spooled_by_one.max(held.iter().copied().max().unwrap_or_default());
        seen.unarchived = seen.unarchived.max(unarchived(load).await);
        scrape_metrics(system, &mut seen).await;
        if reported.elapsed() > Duration::from_secs(30) {
            reported = Instant::now();
            println!("down for {:.0?}: {seen:?}", begun.elapsed());
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
    assert!(outage.await.expect("it does not panic"), "another fault holds the server");
    seen
}

/// Number of Tasks with a Run that is over and records that are not in History, by their conditions.
async fn unarchived(load: &Mutex<LoadGenerator>) -> usize {
    let tasks = load.lock().await.tasks().await;
    let waits = |task: &&sentinel_operator::resource::Task| {
        let Some(status) = &task.status else { return false };
        let over = status.run.as_ref().is_some_and(|run| run.finished_at.is_some());
        over && status.conditions.iter().any(|one| one.type_ == "Archived" && one.status == "False")
    };
    tasks.iter().filter(waits).count()
}

async fn scrape_metrics(system: &System, seen: &mut Observations) {
    let url = format!("{}/metrics", system.fleet.metrics);
    let Ok(answer) = system.fleet.http.get(url).send().await else { return };
    let text = answer.text().await.unwrap_or_default();
    let value = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.and_then(|number| number.parse::<f64>().ok()).map(|number| number as u64)
    };
    seen.scrapes_down.1 += 1;
    seen.scrapes_down.0 += u64::from(value("sentinel_history_up") == Some(0));
    seen.lag = seen.lag.max(value("sentinel_history_lag_seconds").unwrap_or_default());
    seen.queued.0 = seen.queued.0.max(value("sentinel_history_queued_records").unwrap_or_default());
    seen.queued.1 = seen.queued.1.max(value("sentinel_history_queued_bytes").unwrap_or_default());
}

/// Bytes of output on the disk of each node.
fn spooled(system: &System) -> Vec<u64> {
    let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
    let of_attempt = |attempt: &Path| -> u64 {
        entries(&attempt.join("log")).filter_map(|file| Some(file.metadata().ok()?.len())).sum()
    };
    let of_node =
        |state: &Path| entries(&state.join("attempts")).map(|entry| of_attempt(&entry.path())).sum();
    system.fleet.nodes.iter().map(|node| of_node(&node.state)).collect()
}
