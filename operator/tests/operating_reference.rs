//! `docs/operating.md` lists every flag and every metric of the operator.
//!
//! After a change: `UPDATE_REFERENCE=1 cargo test -p sentinel-operator --test operating_reference`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "../../docs/generated.rs"]
mod generated;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::CommandFactory as _;
use sentinel_operator::config::Cli;

/// A metric as a scrape shows it.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    /// Each label with the values that it has.
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// An operator process that ends with the test.
struct Operator(Child);

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Metrics of an operator over embedded stores, whose cluster does not answer: all metrics are registered at the start.
fn scrape() -> String {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    std::fs::write(
        &kubeconfig,
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n\
         clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}]\nusers: [{name: u, user: {}}]\n",
    )
    .unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(env!("CARGO_BIN_EXE_operator"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SENTINEL_")) {
        command.env_remove(name);
    }
    command.args(["--storage", "embedded", "--data-dir"]).arg(directory.path().join("data"));
    command.args(["--gateway-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]);
    command.arg("--metrics-listen").arg(format!("127.0.0.1:{port}")).arg("--kubeconfig").arg(&kubeconfig);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut operator = Operator(command.spawn().unwrap());
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        if let Some(text) = get_metrics(port) {
            return text;
        }
        assert!(operator.0.try_wait().unwrap().is_none(), "the operator has exited");
        assert!(Instant::now() < deadline, "no metrics within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn get_metrics(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

/// The labels of a sample such as `name{a="b",c="d"} 1`.
fn labels(sample: &str) -> Vec<(String, String)> {
    let Some((_, rest)) = sample.split_once('{') else { return Vec::new() };
    let inside = rest.rsplit_once('}').map_or("", |(inside, _)| inside);
    let pairs = inside.split("\",").filter_map(|pair| pair.split_once("=\""));
    pairs.map(|(label, value)| (label.to_owned(), value.trim_end_matches('"').to_owned())).collect()
}

/// The metrics of a scrape as a table. Counters have the name of their samples, which `OpenMetrics` ends with `_total`.
fn metrics_table(scrape: &str) -> String {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut help: BTreeMap<&str, &str> = BTreeMap::new();
    let mut current = ("", "");
    for line in scrape.lines() {
        if let Some((name, text)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help.insert(name, text);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            current = (name, kind);
        } else if !line.starts_with('#') && line.starts_with(current.0) && !current.0.is_empty() {
            let (name, kind) = current;
            let sample = line.split(['{', ' ']).next().unwrap_or_default();
            let shown = if kind == "counter" { sample } else { name };
            let family = families.entry(shown.to_owned()).or_default();
            kind.clone_into(&mut family.kind);
            help.get(name).copied().unwrap_or_default().clone_into(&mut family.help);
            for (label, value) in labels(line).into_iter().filter(|(label, _)| label != "le") {
                family.labels.entry(label).or_default().insert(value);
            }
        }
    }
    assert!(families.len() > 30, "metrics are missing: only {:?}", families.keys());
    let mut table = "| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n".to_owned();
    for (name, family) in families {
        let labels: Vec<String> = family
            .labels
            .iter()
            .map(|(label, values)| {
                let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
                format!("`{label}`: {}", values.join(", "))
            })
            .collect();
        let help = family.help.trim_end_matches('.').replace('|', "\\|");
        let _ = writeln!(table, "| `{name}` | {} | {} | {help} |", family.kind, labels.join("; "));
    }
    table
}

#[test]
fn the_page_lists_every_flag_of_the_operator() {
    generated::check("operator flags", &generated::flags(&Cli::command()));
}

#[test]
fn the_page_lists_every_metric_of_the_operator() {
    generated::check("operator metrics", &metrics_table(&scrape()));
}
