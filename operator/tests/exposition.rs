//! What a live operator exposes: valid in both formats, bounded whatever clients do, and all that alerts, dashboards and
//! runbooks name.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test")]

#[allow(dead_code, reason = "each test program uses its own part of it")]
mod running;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use running::{Running, exchange, get, repository};
use serde_json::Value;

/// The names of all series, with their labels.
fn series(scrape: &str) -> BTreeSet<String> {
    let samples = scrape.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

/// The names of all samples, without labels.
fn names(scrape: &str) -> BTreeSet<String> {
    series(scrape).into_iter().map(|series| series.split('{').next().unwrap().to_owned()).collect()
}

/// Whether a program is installed; without it the test prints that. CI has it (`tests/parts/install prometheus`).
fn is_installed(program: &str) -> bool {
    let found =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(found || std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "{program} is missing");
    if !found {
        let _ = writeln!(std::io::stderr(), "NOT RUN: {program} is missing");
    }
    found
}

#[test]
fn promtool_has_no_objection_to_the_metrics() {
    if !is_installed("promtool") {
        return;
    }
    let scrape = Running::start(&[]).metrics("text/plain");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(scrape.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && printed.is_empty(), "{}", String::from_utf8_lossy(&printed));
}

#[test]
fn open_metrics_are_served_to_who_asks_for_them() {
    let operator = Running::start(&[]);
    let prometheus =
        "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3\r\n";
    let (head, body) = get(operator.metrics, "/metrics", prometheus).unwrap();
    let head = head.to_ascii_lowercase();
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    assert!(body.ends_with("# EOF\n"), "{body}");
    assert!(body.contains("# TYPE sentinel_gateway_heartbeats counter\n"), "a family has no suffix: {body}");
    let (head, text) = get(operator.metrics, "/metrics", "").unwrap();
    assert!(head.to_ascii_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(text.contains("# TYPE sentinel_gateway_heartbeats_total counter\n") && !text.contains("# EOF"));
    assert_eq!(names(&body), names(&text), "the same metrics in both formats");
}

#[test]
fn the_number_of_series_does_not_depend_on_what_clients_send() {
    let operator = Running::start(&[]);
    // Not caused by clients: calls of an API server that does not answer.
    let own = |series: &BTreeSet<String>| -> BTreeSet<String> {
        series.iter().filter(|name| !name.starts_with("rest_client_requests_total{")).cloned().collect()
    };
    let before = own(&series(&operator.metrics("")));
    for (number, method) in
        ["GET", "POST", "BREW", "x".repeat(300).as_str(), "\u{fc}", "PATCH"].iter().enumerate()
    {
        for at in [operator.api, operator.metrics, operator.gateway] {
            for path in [
                format!("/{number}"),
                format!("/api/v1/tasks/ns-{number}/t-{number}?a={number}"),
                format!("/api/v1/executions/u-{number}/{number}/n-{number}/log"),
                "/agent/v1/control".to_owned(),
                format!("/metrics?{}", "x".repeat(9000)),
            ] {
                let request = format!(
                    "{method} {path} HTTP/1.1\r\nHost: h-{number}.example\r\nAuthorization: Bearer t-{number}\r\n\
                     Upgrade: websocket\r\nConnection: close\r\nX-{number}: \"}}\n\r\n\r\n"
                );
                exchange(at, request.as_bytes());
            }
        }
    }
    let scrape = operator.metrics("");
    let after = own(&series(&scrape));
    let added: Vec<_> = after.difference(&before).collect();
    assert!(added.is_empty(), "{added:#?}");
    assert!((200..900).contains(&after.len()), "{} series of one operator", after.len());
    for name in ["ns-1", "h-1.example", "t-1", "BREW"] {
        assert!(!scrape.contains(name), "{name} is in a label");
    }
}

/// The identifiers in an expression that are metrics of ours, or of the libraries whose names we use.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    const PREFIXES: [&str; 6] =
        ["sentinel_", "controller_runtime_", "workqueue_", "rest_client_", "leader_election_", "process_"];
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| PREFIXES.iter().any(|prefix| word.starts_with(prefix))).map(str::to_owned).collect()
}

