//! The operator is killed and started again, until its agents are back and a Task is through.

use std::time::{Duration, Instant};

use serde_json::json;

use super::events::Ends;
use super::figures::Times;
use super::progress::note;
use super::setup::{Setup, node_names, task};
use super::simulated_agents;
use super::table::Table;

pub(super) async fn measure(table: &mut Table) {
    for (count, rounds, aim) in [(1000, 7, "400 ms"), (15_000, 3, "")] {
        note(&format!("restart: {count} agents"));
        let Restarts { back, through } = restarts(count, rounds).await;
        table.median(&format!("operator killed → {count} agents are back"), back, aim);
        table.median("  → a Task sent then has ended", through, aim);
    }
}

/// Both from the kill of the operator.
struct Restarts {
    back: Times,
    through: Times,
}

async fn restarts(count: usize, rounds: usize) -> Restarts {
    let nodes = node_names(count);
    let mut setup = Setup::new(&nodes).await;
    let mut agents = simulated_agents::keep_connected(&setup).await;
    let (mut back, mut through) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // A Session that lasted resets the wait before the next dial.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let begun = Instant::now();
        setup = setup.restart().await;
        let connected: usize = agents.receive().await;
        back.push(begun.elapsed());
        assert_eq!(connected, count, "agents are missing");
        let mut ends = Ends::of(&setup.api).await;
        let name = format!("t-{round}");
        setup.api.create(&task(&name, &json!({"nodeNames": [nodes[0]]}), "true")).await;
        through.push(ends.of_task(&name).await - begun);
    }
    agents.end().await;
    setup.operator.end().await;
    Restarts { back: Times::of(back), through: Times::of(through) }
}
