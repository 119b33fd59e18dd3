//! Operator and agent, idle and at work.

use std::time::Duration;

use serde_json::json;

use super::progress::note;
use super::setup::{Setup, agent_binary, node_names, task};
use super::simulated_agents;
use super::table::Table;
use crate::memory::{children, pss, rss};
use crate::wait::until;

const AGENTS: usize = 1000;
const COMMANDS: usize = 20;

/// Processes of an agent without commands: two supervisors that wait, and what forks them.
const WAITING: usize = 3;
const MIB: f64 = (1 << 20) as f64;

pub(super) async fn measure(table: &mut Table) {
    note("memory: the operator");
    operator(table).await;
    note("memory: the agent");
    agent(table).await;
}

async fn operator(table: &mut Table) {
    let setup = Setup::new(&node_names(AGENTS)).await;
    let pid = setup.operator.pid();
    settle().await;
    let idle = (rss(pid) as f64, pss(pid) as f64);
    let agents = simulated_agents::connect(&setup).await;
    // Each has sent a Heartbeat.
    tokio::time::sleep(Duration::from_millis(sentinel_protocol::limits::HEARTBEAT_MS + 500)).await;
    let busy = (rss(pid) as f64, pss(pid) as f64);
    table.number("operator idle, RSS", idle.0 / MIB, None, "MiB", "");
    table.number("operator idle, PSS", idle.1 / MIB, None, "MiB", "");
    let each = |after: f64, before: f64| (after - before) / 1024.0 / AGENTS as f64;
    table.number("operator, a connected agent more, RSS", each(busy.0, idle.0), None, "KiB", "4 KiB");
    table.number("operator, a connected agent more, PSS", each(busy.1, idle.1), None, "KiB", "4 KiB");
    agents.end().await;
    setup.operator.end().await;
}

async fn agent(table: &mut Table) {
    let node = "n".to_owned();
    let setup = Setup::new(std::slice::from_ref(&node)).await;
    let agent = setup.agent(&node).await;
    settle().await;
    let size = std::fs::metadata(agent_binary()).map_or(0, |about| about.len());
    table.number("agent's binary", size as f64 / MIB, None, "MiB", "");
    table.number("agent idle, PSS", pss(agent.pid()) as f64 / MIB, None, "MiB", "3 MiB");
    let family = |pid: u32| {
        let waiting = children(pid);
        (pss(pid) as f64 / MIB, waiting.len(), waiting.into_iter().map(pss).sum::<u64>() as f64 / MIB)
    };
    let (_, _, waiting) = family(agent.pid());
    table.number("  its supervisors that wait, and what forks them, PSS", waiting, None, "MiB", "");
    for number in 0..COMMANDS {
        setup.api.create(&task(&format!("t-{number}"), &json!({"nodeNames": [node]}), "sleep 60")).await;
    }
    until("all commands run", Duration::from_secs(20), || async {
        match children(agent.pid()).len() {
            count if count >= COMMANDS + WAITING => Ok(()),
            count => Err(count),
        }
    })
    .await;
    settle().await;
    let (own, count, others) = family(agent.pid());
    table.number(&format!("agent with {COMMANDS} commands, PSS"), own, None, "MiB", "4 MiB");
    table.number(&format!("  its {count} other processes together, PSS"), others, None, "MiB", "");
    // The commands end with the state directory's removal no more than without it: they are ended by name of Task.
    for number in 0..COMMANDS {
        let url = format!("{}/api/v1/tasks/default/t-{number}/cancel", setup.api.url);
        setup.api.http.post(url).header("sentinel-request", "1").send().await.expect("an answer");
    }
    until("all commands have ended", Duration::from_secs(20), || async {
        match children(agent.pid()).len() {
            count if count <= WAITING => Ok(()),
            count => Err(count),
        }
    })
    .await;
    setup.operator.end().await;
}

/// What was touched at the start is given back, or not at all.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}
