//! A command on one node: from the request to the clock that the process itself prints.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use super::figures::{Times, clock, until_printed};
use super::gateway::Gateway;
use super::limits;
use super::progress::note;
use super::setup::{PRINT_TIME, Setup, start_agent, task};
use super::simulated_agents;
use super::table::Table;
use crate::testbed::secret;
use serde_json::json;

const ROUNDS: usize = 500;
const WARM_UP: usize = 20;

pub(super) async fn measure(table: &mut Table) {
    note("dispatch: the floor");
    let floor = limits::spawning(ROUNDS).await;
    note("dispatch: the agent alone");
    let agent = agent_alone().await;
    note("dispatch: operator and agent");
    let whole = whole().await;
    table.limit("WebSocket round trip, bare", floor.round_trip);
    table.limit("a new file made durable, bare", durable());
    table.times("Start → process start, agent alone", agent, floor.start, "1.9 / 3.5 ms");
    table.times("POST → process start, operator and agent", whole, floor.start, "1.9 / 3.5 ms");
}

/// A file is written, synced, renamed, and its directory synced.
fn durable() -> Times {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let write = |number: usize| {
        let (new, name) = (directory.path().join("new"), directory.path().join(number.to_string()));
        let begun = Instant::now();
        let mut file = File::create_new(&new).expect("a file");
        file.write_all(&[b'x'; 600]).expect("written");
        file.sync_all().expect("synced");
        std::fs::rename(&new, &name).expect("renamed");
        File::open(directory.path()).and_then(|directory| directory.sync_all()).expect("synced");
        begun.elapsed()
    };
    Times::of((0..200).map(write).collect())
}

/// From the `Start` of a bare gateway: what the agent, the supervisor and the Journal take.
async fn agent_alone() -> Times {
    let gateway = Gateway::listen().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    // An agent reads no token that others can read.
    secret(&directory.path().join("token"), "token");
    let url = format!("ws://{}", gateway.address);
    let _agent = start_agent(directory.path(), &url, &path("token"), &path("state"));
    let mut session = gateway.session().await;
    let mut times = Vec::new();
    for _ in 0..WARM_UP + ROUNDS {
        let start = simulated_agents::start("n", 1, PRINT_TIME);
        let begun = clock();
        let printed = session.run(start).await;
        times.push(until_printed(begun, &printed));
    }
    Times::of(times.split_off(WARM_UP))
}

/// From the HTTP request that makes a Task, over embedded stores.
async fn whole() -> Times {
    let node = "n".to_owned();
    let setup = Setup::new(std::slice::from_ref(&node)).await;
    let _agent = setup.agent(&node).await;
    let mut times = Vec::new();
    for number in 0..WARM_UP + ROUNDS {
        let task = task(&format!("t-{number}"), &json!({"nodeNames": [node]}), PRINT_TIME);
        let begun = clock();
        let made = setup.api.create(&task).await;
        let printed = setup.api.follow(&made, &node).await.text().await.expect("output");
        times.push(until_printed(begun, &printed));
        setup.api.finished(&made).await;
    }
    setup.operator.end().await;
    Times::of(times.split_off(WARM_UP))
}
