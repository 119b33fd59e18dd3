//! A command on one node: from the request to the clock that the process itself prints.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::events::Ends;
use super::figures::{Times, clock, until_printed};
use super::gateway::{Gateway, Session};
use super::limits::Spawner;
use super::progress::note;
use super::setup::{PRINT_TIME, Setup, start_agent, task};
use super::simulated_agents;
use super::table::Table;
use crate::programs::Program;
use crate::testbed::secret;

const ROUNDS: usize = 500;
const WARM_UP: usize = 20;

pub(super) async fn measure(table: &mut Table) {
    note("dispatch: the floor");
    let mut spawner = Spawner::connect().await;
    let round_trip = Times::of(spawner.round_trips(ROUNDS).await);
    let floor = Times::of(spawner.starts(ROUNDS, Duration::ZERO).await);
    spawner.end().await;
    note("dispatch: the agent alone");
    let mut alone = AgentAlone::start().await;
    let agent = Times::of(alone.times(ROUNDS, Duration::ZERO).await);
    drop(alone);
    note("dispatch: operator and agent");
    let mut whole = Whole::start().await;
    let both = Times::of(whole.times(ROUNDS, Duration::ZERO).await);
    whole.end().await;
    table.limit("WebSocket round trip, bare", round_trip);
    table.limit("a new file made durable, bare", durable());
    table.times("Start → process start, agent alone", agent, floor, "1.9 / 3.5 ms");
    table.times("POST → process start, operator and agent", both, floor, "1.9 / 3.5 ms");
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
pub(super) struct AgentAlone {
    session: Session,
    _agent: Program,
    _directory: TempDir,
}

impl AgentAlone {
    pub(super) async fn start() -> Self {
        let gateway = Gateway::listen().await;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name).display().to_string();
        // An agent reads no token that others can read.
        secret(&directory.path().join("token"), "token");
        let url = format!("ws://{}", gateway.address);
        let agent = start_agent(directory.path(), &url, &path("token"), &path("state"));
        let mut alone = Self { session: gateway.session().await, _agent: agent, _directory: directory };
        alone.times(WARM_UP, Duration::ZERO).await;
        alone
    }

    pub(super) async fn times(&mut self, rounds: usize, pause: Duration) -> Vec<Duration> {
        let mut times = Vec::new();
        for _ in 0..rounds {
            tokio::time::sleep(pause).await;
            let start = simulated_agents::start("n", 1, PRINT_TIME);
            let begun = clock();
            let printed = self.session.run(start).await;
            times.push(until_printed(begun, &printed));
        }
        times
    }
}

/// From the HTTP request that makes a Task, over embedded stores.
pub(super) struct Whole {
    setup: Setup,
    ends: Ends,
    node: String,
    made: usize,
    _agent: Program,
}

impl Whole {
    pub(super) async fn start() -> Self {
        let node = "n".to_owned();
        let setup = Setup::new(std::slice::from_ref(&node)).await;
        let agent = setup.agent(&node).await;
        let ends = Ends::of(&setup.api).await;
        let mut whole = Self { setup, ends, node, made: 0, _agent: agent };
        whole.times(WARM_UP, Duration::ZERO).await;
        whole
    }

    /// A poll would take time from the command; so what it printed is read once the Run has ended.
    pub(super) async fn times(&mut self, rounds: usize, pause: Duration) -> Vec<Duration> {
        let mut times = Vec::new();
        for _ in 0..rounds {
            tokio::time::sleep(pause).await;
            self.made += 1;
            let name = format!("t-{}", self.made);
            let task = task(&name, &json!({"nodeNames": [self.node]}), PRINT_TIME);
            let begun = clock();
            let made = self.setup.api.create(&task).await;
            self.ends.of_task(&name).await;
            let printed = self.setup.api.follow(&made, &self.node).await.text().await.expect("output");
            times.push(until_printed(begun, &printed));
        }
        times
    }

    pub(super) async fn end(self) {
        self.setup.operator.end().await;
    }
}
