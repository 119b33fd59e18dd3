//! A log of 2 GiB in the archive: its first screen, a screen from its middle, and a search through all of it.
//!
//! Line N of it has the number [`BEFORE_FIRST`] + N in ten bytes, so that each answer can be checked. It is written by a
//! command; the operator that reads it is started afterwards, without the agent, and has nothing but the archive.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use regex::bytes::RegexBuilder;
use serde_json::{Value, json};

use super::figures::Times;
use super::progress::note;
use super::setup::{CreatedTask, Setup, task};
use super::table::Table;
use crate::memory::peak_rss;

const BEFORE_FIRST: u64 = 100_000_000;
const LINE: u64 = 10;
const LINES: u64 = (2 << 30) / LINE;
const BYTES: u64 = LINES * LINE;

/// Bytes that are searched in memory, for the limit.
const IN_MEMORY: u64 = 256 << 20;

/// Reads of a screen after the first.
const SCREENS: usize = 100;
const SCREEN: u64 = 200;

const MIB: f64 = (1 << 20) as f64;

pub(super) async fn measure(table: &mut Table) {
    note("archive: a command writes 2 GiB");
    let nodes = ["n".to_owned()];
    let setup = Setup::new(&nodes).await;
    let task = write(&setup).await;
    let setup = setup.restart().await;
    let log = Log { path: format!("/api/v1/executions/{}/1/n", task.uid), setup };
    let file = log.setup.directory.path().join("lines");
    numbers(&file);
    note("archive: screens");
    log.screens(table, &file).await;
    note("archive: searches");
    for (what, pattern, hits) in [
        ("a literal", (BEFORE_FIRST + LINES).to_string(), 1),
        ("an expression without one", "7[0-4]7[0-4]7[0-4]77$".to_owned(), 250),
        ("(?i)error|fatal", "(?i)error|fatal".to_owned(), 0),
    ] {
        let ours = log.search(&pattern, hits).await;
        let what = format!("search in 2 GiB, {what} (limit: in memory)");
        table.number(&what, ours, Some(in_memory(&file, &pattern)), "GB/s", "1 GB/s");
    }
    if let Some(rate) = grep(&file) {
        table.number("  grep -c of the literal in a file", rate, None, "GB/s", "");
    }
    let peak = peak_rss(log.setup.operator.pid()) as f64 / MIB;
    table.number("  largest RSS of the operator in all of this", peak, None, "MiB", "64 MiB");
    log.setup.operator.end().await;
}

/// The command, until all of its output is in the archive and nowhere else.
async fn write(setup: &Setup) -> CreatedTask {
    let agent = setup.agent("n").await;
    let command = format!("seq {} {}", BEFORE_FIRST + 1, BEFORE_FIRST + LINES);
    let mut task = task("two-gigabytes", &json!({"nodeNames": ["n"]}), &command);
    task["spec"]["run"]["output"] = json!({"limit": "3Gi", "maxBlock": "60s"});
    let task = setup.api.create(&task).await;
    setup.api.finished(&task).await;
    setup.forgotten().await;
    agent.kill().await;
    task
}

/// The same bytes in a file.
fn numbers(file: &Path) {
    let to = File::create(file).expect("a file");
    let (first, last) = (BEFORE_FIRST + 1, BEFORE_FIRST + LINES);
    let written = Command::new("seq").args([first.to_string(), last.to_string()]).stdout(to).status();
    assert!(written.expect("seq starts").success(), "seq failed");
    assert_eq!(std::fs::metadata(file).expect("the file").len(), BYTES, "seq wrote something else");
}

struct Log {
    path: String,
    setup: Setup,
}

impl Log {
    async fn screens(&self, table: &mut Table, file: &Path) {
        let middle = LINES / 2;
        for (what, query, first) in [
            ("last", format!("tail={SCREEN}"), LINES - SCREEN + 1),
            ("middle", format!("line={middle}&count={SCREEN}"), middle),
        ] {
            let cold = self.screen(&query, first).await;
            let what = format!("the {what} {SCREEN} lines of 2 GiB");
            table.number(&format!("{what}, of a new operator"), millis(cold), None, "ms", "500 ms");
            let mut times = Vec::new();
            for _ in 0..SCREENS {
                times.push(self.screen(&query, first).await);
            }
            let floor = (0..SCREENS).map(|_| read(file, (first - 1) * LINE)).collect();
            let again = "  again (limit: the same bytes of a file)";
            table.times(again, Times::of(times), Times::of(floor), "");
        }
    }

    /// One screen, which is checked.
    async fn screen(&self, query: &str, first: u64) -> Duration {
        let begun = Instant::now();
        let window = self.setup.api.get(&format!("{}/lines?{query}", self.path)).await.expect("a window");
        let time = begun.elapsed();
        let lines = window["lines"].as_array().unwrap_or_else(|| panic!("{window}"));
        assert_eq!((lines.len() as u64, &window["end"]), (SCREEN, &json!(BYTES)), "{query}");
        for (line, number) in lines.iter().zip(first..) {
            assert_eq!(
                (&line["line"], &line["text"]),
                (&json!(number), &json!((BEFORE_FIRST + number).to_string()))
            );
        }
        time
    }

    /// GB/s of a search with so many hits.
    async fn search(&self, pattern: &str, hits: usize) -> f64 {
        let url = format!("{}{}/search", self.setup.api.url, self.path);
        let begun = Instant::now();
        let asked = self.setup.api.http.get(url).query(&[("pattern", pattern), ("limit", "10000")]).send();
        let text = asked.await.expect("an answer").text().await.expect("hits");
        let time = begun.elapsed();
        let found: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let end = found.last().expect("an end");
        let of = |kind: &str| found.iter().filter(|line| line["kind"] == kind).count();
        assert_eq!((&end["complete"], of("hit")), (&json!(true), hits), "{pattern}: {end}");
        BYTES as f64 / 1e9 / time.as_secs_f64()
    }
}

/// The crate that searches, over the same bytes in memory.
fn in_memory(file: &Path, pattern: &str) -> f64 {
    let mut bytes = Vec::new();
    File::open(file).expect("the file").take(IN_MEMORY).read_to_end(&mut bytes).expect("bytes");
    let pattern = RegexBuilder::new(pattern).multi_line(true).build().expect("an expression");
    let begun = Instant::now();
    let hits = pattern.find_iter(&bytes).count();
    let time = begun.elapsed();
    std::hint::black_box(hits);
    IN_MEMORY as f64 / 1e9 / time.as_secs_f64()
}

/// `None` where there is no grep.
fn grep(file: &Path) -> Option<f64> {
    let literal = (BEFORE_FIRST + LINES).to_string();
    let begun = Instant::now();
    let found =
        Command::new("grep").args(["-c", "-F", &literal]).arg(file).env("LC_ALL", "C").output().ok()?;
    let time = begun.elapsed();
    assert_eq!(found.stdout, b"1\n", "grep found something else");
    Some(BYTES as f64 / 1e9 / time.as_secs_f64())
}

fn read(file: &Path, position: u64) -> Duration {
    let begun = Instant::now();
    let mut file = File::open(file).expect("the file");
    file.seek(SeekFrom::Start(position)).expect("a position");
    file.read_exact(&mut vec![0; (SCREEN * LINE) as usize]).expect("bytes");
    begun.elapsed()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
