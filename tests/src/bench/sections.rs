//! Which sections there are, and their order.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use super::arguments::Arguments;
use super::baseline::Baseline;
use super::progress::{load, note};
use super::quiet;
use super::table::Table;
use super::worker::DESCRIPTORS;
use super::{
    apply, archive, crowd, dispatch, fanout, first_byte, heartbeats, latency, limits, memory, operator,
    output, peers, readers, restart, scale, simulated_agents, soak, status, streams, worker,
};

/// A part of a run.
#[derive(Debug)]
struct Section {
    name: &'static str,
    about: &'static str,
    /// It is cut off after so many seconds.
    within: u64,
    begins: Begins,
    /// Descriptors of one process.
    descriptors: u64,
}

/// When a section is part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    /// When no section is named, or this one.
    Always,
    /// The same, if there are real parts.
    WithParts,
    /// When it is named.
    ByName,
}

const SECTIONS: [Section; 16] = [
    section("dispatch", "a command on one node, from the request to the process's own clock"),
    Section {
        begins: Begins::WithParts,
        ..section("apply", "the same through the real API server (needs SENTINEL_PARTS)")
    },
    section("fanout", "one Task on 100 and on 1,000 simulated agents"),
    section("output", "1 GB of output, from the command to an HTTP reader"),
    section("streams", "1 GB of 50 commands at once, each to an HTTP reader"),
    section("latency", "from a command's write to an HTTP reader"),
    section("archive", "a log of 2 GiB that is archived: screens of it, and searches"),
    section("readers", "a command beside 200 readers that never read, and beside 500 that do"),
    section("first-byte", "from the request to the first byte of output at an HTTP reader"),
    section("memory", "operator and agent, idle and at work"),
    large("restart", "the operator killed and started: until 1,000 and 15,000 agents are back"),
    large("scale", "the operator with 15,000 simulated agents, idle and with a Task for all of them"),
    Section {
        begins: Begins::WithParts,
        ..large("heartbeats", "those of 15,000 nodes, into a Redis that also stops (needs SENTINEL_PARTS)")
    },
    Section {
        begins: Begins::WithParts,
        within: 300,
        ..large(
            "status",
            "what Runs over 10, 1,000 and 15,000 nodes write into the API server (needs SENTINEL_PARTS)",
        )
    },
    section("soak", "Tasks one after the other: what grows; --minutes 60 for a long one"),
    Section {
        begins: Begins::ByName,
        within: 600,
        ..section("peers", "ours beside socket.io and NATS, which are installed; only when it is named")
    },
];

/// With 15,000 agents.
const fn large(name: &'static str, about: &'static str) -> Section {
    Section { within: 120, descriptors: DESCRIPTORS, ..section(name, about) }
}

const fn section(name: &'static str, about: &'static str) -> Section {
    Section { name, about, within: 60, begins: Begins::Always, descriptors: 0 }
}

const HELP: &str = "\
Prints figures of this build, each beside its limit on the same machine.

Usage: bench [--patient] [--minutes N] [--record[=FILE]] [--check[=FILE]] [SECTION]…
";

const HELP_END: &str = "
--patient waits before each section, for some minutes, until others leave the machine alone.
--minutes is how long soak takes; some seconds without.
--record writes the ratios of this run into a file, by default docs/benchmarks.json; those of other sections stay.
--check names the ratios that are worse than those of the file by more than a tenth, and exits with 1 if there are any.
Without a section, all of them; those that need real parts (tests/parts/with-parts) are left out without SENTINEL_PARTS.
Another machine's figures are of no use: only the ratios travel.";

fn help() -> String {
    let width = SECTIONS.iter().map(|section| section.name.len()).max().unwrap_or(0);
    let lines = SECTIONS.iter().map(|Section { name, about, .. }| format!("  {name:<width$}  {about}\n"));
    format!("{HELP}\n{}{HELP_END}", lines.collect::<String>())
}

/// The benchmark's `main`.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(worker::ARGUMENT) => return run_worker(&arguments[1..]),
        Some("--help" | "-h") => {
            println!("{}", help());
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let arguments = match Arguments::parse(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("bench: {error}; see bench --help");
            return ExitCode::from(2);
        }
    };
    let wanted = &arguments.sections;
    if let Some(unknown) = wanted.iter().find(|name| SECTIONS.iter().all(|section| section.name != *name)) {
        let names: Vec<_> = SECTIONS.iter().map(|section| section.name).collect();
        eprintln!("bench: no section {unknown:?}; there are {}", names.join(", "));
        return ExitCode::from(2);
    }
    // What cannot be compared is known before the figures are.
    let earlier = match arguments.check.as_deref().map(Baseline::read).transpose() {
        Ok(earlier) => earlier,
        Err(error) => {
            eprintln!("bench: {error}");
            return ExitCode::from(2);
        }
    };
    build_agent();
    let begun = Instant::now();
    let (mut table, mut disturbed) = (Table::default(), Vec::new());
    worker::runtime().block_on(perform(&mut table, &arguments, &mut disturbed));
    print!("{table}");
    let took = begun.elapsed().as_secs();
    println!("{took} s; others used of the machine, before: {}; load {}", disturbed.join(", "), load());
    if let Err(error) = record(arguments.record.as_deref(), &table) {
        eprintln!("bench: {error}");
        return ExitCode::from(2);
    }
    earlier.map_or(ExitCode::SUCCESS, |earlier| check(&earlier, &table))
}

