//! `nodes` and `get nodes`: nodes with their status and resources.

use sentinel_protocol::human::{human_bytes, human_duration};
use serde_json::Value;

use super::sort;
use crate::args::GetArgs;
use crate::client::{Client, escape};
use crate::exit::{ExitResult, OK};
use crate::output::format::{OutputFormat, note, print};
use crate::output::table::{Cell, Table};
use crate::output::text::Text;
use crate::output::time;

/// Lists nodes, or one node; sorted as `get` requests it.
pub(super) async fn execute(
    client: &Client,
    name: Option<&str>,
    output: OutputFormat,
    list: Option<&GetArgs>,
) -> ExitResult {
    let (mut value, mut nodes) = if let Some(name) = name {
        let name = name.strip_prefix("node/").unwrap_or(name);
        let node = client.get(&format!("/api/v1/nodes/{}", escape(name))).await?;
        (node.clone(), vec![node])
    } else {
        let value = client.get("/api/v1/nodes").await?;
        let nodes = value["items"].as_array().cloned().unwrap_or_default();
        (value, nodes)
    };
    if let Some((field, list)) = list.and_then(|list| Some((list.sort_by.as_ref()?, list))) {
        sort::by(&mut nodes, field, &list.noun)?;
        value["items"] = Value::Array(nodes.clone());
    }
    match output {
        OutputFormat::Json | OutputFormat::Yaml => {
            output.print_document(&value)?;
        }
        OutputFormat::Name => {
            let name = |node: &Value| node["name"].as_str().unwrap_or("").to_owned();
            print(
                nodes
                    .iter()
                    .fold(Text::new(), |text, node| text.plain("node/").single_line(&name(node)).plain("\n")),
            )?;
        }
        OutputFormat::Table | OutputFormat::Wide if nodes.is_empty() => note("No nodes found."),
        OutputFormat::Table | OutputFormat::Wide => {
            print(table(&nodes, output == OutputFormat::Wide).text())?;
        }
    }
    Ok(OK)
}

fn table(nodes: &[Value], wide: bool) -> Table {
    let mut headers = vec!["NAME", "REACHABLE", "SEEN", "CPU", "MEMORY", "LOAD", "DISK", "RUNNING", "UPTIME"];
    if wide {
        headers.extend(["AGENT", "PLATFORM", "RUNS IN", "SPOOLED", "LABELS"]);
    }
    let mut table = Table::new(&headers);
    for node in nodes {
        let mut row = status(node).to_vec();
        if wide {
            row.extend(properties(node));
        }
        table.row(row);
    }
    table
}

/// The columns of every table.
fn status(node: &Value) -> [Cell; 9] {
    let metrics = &node["metrics"];
    let number = |key: &str| metrics[key].as_u64();
    let cpu = metrics["cpuPercent"].as_f64().map(|percent| format!("{percent:.0}%"));
    let load = metrics["load"][0].as_f64().map(|load| format!("{load:.2}"));
    let running = match (number("running"), number("runningLimit")) {
        (Some(running), Some(limit)) => format!("{running}/{limit}"),
        (Some(running), None) => running.to_string(),
        (None, _) => String::new(),
    };
    let uptime = number("uptimeSeconds").map(|seconds| human_duration(seconds.saturating_mul(1000)));
    [
        Cell::node(node["name"].as_str().unwrap_or("")),
        Cell::state(if node["reachable"].as_bool() == Some(true) { "yes" } else { "no" }),
        Cell::new(time::age(node["lastHeardAt"].as_str())),
        Cell::new(cpu.unwrap_or_default()),
        Cell::new(share(number("memoryUsed"), number("memoryTotal"))),
        Cell::new(load.unwrap_or_default()),
        Cell::new(fullest_disk(metrics)),
        Cell::new(running),
        Cell::new(uptime.unwrap_or_default()),
    ]
}

/// The further columns of a wide table.
fn properties(node: &Value) -> [Cell; 5] {
    let environments = node["environments"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let labels = node["labels"].as_object().into_iter().flatten();
    let labels: Vec<String> =
        labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))).collect();
    [
        Cell::new(node["agentVersion"].as_str().unwrap_or("")),
        Cell::new(node["platform"].as_str().unwrap_or("")),
        Cell::new(environments.collect::<Vec<_>>().join(",")),
        Cell::new(node["metrics"]["spooled"].as_u64().map(human_bytes).unwrap_or_default()),
        Cell::new(labels.join(",")),
    ]
}

fn share(used: Option<u64>, total: Option<u64>) -> String {
    match (used, total) {
        (Some(used), Some(total)) if total > 0 => format!("{}/{}", human_bytes(used), human_bytes(total)),
        _ => String::new(),
    }
}

/// Usage of the fullest disk, in percent.
fn fullest_disk(metrics: &Value) -> String {
    let disks = metrics["disks"].as_array().into_iter().flatten();
    let usage = |disk: &Value| {
        let total = disk["total"].as_u64().filter(|total| *total > 0)?;
        let used = total.saturating_sub(disk["available"].as_u64()?);
        Some(used.saturating_mul(100) / total)
    };
    disks.filter_map(usage).max().map(|percent| format!("{percent}%")).unwrap_or_default()
}
