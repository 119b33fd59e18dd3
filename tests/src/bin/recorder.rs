//! The command that the Tasks of the fault injector run: `recorder FILE MOST_MILLIS [HOLD]`. It appends its start and
//! its exit to FILE, outside of the system under test, one synced line each; between them it writes output that the
//! check can compute. With HOLD it waits until a file of that name exists before it writes output.
#![allow(missing_docs, reason = "a program")]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use sentinel_tests::chaos::behavior::Behavior;

fn main() -> io::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let usage = || io::Error::other("usage: recorder FILE MOST_MILLIS [HOLD]");
    let path = arguments.next().ok_or_else(usage)?;
    let most = arguments.next().and_then(|text| text.parse().ok()).ok_or_else(usage)?;
    let hold = arguments.next();
    let mut recording = OpenOptions::new().create(true).append(true).open(path)?;
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let attempt = variable("SENTINEL_ATTEMPT");
    let behavior = Behavior::of(&attempt, most);
    if behavior.ignores_term {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.thread_block()?;
    }
    let (task, run, node) = (variable("SENTINEL_TASK"), variable("SENTINEL_RUN"), variable("SENTINEL_NODE"));
    append(&mut recording, &format!("start {attempt} {} {task} {run} {node}\n", std::process::id()))?;

    while hold.as_ref().is_some_and(|path| !Path::new(path).exists()) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let pause = Duration::from_millis(behavior.millis) / behavior.lines.max(1) as u32;
    for number in 0..behavior.lines {
        let (line, to_stderr) = behavior.line(number);
        if to_stderr {
            io::stderr().write_all(line.as_bytes())?;
        } else {
            io::stdout().write_all(line.as_bytes())?;
        }
        std::thread::sleep(pause);
    }
    io::stdout().flush()?;
    append(&mut recording, &format!("exit {attempt} {} {}\n", std::process::id(), behavior.exit_code))?;
    Ok(ExitCode::from(behavior.exit_code))
}

/// One write, so that lines of concurrent recorders do not interleave.
fn append(recording: &mut File, line: &str) -> io::Result<()> {
    recording.write_all(line.as_bytes())?;
    recording.sync_data()
}
