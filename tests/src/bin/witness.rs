//! The command of the kill harness's Tasks. It writes its start and its exit into a file outside the system, one
//! synced line each, and between them output that is known beforehand: `witness BOOK MOST_MILLIS [HOLD]`. With HOLD
//! it writes nothing before there is a file of that name.
#![allow(missing_docs, reason = "a program")]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use sentinel_tests::chaos::plot::Plot;

fn main() -> io::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let usage = || io::Error::other("usage: witness BOOK MOST_MILLIS [HOLD]");
    let book = arguments.next().ok_or_else(usage)?;
    let most = arguments.next().and_then(|text| text.parse().ok()).ok_or_else(usage)?;
    let hold = arguments.next();
    let mut book = OpenOptions::new().create(true).append(true).open(book)?;
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let attempt = variable("SENTINEL_ATTEMPT");
    let plot = Plot::of(&attempt, most);
    if plot.ignores_term {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.thread_block()?;
    }
    let (task, run, node) = (variable("SENTINEL_TASK"), variable("SENTINEL_RUN"), variable("SENTINEL_NODE"));
    note(&mut book, &format!("start {attempt} {} {task} {run} {node}\n", std::process::id()))?;

    while hold.as_ref().is_some_and(|path| !Path::new(path).exists()) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let pause = Duration::from_millis(plot.millis) / plot.lines.max(1) as u32;
    for number in 0..plot.lines {
        let (line, to_stderr) = plot.line(number);
        if to_stderr {
            io::stderr().write_all(line.as_bytes())?;
        } else {
            io::stdout().write_all(line.as_bytes())?;
        }
        std::thread::sleep(pause);
    }
    io::stdout().flush()?;
    note(&mut book, &format!("exit {attempt} {} {}\n", std::process::id(), plot.exit_code))?;
    Ok(ExitCode::from(plot.exit_code))
}

/// One write, so that lines of many witnesses do not mix.
fn note(book: &mut File, line: &str) -> io::Result<()> {
    book.write_all(line.as_bytes())?;
    book.sync_data()
}