/// The panels of a dashboard, with those in rows.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let all = dashboard["panels"].as_array().unwrap();
    all.iter()
        .flat_map(|panel| std::iter::once(panel).chain(panel["panels"].as_array().into_iter().flatten()))
        .collect()
}

fn dashboards() -> Vec<(String, Value)> {
    let folder = repository("charts/sentinel-node/files/dashboards");
    let mut found: Vec<(String, Value)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            (path.file_name().unwrap().to_string_lossy().into_owned(), serde_json::from_str(&text).unwrap())
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[test]
fn every_metric_of_an_alert_or_a_dashboard_is_exposed() {
    let exposed = names(&Running::start(&[]).metrics(""));
    let alerts = fs::read_to_string(repository("charts/sentinel-node/files/alerts.yaml")).unwrap();
    let mut used: Vec<(String, BTreeSet<String>)> = vec![("alerts.yaml".to_owned(), metrics_in(&alerts))];
    for (file, dashboard) in dashboards() {
        let targets = panels(&dashboard)
            .into_iter()
            .flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
        let expressions: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
        used.push((file, metrics_in(&expressions.join(" "))));
    }
    for (file, metrics) in &used {
        assert!(metrics.len() > 8, "{file} names {metrics:?}");
        let missing: Vec<_> = metrics.iter().filter(|name| !exposed.contains(*name)).collect();
        assert!(missing.is_empty(), "{file} names what no operator exposes: {missing:?}");
    }
}

/// The Rust files below a folder.
fn sources(folder: &std::path::Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
            found.push((path, code));
        }
    }
}

/// What is first shown when it is first counted has no rate at that moment, and an alert on it misses it.
#[test]
fn a_fresh_operator_shows_every_metric_that_its_code_names() {
    let exposed = names(&Running::start(&["--trace-otlp-endpoint", "http://127.0.0.1:9"]).metrics(""));
    let (mut files, mut named) = (Vec::new(), BTreeSet::new());
    sources(&repository("operator/src"), &mut files);
    sources(&repository("telemetry/src"), &mut files);
    for (path, code) in &files {
        // Text between quotes; names of metrics have none in them.
        let quoted = code.split('"').filter(|text| !text.contains([' ', '/', '\n', ':']));
        for name in quoted.filter(|text| metrics_in(text).contains(*text)) {
            // Targets of log filters are named like crates.
            if !["sentinel_operator", "sentinel_node_agent", "sentinel_"].contains(&name) {
                named.insert((name.to_owned(), path));
            }
        }
    }
    assert!(named.len() > 60, "{named:?}");
    let is_shown = |name: &str| exposed.contains(name) || exposed.contains(&format!("{name}_count"));
    let late: Vec<_> = named.iter().filter(|(name, _)| !is_shown(name)).collect();
    assert!(late.is_empty(), "a fresh operator does not show {late:#?}");
}

/// The same for the labels of a metric: a counter is made where its part starts, and kept.
#[test]
fn no_counter_is_made_where_it_is_counted() {
    let mut files = Vec::new();
    sources(&repository("operator/src"), &mut files);
    sources(&repository("telemetry/src"), &mut files);
    let mut made = 0;
    for (path, code) in &files {
        let code: String = code.split_whitespace().collect();
        for (at, _) in [".counter(", ".counter_with(", ".histogram_with(", ".histogram_in("]
            .iter()
            .flat_map(|call| code.match_indices(call))
        {
            let (mut depth, mut end) = (0_i32, at);
            for (offset, byte) in code[at..].bytes().enumerate() {
                depth += i32::from(byte == b'(') - i32::from(byte == b')');
                if byte == b')' && depth == 0 {
                    end = at + offset + 1;
                    break;
                }
            }
            made += 1;
            // The codes of an API server are too many to show those that it never answers; client-go does the same.
            if path.ends_with("cluster/api_calls.rs") {
                continue;
            }
            let rest = &code[end..];
            let is_counted = [".add(", ".observe("].iter().any(|call| rest.starts_with(call));
            assert!(!is_counted, "{} counts {}", path.display(), &code[at..end]);
        }
    }
    assert!(made > 30, "{made}");
}