/// Writes the figures of the run into the file, beside those of other sections.
fn record(file: Option<&Path>, table: &Table) -> Result<(), String> {
    let Some(file) = file else { return Ok(()) };
    let mut baseline = if file.exists() { Baseline::read(file)? } else { Baseline::default() };
    baseline.record(table.portable());
    baseline.write(file)
}

/// Names what is worse than in an earlier run.
fn check(earlier: &Baseline, table: &Table) -> ExitCode {
    let worse = earlier.worse(table.portable());
    let compared = earlier.known(table.portable()).len();
    println!(
        "{compared} of {} ratios compared, {} worse by more than a tenth",
        table.portable().len(),
        worse.len()
    );
    for worse in &worse {
        println!("  {worse}");
    }
    if worse.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The sections one after the other; what others used of the machine before each is kept in `others`.
async fn perform(table: &mut Table, arguments: &Arguments, disturbed: &mut Vec<String>) {
    let Arguments { sections: wanted, patience, minutes, .. } = arguments;
    for Section { name, within, begins, descriptors, .. } in SECTIONS {
        let named = wanted.iter().any(|wanted| wanted == name);
        if !named && (!wanted.is_empty() || begins == Begins::ByName) {
            continue;
        }
        if begins == Begins::WithParts && std::env::var_os("SENTINEL_PARTS").is_none() {
            note(&format!("{name}: left out, SENTINEL_PARTS is not set"));
            continue;
        }
        let open = worker::raise_descriptors();
        if open < descriptors {
            note(&format!("{name}: left out, a process may open {open} descriptors and not {descriptors}"));
            continue;
        }
        let others = quiet::others(*patience).await;
        disturbed.push(format!("{name} {:.0} %", others * 100.0));
        let within = within + minutes.filter(|_| name == "soak").unwrap_or(0) * 60;
        if tokio::time::timeout(Duration::from_secs(within), measure(name, *minutes, table)).await.is_err() {
            note(&format!("{name}: cut off after {within} s"));
        }
    }
}

async fn measure(section: &str, minutes: Option<u64>, table: &mut Table) {
    match section {
        "dispatch" => dispatch::measure(table).await,
        "apply" => apply::measure(table).await,
        "fanout" => fanout::measure(table).await,
        "output" => output::measure(table).await,
        "streams" => streams::measure(table).await,
        "latency" => latency::measure(table).await,
        "archive" => archive::measure(table).await,
        "readers" => readers::measure(table).await,
        "first-byte" => first_byte::measure(table).await,
        "memory" => memory::measure(table).await,
        "restart" => restart::measure(table).await,
        "scale" => scale::measure(table).await,
        "heartbeats" => heartbeats::measure(table).await,
        "status" => status::measure(table).await,
        "soak" => soak::measure(table, minutes).await,
        "peers" => peers::measure(table).await,
        other => panic!("no section {other:?}"),
    }
}

/// Becomes one of the worker processes.
fn run_worker(arguments: &[String]) -> ExitCode {
    worker::die_with_parent();
    let rest = &arguments[1..];
    match arguments[0].as_str() {
        operator::OPERATOR => operator::run(),
        simulated_agents::SIMULATED_AGENTS => simulated_agents::run(),
        crowd::CROWD => crowd::run(),
        limits::SPAWNER => limits::spawner(rest),
        limits::ECHOES => limits::echoes(rest),
        limits::SOURCE => limits::source(rest),
        limits::MIDDLE => limits::middle(rest),
        worker::OTHER => worker::other(rest),
        other => panic!("no role {other:?}"),
    }
    ExitCode::SUCCESS
}

/// The agent as it is shipped, and the operator for the section with real parts. Cargo alone knows whether they are
/// current.
fn build_agent() {
    let Some(cargo) = std::env::var_os("CARGO") else {
        note("not started by cargo: the operator and the agent are taken as they were last built");
        return;
    };
    note("building the operator and the agent, if they are not current");
    for arguments in [
        ["build", "--locked", "--profile", "agent", "-p", "sentinel-node-agent", "--bin", "node-agent"],
        ["build", "--locked", "--profile", "release", "-p", "sentinel-operator", "--bin", "operator"],
    ] {
        let built = Command::new(&cargo).args(arguments).current_dir(crate::cluster::repository()).status();
        assert!(built.expect("cargo starts").success(), "cargo {}", arguments.join(" "));
    }
}
