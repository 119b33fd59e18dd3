//! A whole system on real parts for tests in other languages: an operator with agents, driven by lines on standard input.
//!
//! ```text
//! testbed NODE…          prints {"api": URL, "namespace": NAME, "nodes": {NODE: NAME}} when all agents are connected
//!   stop                 the operator ends; prints {"stopped": true}
//!   start                and runs again, at the same addresses; prints {"started": true}
//! ```
//!
//! At the end of its input it removes what it made. `SENTINEL_PARTS` names the parts.
#![allow(missing_docs, clippy::print_stdout, reason = "a program of tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use sentinel_tests::testbed::Testbed;
use serde_json::json;

/// How long the operator may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<()> {
    let nodes: Vec<String> = std::env::args().skip(1).collect();
    if nodes.is_empty() || nodes.iter().any(|node| node.starts_with('-')) {
        bail!("usage: testbed NODE…");
    }
    let mut testbed = Testbed::new("page").await;
    let mut agents = Vec::new();
    let mut names = BTreeMap::new();
    for node in &nodes {
        agents.push(testbed.agent(node, &[]).await);
        names.insert(node, testbed.namespace.node_name(node));
    }
    println!("{}", json!({"api": testbed.api, "namespace": testbed.namespace.name, "nodes": names}));
    while let Some(line) = tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await? {
        match line.context("failed to read standard input")?.as_str() {
            "stop" => {
                let operator = testbed.operator.take().context("the operator does not run")?;
                operator.stop(ENDS_WITHIN).await;
                println!("{}", json!({"stopped": true}));
            }
            "start" => {
                testbed.start_operator().await;
                println!("{}", json!({"started": true}));
            }
            other => bail!("no command {other:?}"),
        }
    }
    for agent in agents {
        agent.stop(ENDS_WITHIN).await;
    }
    testbed.close().await;
    Ok(())
}
