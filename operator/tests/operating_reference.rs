//! `docs/operating.md` lists every flag of the operator, `docs/observability.md` every metric.
//!
//! After a change: `UPDATE_REFERENCE=1 cargo test -p sentinel-operator --test operating_reference`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "../../docs/generated.rs"]
mod generated;
#[allow(dead_code, reason = "each test program uses its own part of it")]
mod running;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::CommandFactory as _;
use running::{Running, labels};
use sentinel_operator::config::Cli;

/// Labels whose values are those of one build or one machine.
const VARYING: [(&str, &str); 2] = [("version", "the release"), ("host", "the API server")];

/// A metric as a scrape shows it.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    /// Each label with the values that it has.
    labels: BTreeMap<String, BTreeSet<String>>,
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
                if let Some((_, varying)) = VARYING.iter().find(|(known, _)| known == label) {
                    return format!("`{label}`: {varying}");
                }
                let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
                format!("`{label}`: {}", values.join(", "))
            })
            .collect();
        let help = family.help.trim_end_matches('.').replace('|', "\\|");
        let _ = writeln!(table, "| `{name}` | {} | {} | {help} |", family.kind, labels.join("; "));
    }
    table
}

/// All metrics, those of traces too.
fn scrape() -> String {
    Running::start(&["--trace-otlp-endpoint", "http://127.0.0.1:9"]).metrics("")
}

#[test]
fn the_page_lists_every_flag_of_the_operator() {
    generated::check("operating.md", "operator flags", &generated::flags(&Cli::command()));
}

#[test]
fn the_page_lists_every_metric_of_the_operator() {
    generated::check("observability.md", "operator metrics", &metrics_table(&scrape()));
}
