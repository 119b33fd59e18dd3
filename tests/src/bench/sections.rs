//! Which sections there are, and their order.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use super::progress::{load, note};
use super::quiet::{self, Patience};
use super::table::Table;
use super::{
    apply, archive, crowd, dispatch, fanout, latency, limits, memory, output, readers, setup,
    simulated_agents, streams, worker,
};

/// No section takes longer.
const WITHIN: Duration = Duration::from_secs(60);

const SECTIONS: [&str; 9] =
    ["dispatch", "apply", "fanout", "output", "streams", "latency", "archive", "readers", "memory"];

const HELP: &str = "\
Prints figures of this build, each beside its limit on the same machine.

Usage: bench [--patient] [SECTION]…

  dispatch   a command on one node, from the request to the process's own clock
  apply      the same through the real API server (needs SENTINEL_PARTS, see tests/parts/with-parts)
  fanout     one Task on 100 and on 1,000 simulated agents
  output     1 GB of output, from the command to an HTTP reader
  streams    1 GB of 50 commands at once, each to an HTTP reader
  latency    from a command's write to an HTTP reader
  archive    a log of 2 GiB that is archived: screens of it, and searches
  readers    a command beside 200 readers that never read, and beside 500 that do
  memory     operator and agent, idle and at work

--patient waits before each section, for some minutes, until others leave the machine alone.
Without a section, all of them; apply is left out without SENTINEL_PARTS.
Another machine's figures are of no use: only the ratios travel.";

/// The benchmark's `main`.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(worker::ARGUMENT) => return run_worker(&arguments[1..]),
        Some("--help" | "-h") => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let (flags, wanted): (Vec<String>, Vec<String>) =
        arguments.into_iter().partition(|argument| argument.starts_with("--"));
    if let Some(unknown) = flags.iter().find(|flag| *flag != "--patient") {
        eprintln!("bench: no flag {unknown:?}; see bench --help");
        return ExitCode::from(2);
    }
    if let Some(unknown) = wanted.iter().find(|name| !SECTIONS.contains(&name.as_str())) {
        eprintln!("bench: no section {unknown:?}; there are {}", SECTIONS.join(", "));
        return ExitCode::from(2);
    }
    let patience = if flags.is_empty() { Patience::None } else { Patience::Some };
    build_agent();
    let begun = Instant::now();
    let (mut table, mut disturbed) = (Table::default(), Vec::new());
    worker::runtime().block_on(perform(&mut table, &wanted, patience, &mut disturbed));
    print!("{table}");
    let took = begun.elapsed().as_secs();
    println!("{took} s; others used of the machine, before: {}; load {}", disturbed.join(", "), load());
    ExitCode::SUCCESS
}

/// The sections one after the other; what others used of the machine before each is kept in `others`.
async fn perform(table: &mut Table, wanted: &[String], patience: Patience, disturbed: &mut Vec<String>) {
    for section in SECTIONS {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == section) {
            continue;
        }
        if section == "apply" && std::env::var_os("SENTINEL_PARTS").is_none() {
            note("apply: left out, SENTINEL_PARTS is not set");
            continue;
        }
        let others = quiet::others(patience).await;
        disturbed.push(format!("{section} {:.0} %", others * 100.0));
        let measure = async {
            match section {
                "dispatch" => dispatch::measure(table).await,
                "apply" => apply::measure(table).await,
                "fanout" => fanout::measure(table).await,
                "output" => output::measure(table).await,
                "streams" => streams::measure(table).await,
                "latency" => latency::measure(table).await,
                "archive" => archive::measure(table).await,
                "readers" => readers::measure(table).await,
                _ => memory::measure(table).await,
            }
        };
        if tokio::time::timeout(WITHIN, measure).await.is_err() {
            note(&format!("{section}: cut off after {} s", WITHIN.as_secs()));
        }
    }
}

/// Becomes one of the worker processes.
fn run_worker(arguments: &[String]) -> ExitCode {
    worker::die_with_parent();
    let rest = &arguments[1..];
    match arguments[0].as_str() {
        setup::OPERATOR => setup::operator(rest),
        simulated_agents::SIMULATED_AGENTS => simulated_agents::run(rest),
        crowd::CROWD => crowd::run(),
        limits::SPAWNER => limits::spawner(rest),
        limits::ECHOES => limits::echoes(rest),
        limits::SOURCE => limits::source(rest),
        limits::MIDDLE => limits::middle(rest),
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
