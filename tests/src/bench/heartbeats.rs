//! Heartbeats of 15,000 nodes, which the operator mirrors to a Redis: how many it writes, what that costs, and what a Redis that
//! does not answer changes.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sentinel_protocol::limits::HEARTBEAT_MS;
use serde_json::json;
use tempfile::TempDir;

use super::events::Ends;
use super::figures::Times;
use super::operator::Wanted;
use super::progress::note;
use super::scale::NODES;
use super::setup::{Setup, node_names, task};
use super::simulated_agents;
use super::table::Table;
use super::worker::Worker;
use crate::cluster::repository;
use crate::memory::cpu_seconds;
use crate::ports::free_port;
use crate::wait::until;

/// How long writes are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// How long Redis does not answer: longer than the operator waits for it, and shorter than a record lives.
const STALL: Duration = Duration::from_secs(4);

const COMMANDS: usize = 100;

pub(super) async fn measure(table: &mut Table) {
    note(&format!("heartbeats: {NODES} agents"));
    let redis = Redis::start().await;
    let wanted = Wanted { nodes: node_names(NODES), redis: Some(redis.url.clone()), ..Wanted::default() };
    let setup = Setup::with(wanted).await;
    let agents = simulated_agents::connect(&setup).await;
    // Each has sent one.
    tokio::time::sleep(Duration::from_millis(HEARTBEAT_MS + 500)).await;
    let pids = [setup.operator.pid(), redis.server.pid()];
    let (before, used) = (redis.writes().await, pids.map(cpu_seconds));
    let begun = Instant::now();
    tokio::time::sleep(WINDOW).await;
    let (after, time) = (redis.writes().await, begun.elapsed().as_secs_f64());
    let writes = (after - before) as f64 / time;
    let expected = format!("{} /s", NODES as u64 * 1000 / HEARTBEAT_MS);
    table.number(&format!("heartbeats of {NODES} nodes: writes into Redis"), writes, None, "/s", &expected);
    for (at, who) in ["operator", "Redis"].into_iter().enumerate() {
        let share = (cpu_seconds(pids[at]) - used[at]) / time * 100.0;
        table.number(&format!("  of one processor, {who}"), share, None, "%", "");
    }
    note("heartbeats: Redis does not answer");
    let mut commands = Commands::of(&setup).await;
    let running = commands.times().await;
    redis.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    // Until the operator has waited for an answer.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let stalled = commands.times().await;
    tokio::time::sleep(STALL.saturating_sub(stopped.elapsed())).await;
    redis.signal(Signal::SIGCONT);
    let begun = Instant::now();
    let known = redis.writes().await;
    until("Redis is written to again", Duration::from_secs(15), || async {
        let writes = redis.writes().await;
        if writes >= known + NODES as u64 { Ok(()) } else { Err(writes) }
    })
    .await;
    let again = begun.elapsed().as_secs_f64() * 1e3;
    table.times("POST → ended, Redis is stopped (limit: it runs)", stalled, running, "");
    table.number("  Redis continues → as many writes as nodes", again, None, "ms", "");
    agents.end().await;
    setup.operator.end().await;
    redis.server.end().await;
}

/// Commands on one of the simulated nodes, one after the other.
struct Commands<'a> {
    setup: &'a Setup,
    ends: Ends,
    made: usize,
}

impl<'a> Commands<'a> {
    async fn of(setup: &'a Setup) -> Self {
        Self { setup, ends: Ends::of(&setup.api).await, made: 0 }
    }

    async fn times(&mut self) -> Times {
        let mut times = Vec::new();
        for _ in 0..COMMANDS {
            self.made += 1;
            let name = format!("t-{}", self.made);
            let task = task(&name, &json!({"nodeNames": [node_names(1)[0]]}), "true");
            let begun = Instant::now();
            self.setup.api.create(&task).await;
            times.push(self.ends.of_task(&name).await - begun);
        }
        Times::of(times)
    }
}

/// A Redis of this section's own.
struct Redis {
    server: Worker,
    url: String,
    client: redis::aio::MultiplexedConnection,
    _directory: TempDir,
}

impl Redis {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (port, path) = (free_port().to_string(), directory.path().display().to_string());
        let script = repository().join("tests/parts/serve-redis").display().to_string();
        let log = directory.path().join("log").display().to_string();
        let server = Worker::start_other(&script, &[&path, &port, "--logfile", &log]);
        let url = format!("redis://127.0.0.1:{port}/");
        let opened = redis::Client::open(url.clone()).expect("a URL");
        let client =
            until("Redis answers", Duration::from_secs(10), || opened.get_multiplexed_async_connection())
                .await;
        Self { server, url, client, _directory: directory }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.server.pid()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("signalled");
    }

    /// Records written since its start.
    async fn writes(&self) -> u64 {
        let asked = redis::cmd("INFO").arg("commandstats").to_owned();
        let text: String = asked.query_async(&mut self.client.clone()).await.expect("statistics");
        let calls = text.lines().find_map(|line| line.strip_prefix("cmdstat_set:calls="));
        calls.and_then(|rest| rest.split(',').next()).map_or(0, |count| count.parse().expect("a number"))
    }
}
