//! One Task on many agents, which answer at once: what the operator itself takes.

use std::time::{Duration, Instant};

use serde_json::json;

use super::events::Ends;
use super::figures::Times;
use super::limits::Echoes;
use super::progress::note;
use super::setup::{Setup, node_names, task};
use super::simulated_agents;
use super::table::Table;
use super::worker::Worker;

pub(super) async fn measure(table: &mut Table) {
    for (count, rounds, aim) in [(100, 60, "1.5 ms"), (1000, 25, "14 ms")] {
        note(&format!("fanout: the floor for {count}"));
        let mut echoes = Echoes::connect(count).await;
        let floor = Times::of(echoes.times(rounds).await);
        echoes.end().await;
        note(&format!("fanout: {count} agents"));
        let mut fanout = FanOut::connect(count).await;
        let ours = Times::of(fanout.times(rounds).await);
        fanout.end().await;
        table.times(&format!("POST → all of {count} ended, simulated agents"), ours, floor, aim);
    }
}

/// An operator and simulated agents.
pub(super) struct FanOut {
    setup: Setup,
    agents: Worker,
    ends: Ends,
    made: usize,
}

impl FanOut {
    pub(super) async fn connect(count: usize) -> Self {
        let mut fanout = Self::on(Setup::new(&node_names(count)).await).await;
        // The first pays for what is made once.
        fanout.times(1).await;
        fanout
    }

    /// Agents for an operator.
    pub(super) async fn on(setup: Setup) -> Self {
        let agents = simulated_agents::connect(&setup).await;
        let ends = Ends::of(&setup.api).await;
        Self { setup, agents, ends, made: 0 }
    }

    pub(super) async fn times(&mut self, rounds: usize) -> Vec<Duration> {
        let mut times = Vec::new();
        for _ in 0..rounds {
            self.made += 1;
            let name = format!("t-{}", self.made);
            let task = task(&name, &json!({"all": true}), "true");
            let begun = Instant::now();
            self.setup.api.create(&task).await;
            times.push(self.ends.of_task(&name).await - begun);
            // History and the agents receive it before the next begins.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        times
    }

    pub(super) async fn end(self) {
        self.agents.end().await;
        self.setup.operator.end().await;
    }
}
