//! From the request to the first byte of a command's output at an HTTP reader.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::json;

use super::events::Ends;
use super::figures::Times;
use super::limits;
use super::progress::note;
use super::setup::{Setup, task};
use super::table::Table;

const COMMAND: &str = "echo x";
const ROUNDS: usize = 200;
const WARM_UP: usize = 20;

pub(super) async fn measure(table: &mut Table) {
    note("first-byte: the floor");
    let mut floor = Vec::new();
    for _ in 0..ROUNDS {
        floor.push(limits::first_byte(COMMAND).await);
    }
    note("first-byte: operator and agent");
    let ours = ours().await;
    table.times("POST → first byte at an HTTP reader", ours, Times::of(floor), "2.2 ms");
}

async fn ours() -> Times {
    let node = "n".to_owned();
    let setup = Setup::new(std::slice::from_ref(&node)).await;
    let _agent = setup.agent(&node).await;
    let mut ends = Ends::of(&setup.api).await;
    let mut times = Vec::new();
    for number in 0..WARM_UP + ROUNDS {
        let name = format!("t-{number}");
        let task = task(&name, &json!({"nodeNames": [node]}), COMMAND);
        let begun = Instant::now();
        let made = setup.api.create(&task).await;
        let log = setup.api.follow_at_once(&made, &node).await;
        let first = log.bytes_stream().next().await.expect("output").expect("output");
        let time: Duration = begun.elapsed();
        assert_eq!(first.first(), Some(&b'x'), "something else came first");
        times.push(time);
        ends.of_task(&name).await;
    }
    setup.operator.end().await;
    Times::of(times.split_off(WARM_UP))
}
