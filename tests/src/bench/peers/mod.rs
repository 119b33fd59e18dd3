//! The same work by two peers, by us, and by the plainest programs: in turn, in one run, in one table.
//!
//! The peers are a socket.io master with its workers, and workers of a NATS broker; `tests/bench-peers` has them. All of them
//! run the same command, and a time is what the command printed less the clock of the client when it asked.

mod comparison;
mod peer;

use std::process::Command;
use std::time::Duration;

use sentinel_protocol::limits::HEARTBEAT_MS;

use comparison::{Comparison, Measured};
use peer::{Library, Peer};

use super::dispatch::{AgentAlone, Whole};
use super::fanout::FanOut;
use super::figures::{Times, median};
use super::limits::{self, Echoes, Flow, Spawner};
use super::output::{self, BYTES};
use super::progress::note;
use super::setup::{Setup, node_names};
use super::table::{Better, Table};
use crate::cluster::repository;
use crate::memory::rss;

/// Rounds in turn, and commands of each.
const ROUNDS: usize = 5;
const STARTS: usize = 100;

/// A command alone on the machine: what follows from the one before is done.
const APART: Duration = Duration::from_millis(30);
const APART_ROUNDS: usize = 2;

/// Commands that do not count.
const WARM_UP: usize = 20;

/// Gigabytes of output of each.
const FLOWS: usize = 3;

pub(super) async fn measure(table: &mut Table) {
    let installed = Command::new(repository().join("tests/parts/install")).arg("peers").status();
    assert!(installed.expect("the script starts").success(), "the peers could not be installed");
    let mut comparison = Comparison::of(peer::versions());
    starts(&mut comparison).await;
    for (workers, rounds) in [(100, 20), (1000, 8)] {
        fan_out(&mut comparison, workers, rounds).await;
    }
    flows(&mut comparison).await;
    table.beside(comparison.lines(), comparison.portable());
}

async fn starts(comparison: &mut Comparison) {
    note("peers: a command, from the request to the start of the process");
    let (mut socketio, mut nats) = (Peer::start(Library::SocketIo).await, Peer::start(Library::Nats).await);
    for peer in [&mut socketio, &mut nats] {
        peer.worker().await;
        peer.starts(WARM_UP, Duration::ZERO).await;
    }
    let (mut spawner, mut alone, mut whole) =
        (Spawner::connect().await, AgentAlone::start().await, Whole::start().await);
    for (what, rounds, pause) in [
        ("request → process start", ROUNDS, Duration::ZERO),
        ("request → process start, 30 ms apart", APART_ROUNDS, APART),
    ] {
        let mut times: [Vec<Duration>; 5] = Default::default();
        for _ in 0..rounds {
            times[0].extend(socketio.starts(STARTS, pause).await);
            times[1].extend(nats.starts(STARTS, pause).await);
            times[2].extend(whole.times(STARTS, pause).await);
            times[3].extend(spawner.starts(STARTS, pause).await);
            times[4].extend(alone.times(STARTS, pause).await);
        }
        let [socketio_times, nats_times, ours, floor, agent] = times.map(Times::of);
        let measured = Measured::of(socketio_times, nats_times, ours, floor);
        comparison.times(what, measured);
        comparison.times(
            &format!("  {what}: our agent alone"),
            Measured { peers: None, ours: agent, floor: Some(floor) },
        );
    }
    spawner.end().await;
    whole.end().await;
    for peer in [socketio, nats] {
        peer.end().await;
    }
}

async fn fan_out(comparison: &mut Comparison, workers: usize, rounds: usize) {
    note(&format!("peers: {workers} agents"));
    let (mut socketio, mut nats) = (Peer::start(Library::SocketIo).await, Peer::start(Library::Nats).await);
    let setup = Setup::new(&node_names(workers)).await;
    let pids = [socketio.pid(), nats.pid(), setup.operator.pid()];
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = pids.map(rss);
    let mut ours = FanOut::on(setup).await;
    for peer in [&mut socketio, &mut nats] {
        peer.fakes(workers).await;
    }
    // Each has sent a heartbeat.
    tokio::time::sleep(Duration::from_millis(HEARTBEAT_MS + 500)).await;
    let after = pids.map(rss);
    let each = |at: usize| (after[at] as f64 - before[at] as f64) / 1024.0 / workers as f64;
    let memory = Measured { peers: Some([each(0), each(1)]), ours: each(2), floor: None };
    let mut echoes = Echoes::connect(workers).await;
    let mut times: [Vec<Duration>; 4] = Default::default();
    for peer in [&mut socketio, &mut nats] {
        peer.fan_out(1, workers).await;
    }
    ours.times(1).await;
    for _ in 0..ROUNDS {
        times[0].extend(socketio.fan_out(rounds, workers).await);
        times[1].extend(nats.fan_out(rounds, workers).await);
        times[2].extend(ours.times(rounds).await);
        times[3].extend(echoes.times(rounds).await);
    }
    let [socketio_times, nats_times, ours_times, floor] = times.map(Times::of);
    let measured = Measured::of(socketio_times, nats_times, ours_times, floor);
    comparison.times(&format!("{workers} simulated agents, all ended"), measured);
    // With fewer, what a process allocates in advance is too large a part of it.
    if workers >= 1000 {
        comparison.number(&format!("a connected agent of {workers}, RSS"), "KiB", Better::Lower, memory);
    }
    echoes.end().await;
    ours.end().await;
    for peer in [socketio, nats] {
        peer.end().await;
    }
}

async fn flows(comparison: &mut Comparison) {
    let command = format!("yes | head -c {BYTES}");
    let (mut socketio, mut nats) = (Peer::start(Library::SocketIo).await, Peer::start(Library::Nats).await);
    for peer in [&mut socketio, &mut nats] {
        peer.worker().await;
    }
    let mut flows: [Vec<Flow>; 4] = Default::default();
    for round in 1..=FLOWS {
        note(&format!("peers: a gigabyte of output, round {round} of {FLOWS}"));
        flows[0].push(socketio.output(&command, BYTES).await);
        flows[1].push(nats.output(&command, BYTES).await);
        flows[2].push(output::ours(&command).await.flow);
        flows[3].push(limits::copy(&command, BYTES).await);
    }
    let of = |figure: fn(&Flow) -> f64| {
        let [socketio, nats, ours, floor] =
            flows.each_ref().map(|flows| median(flows.iter().map(figure).collect()));
        Measured::of(socketio, nats, ours, floor)
    };
    let rate = of(|flow| flow.megabytes_per_second);
    comparison.number("output to a reader", "MB/s", Better::Higher, rate);
    let work = of(|flow| flow.cpu_seconds_per_gigabyte);
    comparison.number("processor time for it, all but command and reader", "s/GB", Better::Lower, work);
    for peer in [socketio, nats] {
        peer.end().await;
    }
}
