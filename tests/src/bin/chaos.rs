//! The kill harness on demand: `chaos [--kills N] [--agents N] [--seed N]`.
#![allow(missing_docs, clippy::print_stdout, reason = "a program for people")]

use std::process::ExitCode;

use anyhow::{Context, bail};
use sentinel_tests::chaos::harness::{Options, run};

const USAGE: &str = "usage: chaos [--kills N] [--agents N] [--seed N]";

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let (mut kills, mut agents, mut seed) = (500, 20, 1);
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let value = arguments.next().and_then(|text| text.parse::<u64>().ok());
        let value = value.with_context(|| format!("{flag} needs a number; {USAGE}"))?;
        match flag.as_str() {
            "--kills" => kills = value,
            "--agents" => agents = value as usize,
            "--seed" => seed = value,
            _ => bail!("{flag} is unknown; {USAGE}"),
        }
    }
    let report = run(Options::long(kills, agents, seed)).await;
    println!("{report}");
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
