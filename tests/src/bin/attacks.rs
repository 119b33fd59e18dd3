//! The attacks, on demand; see `--help`.
#![allow(missing_docs, clippy::print_stdout, reason = "a program for people")]

use std::process::ExitCode;

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sentinel_tests::attacks::{self, Size};

const USAGE: &str = "\
usage: attacks [--short] [NAME or GROUP …]   carries them out, all unless named; exit code 1 when a bound did not hold
       attacks --list                        what there is";

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    }
    if wanted.iter().any(|argument| argument == "--list") {
        for attack in attacks::ALL {
            println!("{:<8} {:<14} {}", attack.group, attack.name, attack.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let all = wanted.len();
    wanted.retain(|argument| argument != "--short");
    let size = if wanted.len() < all { Size::Short } else { Size::Full };
    // Every connection of an attack is a descriptor of ours, and the victims inherit the limit.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let report = attacks::run(&wanted, size).await?;
    print!("{report}");
    Ok(if report.is_held() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