#[test]
fn every_alert_has_a_severity_a_runbook_and_tests() {
    let text = fs::read_to_string(repository("charts/sentinel-node/files/alerts.yaml")).unwrap();
    let alerts: Value = serde_saphyr::from_str(&text).unwrap();
    assert!(!text.contains("{{ .Values") && !text.contains("{{ include"), "promtool reads it as it is");
    let tests: String = fs::read_dir(repository("tests/alerts"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    let mut known = BTreeSet::from(["README".to_owned()]);
    for rule in
        alerts["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap())
    {
        let name = rule["alert"].as_str().unwrap();
        assert!(
            ["critical", "warning", "info"].contains(&rule["labels"]["severity"].as_str().unwrap()),
            "{name}"
        );
        let url = rule["annotations"]["runbook_url"].as_str().unwrap();
        assert!(url.ends_with(&format!("/runbooks/{name}")), "{name}: {url}");
        let runbook = fs::read_to_string(repository(&format!("docs/runbooks/{name}.md")))
            .unwrap_or_else(|error| panic!("the runbook of {name}: {error}"));
        assert!(runbook.starts_with(&format!("# {name}\n")), "{name}");
        for heading in ["Meaning", "What users see", "Diagnosis", "Causes", "Remedies"] {
            assert!(runbook.contains(&format!("\n## {heading}\n")), "the runbook of {name} has no {heading}");
        }
        let (_, commands) = runbook.split_once("```bash\n").unwrap();
        assert_eq!(
            commands.split("```").next().unwrap().lines().count(),
            3,
            "{name}: the first three commands"
        );
        for kind in ["fires", "is quiet"] {
            assert!(tests.contains(&format!("- name: {name} {kind}\n")), "no test that {name} {kind}");
        }
        known.insert(name.to_owned());
    }
    assert!(known.len() > 20, "{known:?}");
    let pages: BTreeSet<String> = fs::read_dir(repository("docs/runbooks"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(pages, known, "runbooks and alerts");
}

#[test]
fn dashboards_name_no_data_source_and_every_panel_has_a_unit() {
    let all = dashboards();
    assert_eq!(
        all.iter().map(|(file, _)| file.as_str()).collect::<Vec<_>>(),
        ["fleet.json", "operator.json", "overview.json"]
    );
    let mut uids = BTreeSet::new();
    for (file, dashboard) in &all {
        assert!(uids.insert(dashboard["uid"].as_str().unwrap()), "{file}: its uid is another's");
        assert!(dashboard["id"].is_null() && dashboard["schemaVersion"].as_u64() >= Some(36), "{file}");
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        assert!(
            variables.iter().any(|v| v["name"] == "datasource"
                && v["type"] == "datasource"
                && v["query"] == "prometheus")
        );
        let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
        for panel in panels(dashboard) {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{file}: {title} has the id of another panel");
            let at = &panel["gridPos"];
            assert!(
                at["x"].as_u64().unwrap() + at["w"].as_u64().unwrap() <= 24,
                "{file}: {title} is too wide"
            );
            assert!(
                places.insert((at["y"].as_u64(), at["x"].as_u64())),
                "{file}: {title} covers another panel"
            );
            if panel["type"] == "row" {
                continue;
            }
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{file}: {title} has no unit");
            for source in panel["targets"].as_array().unwrap().iter().chain([panel]) {
                assert_eq!(source["datasource"]["uid"], "${datasource}", "{file}: {title}");
            }
        }
    }
}

#[test]
fn the_log_filter_follows_its_file_while_the_operator_runs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("filter");
    let operator = Running::start(&["--log-format", "json", "--log-filter-file", file.to_str().unwrap()]);
    fs::write(&file, "debug\n").unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    let is_debug =
        |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|line| line["level"] == "DEBUG");
    while !operator.log().lines().any(is_debug) {
        assert!(Instant::now() < deadline, "{}", operator.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    for line in operator.log().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "target", "message"] {
            assert!(line[field].is_string(), "no {field} in {line}");
        }
    }
}
