//! One Task on many agents, which answer at once: what the operator itself takes.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::figures::Times;
use super::limits;
use super::progress::note;
use super::setup::{Api, Setup, task};
use super::simulated_agents;
use super::table::Table;

pub(super) async fn measure(table: &mut Table) {
    for (count, rounds, aim) in [(100, 60, "1.5 ms"), (1000, 25, "14 ms")] {
        note(&format!("fanout: the floor for {count}"));
        let floor = limits::fan_out(count, rounds).await;
        note(&format!("fanout: {count} agents"));
        let ours = fan_out(count, rounds).await;
        table.times(&format!("POST → all of {count} ended, simulated agents"), ours, floor, aim);
    }
}

async fn fan_out(count: usize, rounds: usize) -> Times {
    let nodes: Vec<String> = (0..count).map(|number| format!("n-{number:04}")).collect();
    let setup = Setup::new(&nodes).await;
    let agents = simulated_agents::connect(&setup.addresses).await;
    let mut ends = Ends::of(&setup.api).await;
    let mut times = Vec::new();
    // The first pays for what is made once.
    for number in 0..=rounds {
        let name = format!("t-{number}");
        let task = task(&name, &json!({"all": true}), "true");
        let begun = Instant::now();
        let made = setup.api.create(&task).await;
        let ended = ends.of_task(&name).await;
        times.push(ended - begun);
        setup.api.finished(&made).await;
        // History and the agents receive it before the next begins.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    agents.end().await;
    setup.operator.end().await;
    Times::of(times.split_off(1))
}

/// When Runs end, from the API's event stream.
struct Ends(mpsc::Receiver<(String, Instant)>);

impl Ends {
    async fn of(api: &Api) -> Self {
        let answer = api.http.get(format!("{}/api/v1/events", api.url)).send().await.expect("events");
        let (sender, ends) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut bytes = answer.bytes_stream();
            let mut text = Vec::new();
            while let Some(Ok(more)) = bytes.next().await {
                let at = Instant::now();
                text.extend_from_slice(&more);
                while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
                    let event: Vec<u8> = text.drain(..end + 2).collect();
                    if let Some(name) = ended(&event)
                        && sender.send((name, at)).await.is_err()
                    {
                        return;
                    }
                }
            }
        });
        Self(ends)
    }

    async fn of_task(&mut self, name: &str) -> Instant {
        loop {
            let (of, at) = self.0.recv().await.expect("the event stream is open");
            if of == name {
                return at;
            }
        }
    }
}

/// The name of the Task, if the event shows that its Run is over; all of its nodes must have succeeded.
fn ended(event: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(event);
    let data = text.lines().find_map(|line| line.strip_prefix("data: "))?;
    let task: Value = serde_json::from_str(data).ok()?;
    let run = &task["status"]["run"];
    run["finishedAt"].as_str()?;
    assert_eq!(run["verdict"], "Complete", "{run}");
    task["metadata"]["name"].as_str().map(str::to_owned)
}
