//! What the operator answers.

use std::time::Duration;

use super::cluster::skew;
use super::findings::Findings;
use crate::client::{Client, ClientError, Query};
use crate::connection::Connection;
use crate::exit::Failure;
use crate::output::counted;

/// The release of this program.
const OURS: &str = env!("CARGO_PKG_VERSION");

/// Most nodes that a line names.
const MOST_NAMED: usize = 5;

pub(super) async fn check(connection: &Connection, findings: &mut Findings) -> Result<(), Failure> {
    let client = &connection.client;
    let mut query = Query::default();
    // Rights are often those of one namespace.
    query.maybe("namespace", connection.cluster.as_ref().map(|_| &connection.namespace));
    match client.list("/api/v1/tasks", query.clone(), 1, None).await {
        Ok(_) => {
            let forwarded = connection.cluster.as_ref().and_then(|(_, server)| server.forwarded());
            let server = forwarded.unwrap_or_else(|| client.server().clone());
            findings.ok("api", format!("the operator answers at {server}"))?;
        }
        Err(error) if served_namespace(&error).is_some() => {
            let served = served_namespace(&error).unwrap_or_default();
            let message =
                format!("the operator serves namespace {served} only, and not {}", connection.namespace);
            findings.warn("api", message, format!("Name it: sentinel check -n {served}"))?;
            query = Query::default();
            query.add("namespace", &served);
        }
        Err(error) if is_forbidden(&error) => {
            findings.ok("api", "the operator is reached; you may not list its Tasks")?;
        }
        Err(error) => {
            let failure = Failure::from(error);
            let advice = failure.hint.unwrap_or_else(|| "See the operator's log".to_owned());
            return findings.fail("api", failure.message, advice);
        }
    }
    nodes(client, findings).await?;
    history(client, query, findings).await
}

/// The namespace that the operator serves, if it refuses another one.
fn served_namespace(error: &ClientError) -> Option<String> {
    let body = error.body().filter(|_| error.status() == Some(404))?;
    body.allowed.clone().filter(|_| body.field.as_deref() == Some("namespace"))
}

fn is_forbidden(error: &ClientError) -> bool {
    error.status() == Some(403)
}

async fn nodes(client: &Client, findings: &mut Findings) -> Result<(), Failure> {
    let nodes = match client.nodes().await {
        Ok(nodes) => nodes,
        Err(error) => {
            let failure = Failure::from(error);
            let advice =
                failure.hint.unwrap_or_else(|| "Is Redis available to the operator? See its log".to_owned());
            return findings.warn(
                "connections",
                format!("the nodes cannot be listed: {}", failure.message),
                advice,
            );
        }
    };
    let silent: Vec<&str> =
        nodes.iter().filter(|node| !node.reachable).map(|node| node.name.as_str()).collect();
    let count = counted(nodes.len() as u64, "node");
    let advice = "See the logs of their agents: can they reach the operator's Service on port 7979, and trust its certificate?";
    if nodes.is_empty() {
        findings.fail("connections", "no agent is connected to the operator", advice)?;
    } else if silent.is_empty() {
        findings.ok("connections", format!("the agents of {count} are connected"))?;
    } else {
        let named = silent.iter().take(MOST_NAMED).copied().collect::<Vec<_>>().join(", ");
        let message = format!("the agents of {} of {count} are not connected: {named}", silent.len());
        findings.warn("connections", message, advice)?;
    }
    let other = |version: &Option<String>| version.as_ref().is_some_and(|version| version != OURS);
    let others: Vec<String> = nodes
        .iter()
        .filter(|node| other(&node.agent_version))
        .map(|node| format!("{} ({})", node.name, node.agent_version.as_deref().unwrap_or_default()))
        .collect();
    if !others.is_empty() {
        let named = others.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
        let message = format!(
            "{} have another release than this program ({OURS}): {named}",
            counted(others.len() as u64, "agent")
        );
        findings.warn(
            "agents",
            message,
            "During an upgrade this is as it should be; afterwards: kubectl rollout status",
        )?;
    }
    let worst =
        nodes.iter().filter_map(|node| Some((node.clock_offset_millis?.unsigned_abs(), &node.name))).max();
    match worst {
        Some((millis, name)) => {
            let whose = if nodes.len() == 1 {
                format!("node {name}")
            } else {
                format!("node {name}, the worst of {count},")
            };
            skew("clock", &whose, Duration::from_millis(millis), findings)
        }
        None => Ok(()),
    }
}

/// Whether the store of the History answers, by a list that needs it.
async fn history(client: &Client, query: Query, findings: &mut Findings) -> Result<(), Failure> {
    match client.list("/api/v1/runs", query, 1, None).await {
        Ok(listed) => match listed.partial {
            None => findings.ok("history", "the operator reads its History"),
            Some(why) => findings.fail(
                "history",
                format!("the operator cannot read its History: {why}"),
                "Is MongoDB available to the operator? See its log",
            ),
        },
        Err(error) => {
            let failure = Failure::from(error);
            let advice = failure.hint.unwrap_or_else(|| "See the operator's log".to_owned());
            findings.warn(
                "history",
                format!("whether the operator reads its History is not known: {}", failure.message),
                advice,
            )
        }
    }
}
