//! MongoDB away for long, under load: Tasks go on, what is to be archived waits on the agents, and all of it is there
//! when the server is back.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::book;
use super::check::{Case, Findings, judge, settle};
use super::dice::Dice;
use super::faults::Damage;
use super::harness::{System, keep_loaded};
use super::load::Load;
use crate::wait::until;

/// Between two looks at the system.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest that a command takes by itself, milliseconds.
const MOST_MILLIS: u64 = 8_000;

/// Time between two Tasks on average, milliseconds.
const TASK_EVERY: u64 = 1_500;

/// How to run it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long the server is away.
    pub away: Duration,
    /// Agents.
    pub agents: usize,
    /// The seed of the load.
    pub seed: u64,
}

/// What was seen while the server was away: the most of each.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Attempts that began meanwhile.
    pub attempts: usize,
    /// Tasks whose Run is over and that say `Archived=False`.
    pub unarchived: usize,
    /// Bytes of output that agents hold.
    pub spooled: u64,
    /// The same of one agent.
    pub spooled_by_one: u64,
    /// Records and bytes of output that wait in the operator.
    pub queued: (u64, u64),
    /// Looks at which the metric `sentinel_history_up` said 0, and all looks.
    pub down: (u64, u64),
    /// Seconds for which the oldest has waited, as the metric says.
    pub lag: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    options: Options,
    seen: Seen,
    drained: Duration,
    /// Bytes of output that agents still held when everything was archived.
    left: u64,
    findings: Result<Findings, String>,
    crashes: Vec<String>,
}

impl Report {
    /// Whether Tasks went on, the outage was told, and nothing was lost.
    pub fn is_clean(&self) -> bool {
        let told = self.seen.unarchived > 0 && self.seen.down.0 > 0;
        let whole = self.findings.as_ref().is_ok_and(|findings| findings.violations.is_empty());
        self.seen.attempts > 0 && told && whole && self.crashes.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, seen, .. } = self;
        writeln!(f, "MongoDB away for {:?}, {} agents, seed {}", options.away, options.agents, options.seed)?;
        writeln!(f, "attempts begun meanwhile            {:>10}", seen.attempts)?;
        writeln!(f, "Tasks over with Archived=False      {:>10}", seen.unarchived)?;
        writeln!(f, "looks with sentinel_history_up 0    {:>10} of {}", seen.down.0, seen.down.1)?;
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
    let piece = &system.fleet.piece;
    let nodes = system.fleet.nodes.iter().map(|node| node.name.clone()).collect();
    let (path, mut dice) = (system.book(), Dice::new(options.seed));
    let load_dice = Dice::new(dice.roll());
    let load = Load::new(piece.client.clone(), &piece.namespace, nodes, &path, MOST_MILLIS, load_dice);
    let load = Arc::new(Mutex::new(load));
    let loading = tokio::spawn(keep_loaded(Arc::clone(&load), TASK_EVERY, dice));
    until("commands run", Duration::from_mins(1), || async {
        let started = book::read(&path).len();
        if started >= options.agents { Ok(()) } else { Err(started) }
    })
    .await;

    let seen = watch(&system, &load, options.away).await;
    let back = Instant::now();
    println!("the server is back; {seen:?}");
    loading.abort();
    let load = load.lock().await;
    // What came in many minutes may take some to go.
    let patience = Duration::from_mins(3).max(options.away / 2);
    let settled = settle(&system.fleet, &load.wishes, patience).await;
    let drained = back.elapsed();
    let left = spooled(&system).iter().sum();
    let (damage, book) = (Damage::default(), book::read(&path));
    let case = Case { wishes: &load.wishes, damage: &damage, book: &book, most_millis: MOST_MILLIS };
    let findings = match settled {
        Ok((tasks, open)) => judge(&system.fleet, &tasks, &case).await.map(|mut findings| {
            findings.violations.extend(open);
            findings
        }),
        Err(why) => Err(why),
    };
    let crashes = system.crashes();
    let report = Report { options, seen, drained, left, findings, crashes };
    system.end(report.is_clean()).await;
    report
}

/// Takes the server away, and looks at the system until it is back.
async fn watch(system: &System, load: &Mutex<Load>, away: Duration) -> Seen {
    let begun = Instant::now();
    let before = book::read(&system.book()).len();
    let ferretdb = Arc::clone(&system.servers.ferretdb);
    let outage = tokio::spawn(async move { ferretdb.kill(away).await });
    let (mut seen, mut said) = (Seen::default(), Instant::now());
    while !outage.is_finished() {
        seen.attempts = book::read(&system.book()).len() - before;
        let held = spooled(system);
        seen.spooled = seen.spooled.max(held.iter().sum());
        seen.spooled_by_one = seen.spooled_by_one.max(held.iter().copied().max().unwrap_or_default());
        seen.unarchived = seen.unarchived.max(unarchived(load).await);
        look_at_metrics(system, &mut seen).await;
        if said.elapsed() > Duration::from_secs(30) {
            said = Instant::now();
            println!("away for {:.0?}: {seen:?}", begun.elapsed());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    assert!(outage.await.expect("it does not panic"), "nobody else has hold of the server");
    seen
}

/// Tasks whose Run is over and whose records are not in History, as their conditions say it.
async fn unarchived(load: &Mutex<Load>) -> usize {
    let tasks = load.lock().await.tasks().await;
    let waits = |task: &&sentinel_operator::resource::Task| {
        let Some(status) = &task.status else { return false };
        let over = status.run.as_ref().is_some_and(|run| run.finished_at.is_some());
        over && status.conditions.iter().any(|one| one.type_ == "Archived" && one.status == "False")
    };
    tasks.iter().filter(waits).count()
}

async fn look_at_metrics(system: &System, seen: &mut Seen) {
    let url = format!("{}/metrics", system.fleet.metrics);
    let Ok(answer) = system.fleet.http.get(url).send().await else { return };
    let text = answer.text().await.unwrap_or_default();
    let value = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.and_then(|number| number.parse::<f64>().ok()).map(|number| number as u64)
    };
    seen.down.1 += 1;
    seen.down.0 += u64::from(value("sentinel_history_up") == Some(0));
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
