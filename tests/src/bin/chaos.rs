//! The fault injector, on demand, with its two companions `outage` and `failover`; see `--help`.
#![allow(missing_docs, clippy::print_stdout, reason = "a program for people")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sentinel_tests::chaos::{failover, harness, outage};

const USAGE: &str = "\
usage: chaos [--kills N] [--agents N] [--seed N]                          kills processes at random under load
       chaos outage [--outage-minutes N] [--agents N] [--seed N]          MongoDB is down under load
       chaos failover [--operators N] [--agents N] [--rounds N] [--seed N]  how soon another operator leads";

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_mode = arguments.first().is_some_and(|first| !first.starts_with('-'));
    let mode = if is_mode { arguments.remove(0) } else { String::new() };
    // A thousand agents are a thousand connections, here and in the operators.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let (report, is_good) = match mode.as_str() {
        "" => run_kills(&NumberFlags::of(&arguments, &["kills", "agents", "seed"])?).await,
        "outage" => run_outage(&NumberFlags::of(&arguments, &["outage-minutes", "agents", "seed"])?).await,
        "failover" => {
            run_failover(&NumberFlags::of(&arguments, &["operators", "agents", "rounds", "seed"])?).await
        }
        _ => bail!("{mode} is unknown\n{USAGE}"),
    };
    println!("{report}");
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run_kills(numbers: &NumberFlags) -> (String, bool) {
    let (kills, agents) = (numbers.get("kills", 500), numbers.get("agents", 20) as usize);
    let report = harness::run(harness::Options::long(kills, agents, numbers.get("seed", 1))).await;
    (report.to_string(), report.is_clean())
}

async fn run_outage(numbers: &NumberFlags) -> (String, bool) {
    let report = outage::run(outage::Options {
        down: Duration::from_mins(numbers.get("outage-minutes", 3)),
        agents: numbers.get("agents", 20) as usize,
        seed: numbers.get("seed", 1),
    });
    let report = report.await;
    (report.to_string(), report.is_clean())
}

async fn run_failover(numbers: &NumberFlags) -> (String, bool) {
    let report = failover::run(failover::Options {
        operators: numbers.get("operators", 3) as usize,
        agents: numbers.get("agents", 1_000) as usize,
        rounds: numbers.get("rounds", 20) as usize,
        seed: numbers.get("seed", 1),
    });
    let report = report.await;
    (report.to_string(), report.is_in_time())
}

/// Flags with a number each.
struct NumberFlags(BTreeMap<String, u64>);

impl NumberFlags {
    fn of(arguments: &[String], known: &[&str]) -> Result<Self> {
        let mut numbers = BTreeMap::new();
        for pair in arguments.chunks(2) {
            let flag = pair[0].trim_start_matches("--");
            if !known.contains(&flag) {
                bail!("{} is unknown\n{USAGE}", pair[0]);
            }
            let value = pair.get(1).and_then(|text| text.parse().ok());
            numbers.insert(flag.to_owned(), value.with_context(|| format!("{} needs a number", pair[0]))?);
        }
        Ok(Self(numbers))
    }

    fn get(&self, flag: &str, otherwise: u64) -> u64 {
        self.0.get(flag).copied().unwrap_or(otherwise)
    }
}
