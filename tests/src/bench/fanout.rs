//! One Task on many agents, which answer at once: what the operator itself takes.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::crowd;
use super::figures::Times;
use super::limits;
use super::rig::{Api, Rig, task};
use super::sections::note;
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
    let rig = Rig::new(&nodes).await;
    let crowd = crowd::connect(&rig.place).await;
    let mut ends = Ends::of(&rig.api).await;
    let mut times = Vec::new();
    // The first pays for what is made once.
    for number in 0..=rounds {
        let name = format!("t-{number}");
        let task = task(&name, &json!({"all": true}), "true");
        let begun = Instant::now();
        let made = rig.api.create(&task).await;
        let ended = ends.of_task(&name).await;
        times.push(ended - begun);
        rig.api.finished(&made).await;
        // History and the agents are told of it before the next begins.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    crowd.end().await;
    rig.operator.end().await;
    Times::of(times.split_off(1))
}

/// When Runs end, as the API's events say it.
struct Ends(mpsc::Receiver<(String, Instant)>);

impl Ends {
    async fn of(api: &Api) -> Self {
        let answer = api.http.get(format!("{}/api/v1/events", api.url)).send().await.expect("events");
        let (said, ends) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut bytes = answer.bytes_stream();
            let mut text = Vec::new();
            while let Some(Ok(more)) = bytes.next().await {
                let at = Instant::now();
                text.extend_from_slice(&more);
                while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
                    let event: Vec<u8> = text.drain(..end + 2).collect();
                    if let Some(name) = ended(&event)
                        && said.send((name, at)).await.is_err()
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
            let (of, at) = self.0.recv().await.expect("events go on");
            if of == name {
                return at;
            }
        }
    }
}

/// The Task whose Run is over, if the event says so of one; and all of its nodes must have succeeded.
fn ended(event: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(event);
    let data = text.lines().find_map(|line| line.strip_prefix("data: "))?;
    let task: Value = serde_json::from_str(data).ok()?;
    let run = &task["status"]["run"];
    run["finishedAt"].as_str()?;
    assert_eq!(run["verdict"], "Complete", "{run}");
    task["metadata"]["name"].as_str().map(str::to_owned)
}
