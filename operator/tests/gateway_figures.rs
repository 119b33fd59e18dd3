//! Figures of the gateway: the cost of a connected agent, and of a gigabyte of output. They are printed, and mean
//! something from a release build on a quiet machine only:
//! `cargo test --release -p sentinel-operator --test gateway_figures -- --ignored --nocapture --test-threads 1`
//!
//! The agents run in a child process (this program again), so that the memory and processor time of this process are
//! the gateway's, the hub's and the archive's alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]
#![allow(clippy::print_stdout, reason = "it prints figures")]

mod gateway;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use gateway::*;
use sentinel_operator::gateway::routes;
use sentinel_operator::logs::Follow;
use sentinel_protocol::log::LogControl;
use sentinel_protocol::metrics::{DiskMetrics, NetworkMetrics, NodeMetrics};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Heartbeat, Inventory, ToOperator};

const AGENTS: usize = 1000;
const BYTES: u64 = 1_000_000_000;

/// A line of /proc/self/status, in KiB.
fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// This program in another role.
fn child(role: &str, world: &World, input: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", role, "--ignored", "--nocapture"])
        .env("FIGURES_ADDR", world.addr.to_string())
        .env("FIGURES_INPUT", input)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn metrics() -> NodeMetrics {
    let disk =
        |n: u32| DiskMetrics { mount: format!("/mnt/disk-{n}").into(), total: 1 << 40, available: 1 << 39 };
    let network =
        |n: u32| NetworkMetrics { interface: format!("eth{n}").into(), received: 1 << 33, sent: 1 << 32 };
    NodeMetrics {
        disks: (0..3).map(disk).collect(),
        networks: (0..3).map(network).collect(),
        ..NodeMetrics::default()
    }
}

#[test]
#[ignore = "prints figures; see the top of the file"]
fn memory_of_connected_agents() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let world = world(Setup::default()).await;
        drop(world.agent("warm-up").await);
        let tokens: Vec<String> =
            (0..AGENTS).map(|n| world.tokens.issue(&node_name(&format!("n-{n}")))).collect();
        let before = status("VmRSS");
        let mut agents = child("child_agents", &world, &tokens.join(","));
        let connected = || world.registry.agents().iter().filter(|agent| agent.sample.is_some()).count();
        for _ in 0..3000 {
            if connected() >= AGENTS {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(connected() >= AGENTS, "{} agents are connected", connected());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let after = status("VmRSS");
        println!(
            "{AGENTS} agents connected, each with a heartbeat: RSS {before} -> {after} KiB, {:.1} KiB each",
            (after - before) as f64 / AGENTS as f64
        );
        let began = Instant::now();
        let views = world.registry.agents().len();
        println!("a view of {views} agents: {:?}", began.elapsed());
        agents.kill().unwrap();
        agents.wait().unwrap();
    });
}

#[test]
#[ignore = "the other process of memory_of_connected_agents"]
fn child_agents() {
    let Ok(addr) = std::env::var("FIGURES_ADDR") else { return };
    let tokens = std::env::var("FIGURES_INPUT").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut agents = Vec::new();
        for token in tokens.split(',') {
            let mut agent = Agent::dial(addr.parse().unwrap(), routes::CONTROL_PATH, token).await.unwrap();
            agent.send_json(&ToOperator::Hello(hello())).await;
            agent
                .send_json(&ToOperator::Inventory(Inventory {
                    attempts: vec![],
                    more: false,
                    sealing_key: None,
                }))
                .await;
            agent
                .send_json(&ToOperator::Heartbeat(Heartbeat {
                    at: UnixMillis(1),
                    metrics: metrics(),
                    audit: None,
                }))
                .await;
            agents.push(agent);
        }
        // Until the parent process exits or kills this one.
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
        let _ = ended.await;
    });
}

#[test]
#[ignore = "prints figures; see the top of the file"]
fn a_gigabyte_of_output_with_one_reader() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let world = world(Setup::default()).await;
        let agent = world.agent("n").await;
        let mut agent_socket = agent.socket;
        tokio::spawn(async move { while agent_socket.next().await.is_some() {} });
        let session = agent.welcome.unwrap().session;
        let token = world.tokens.issue(&node_name("n"));
        let reader = world.reader.clone();
        let (before, busy, began) = (status("VmRSS"), cpu(), Instant::now());
        let mut child = child("child_output", &world, &format!("{token},{session}"));
        let reading = tokio::spawn(async move {
            let mut records = Box::pin(reader.open(attempt("t/1/n/1"), 0, Follow::Yes));
            let mut position = 0;
            while position < BYTES {
                let record = records.next().await.unwrap().unwrap();
                assert_eq!(record.head.position, position);
                position = record.end();
            }
        });
        reading.await.unwrap();
        let took = began.elapsed();
        let used = cpu().saturating_sub(busy);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let printed: Vec<String> = lines.map_while(Result::ok).filter(|l| l.contains("archived")).collect();
        child.wait().unwrap();
        println!(
            "1 GB to a reader in {took:.2?}: {:.0} MB/s; all archived in {:.2?}; {:.2} CPU s here, archive included; \
             RSS {before} KiB before, {} KiB peak; {printed:?}",
            BYTES as f64 / 1e6 / took.as_secs_f64(),
            began.elapsed(),
            used.as_secs_f64(),
            status("VmHWM"),
        );
    });
}

#[test]
#[ignore = "the other process of a_gigabyte_of_output_with_one_reader"]
fn child_output() {
    let Ok(addr) = std::env::var("FIGURES_ADDR") else { return };
    let input = std::env::var("FIGURES_INPUT").unwrap();
    let (token, session) = input.split_once(',').unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut socket = Agent::dial(addr.parse().unwrap(), routes::LOGS_PATH, token).await.unwrap();
        socket.send_json(&LogControl::Hello { session: session.parse().unwrap() }).await;
        let id = attempt("t/1/n/1");
        socket.send_json(&LogControl::Open { attempt: id.clone(), oldest: 0 }).await;
        // As `yes` writes.
        let text: bytes::Bytes = b"y\n".repeat(64 << 10).into();
        let (mut position, mut granted, mut archived) = (0_u64, 0_u64, 0_u64);
        let began = Instant::now();
        while archived < BYTES {
            let len = (128 << 10).min(BYTES - position).min(granted - position);
            if len > 0 {
                let mut record = record(0, 1);
                record.head.position = position;
                record.head.offset = position;
                record.head.len = len;
                record.data = text.slice(..len as usize);
                socket.record(&id, &record).await;
                position += len;
                if position < BYTES {
                    continue;
                }
            }
            if let LogControl::Credit { granted: to, archived: until, .. } = socket.receive_log().await {
                (granted, archived) = (to, until);
            }
        }
        println!("archived after {:.2?}", began.elapsed());
    });
}
