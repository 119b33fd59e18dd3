//! `nodes` and `get nodes`: who there is, and how they do.

use serde_json::Value;

use super::sort;
use crate::args::GetArgs;
use crate::client::{Client, escape};
use crate::exit::{Ended, OK};
use crate::output::format::{Format, note, print};
use crate::output::table::{Cell, Table};
use crate::output::text::Text;
use crate::output::time;

pub(super) async fn perform(
    client: &Client,
    name: Option<&str>,
    output: Format,
    list: Option<&GetArgs>,
) -> Ended {
    let (mut value, mut nodes) = if let Some(name) = name {
        let node = client.get(&format!("/api/v1/nodes/{}", escape(name))).await?;
        (node.clone(), vec![node])
    } else {
        let value = client.get("/api/v1/nodes").await?;
        let nodes = value["items"].as_array().cloned().unwrap_or_default();
        (value, nodes)
    };
    if let Some((field, list)) = list.and_then(|list| Some((list.sort_by.as_ref()?, list))) {
        sort::by(&mut nodes, field, &list.what)?;
        value["items"] = Value::Array(nodes.clone());
    }
    match output {
        Format::Json | Format::Yaml => {
            output.print_whole(&value)?;
        }
        Format::Name => {
            let name = |node: &Value| node["name"].as_str().unwrap_or("").to_owned();
            print(
                nodes.iter().fold(Text::new(), |text, node| text.then("node/").name(&name(node)).then("\n")),
            )?;
        }
        Format::Table | Format::Wide if nodes.is_empty() => note("No nodes found."),
        Format::Table | Format::Wide => print(table(&nodes, output == Format::Wide).text())?,
    }
    Ok(OK)
}

fn table(nodes: &[Value], wide: bool) -> Table {
    let mut heads = vec!["NAME", "REACHABLE", "HEARD", "CPU", "MEMORY", "LOAD", "DISK", "RUNNING", "UPTIME"];
    if wide {
        heads.extend(["AGENT", "PLATFORM", "RUNS IN", "SPOOLED", "LABELS"]);
    }
    let mut table = Table::new(&heads);
    for node in nodes {
        let metrics = &node["metrics"];
        let number = |key: &str| metrics[key].as_u64();
        let reachable = if node["reachable"].as_bool() == Some(true) { "yes" } else { "no" };
        let mut row = vec![
            Cell::node(node["name"].as_str().unwrap_or("")),
            Cell::state(reachable),
            Cell::new(time::ago(node["lastHeardAt"].as_str())),
            Cell::new(
                metrics["cpuPercent"].as_f64().map(|percent| format!("{percent:.0}%")).unwrap_or_default(),
            ),
            Cell::new(of(number("memoryUsed"), number("memoryTotal"))),
            Cell::new(metrics["load"][0].as_f64().map(|load| format!("{load:.2}")).unwrap_or_default()),
            Cell::new(fullest_disk(metrics)),
            Cell::new(match (number("running"), number("runningLimit")) {
                (Some(running), Some(limit)) => format!("{running}/{limit}"),
                (Some(running), None) => running.to_string(),
                (None, _) => String::new(),
            }),
            Cell::new(number("uptimeSeconds").map(|s| time::span(s * 1000)).unwrap_or_default()),
        ];
        if wide {
            let words = node["environments"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let labels = node["labels"].as_object().into_iter().flatten();
            row.extend([
                Cell::new(node["agentVersion"].as_str().unwrap_or("")),
                Cell::new(node["platform"].as_str().unwrap_or("")),
                Cell::new(words.collect::<Vec<_>>().join(",")),
                Cell::new(number("spooled").map(time::bytes).unwrap_or_default()),
                Cell::new(
                    labels
                        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or("")))
                        .collect::<Vec<_>>()
                        .join(","),
                ),
            ]);
        }
        table.row(row);
    }
    table
}

fn of(used: Option<u64>, total: Option<u64>) -> String {
    match (used, total) {
        (Some(used), Some(total)) if total > 0 => format!("{}/{}", time::bytes(used), time::bytes(total)),
        _ => String::new(),
    }
}

/// How full the fullest disk is.
fn fullest_disk(metrics: &Value) -> String {
    let disks = metrics["disks"].as_array().into_iter().flatten();
    let share = |disk: &Value| {
        let total = disk["total"].as_u64().filter(|total| *total > 0)?;
        let used = total.saturating_sub(disk["available"].as_u64()?);
        Some(used.saturating_mul(100) / total)
    };
    disks.filter_map(share).max().map(|percent| format!("{percent}%")).unwrap_or_default()
}
