//! Output from a log socket through the hub to readers and History, byte for byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

mod gateway;
#[path = "gateway/gated_history.rs"]
mod gated_history;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use gated_history::GatedHistory;
use gateway::*;
use sentinel_core::stream::credit::CreditRules;
use sentinel_operator::gateway::routes;
use sentinel_operator::history::OutputSegment;
use sentinel_operator::history::archive::ArchiverOptions;
use sentinel_operator::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use sentinel_operator::logs::{Follow, HubRules, LogReader};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::{DropReason, LogControl, LogRecord};
use sentinel_protocol::stage::Stage;
use sentinel_protocol::to_agent::{Ack, ToAgent};
use sentinel_protocol::to_operator::{Inventory, ToOperator};

const ID: &str = "t/1/n/1";

/// The agent's side of the output of one Attempt: it sends within its Credit, and from `archived` on a new socket.
struct OutputSender {
    socket: Agent,
    attempt: AttemptId,
    position: u64,
    granted: u64,
    archived: u64,
}

impl OutputSender {
    async fn open(world: &World, agent: &ServicedAgent, oldest: u64) -> Self {
        let mut socket = world.log_socket_of(agent.session(), "n").await;
        let attempt = attempt(ID);
        socket.send_json(&LogControl::Open { attempt: attempt.clone(), oldest }).await;
        let mut sender = Self { socket, attempt, position: oldest, granted: 0, archived: 0 };
        sender.receive_credit().await;
        sender.position = sender.archived;
        sender
    }

    async fn receive_credit(&mut self) {
        match self.socket.receive_log().await {
            LogControl::Credit { attempt, granted, archived, .. } if attempt == self.attempt => {
                assert!(granted >= self.granted && archived >= self.archived, "credit decreased");
                (self.granted, self.archived) = (granted, archived);
            }
            other => panic!("expected Credit, received {other:?}"),
        }
    }

    /// Sends everything up to `end`, in records of `size`.
    async fn send_until(&mut self, end: u64, size: u64) {
        while self.position < end {
            if self.send_record(end, size).await == 0 {
                self.receive_credit().await;
            }
        }
    }

    /// Sends a record of `size`, or as much of it as Credit and `end` allow.
    async fn send_record(&mut self, end: u64, size: u64) -> u64 {
        let len = size.min(end - self.position).min(self.granted - self.position);
        if len > 0 {
            self.socket.record(&self.attempt, &record(self.position, len)).await;
            self.position += len;
        }
        len
    }

    /// Sends until the gateway grants no more Credit. Opening another Attempt is the barrier: its Credit is computed
    /// together with that of this one, after all records that were sent before.
    async fn send_all_credit(&mut self, end: u64, size: u64) {
        for barrier in 1.. {
            while self.send_record(end, size).await > 0 {}
            let granted = self.granted;
            let barrier = attempt(&format!("barrier/{barrier}/n/1"));
            self.socket.send_json(&LogControl::Open { attempt: barrier.clone(), oldest: 0 }).await;
            loop {
                match self.socket.receive_log().await {
                    LogControl::Credit { attempt, .. } if attempt == barrier => break,
                    LogControl::Credit { attempt, granted, .. } if attempt == self.attempt => {
                        self.granted = granted;
                    }
                    LogControl::Credit { .. } => {}
                    other => panic!("expected Credit, received {other:?}"),
                }
            }
            if self.granted == granted {
                return;
            }
        }
    }

    async fn await_archived(&mut self, end: u64) {
        while self.archived < end {
            self.receive_credit().await;
        }
    }
}

/// Reads to the end, and checks every byte and position.
async fn read(reader: &LogReader, from: u64, follow: Follow) -> u64 {
    let mut records = Box::pin(reader.open(attempt(ID), from, follow));
    let mut position = from;
    while let Some(record) = within("a record is read", records.next()).await {
        let record = record.unwrap();
        assert_eq!(record.head.position, position, "a gap or a repeat");
        for (at, seen) in (position..).zip(&record.data[..]) {
            assert_eq!(*seen, byte(at), "another byte at {at}");
        }
        position = record.end();
    }
    position
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledges_an_end_only_when_all_of_its_output_is_archived() {
    const END: u64 = 3 << 20;
    let world = world(Setup::default()).await;
    let mut agent = ServicedAgent::new(world.agent("n").await);
    let live = tokio::spawn({
        let reader = world.reader.clone();
        async move { read(&reader, 0, Follow::Yes).await }
    });
    let mut sender = OutputSender::open(&world, &agent, 0).await;
    assert_eq!((sender.granted, sender.archived), (128 << 10, 0));
    sender.send_until(END / 2, 100_000).await;
    // The end is reported before all output has arrived.
    agent.send_json(&ToOperator::Report(Box::new(report(ID, ended(END))))).await;
    // The archiver confirms records in order, and Acks are sent in order: if the Ack did not wait for the output, it
    // would arrive before that of the next result, which has none.
    agent.send_json(&ToOperator::Report(Box::new(report("t/2/n/1", ended(0))))).await;
    let next = Ack { attempt: attempt("t/2/n/1"), stage: Stage::Ended };
    assert_eq!(agent.receive().await, ToAgent::Ack(next), "acknowledged before its output is archived");
    assert_eq!(world.history.attempt(attempt(ID)).await.unwrap().unwrap().stage, Stage::Ended);
    sender.send_until(END, 100_000).await;
    sender.await_archived(END).await;
    let ack = Ack { attempt: attempt(ID), stage: Stage::Ended };
    assert_eq!(agent.receive().await, ToAgent::Ack(ack));
    assert_eq!(within("the live reader ends", live).await.unwrap(), END);
    for from in [0, 1, END / 2 + 7, END - 1, END] {
        assert_eq!(read(&world.reader, from, Follow::No).await, END, "from {from}");
        assert_eq!(read(&world.reader, from, Follow::Yes).await, END, "from {from}");
    }
    assert_eq!(world.history.output_end(attempt(ID), 0).await.unwrap(), END);
    drop(sender);
    eventually("all memory is released", || {
        world.counter("sentinel_logs_held_bytes") == 0 && world.counter("sentinel_logs_reserved_bytes") == 0
    })
    .await;
}

#[tokio::test]
async fn ignores_repeated_output_and_closes_the_socket_at_a_gap() {
    let world = world(Setup::default()).await;
    let agent = ServicedAgent::new(world.agent("n").await);
    let mut sender = OutputSender::open(&world, &agent, 0).await;
    let id = attempt(ID);
    for (position, len) in [(0, 100), (0, 100), (50, 100), (10, 20), (149, 51)] {
        sender.socket.record(&id, &record(position, len)).await;
    }
    sender.await_archived(200).await;
    assert_eq!(read(&world.reader, 0, Follow::No).await, 200);
    sender.socket.record(&id, &record(201, 5)).await;
    loop {
        match sender.socket.receive_log().await {
            LogControl::Credit { .. } => {}
            LogControl::Refuse { refusal } => {
                assert!(refusal.to_string().contains("was expected at 200"), "{refusal}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.counter("sentinel_logs_gaps_total"), 1);
    let mut again = OutputSender::open(&world, &agent, 0).await;
    assert!(again.archived <= 200, "{} was never archived", again.archived);
    again.send_until(300, 100).await;
    again.await_archived(300).await;
    assert_eq!(read(&world.reader, 0, Follow::No).await, 300);
}

#[tokio::test]
async fn refuses_invalid_messages_on_the_log_socket() {
    let world = world(Setup { settings: short_timeouts(), ..Setup::default() }).await;
    let token = world.tokens.issue(&node_name("n"));
    let mut stranger = Agent::dial(world.addr, routes::LOGS_PATH, &token).await.unwrap();
    stranger.send_json(&LogControl::Hello { session: "unknown".parse().unwrap() }).await;
    assert!(stranger.text().await.unwrap().contains("Replaced"));
    let mut hasty = Agent::dial(world.addr, routes::LOGS_PATH, &token).await.unwrap();
    hasty.send_json(&LogControl::Open { attempt: attempt(ID), oldest: 0 }).await;
    assert!(hasty.text().await.unwrap().contains("HelloExpected"));

    let opened = |id: &str| LogControl::Open { attempt: attempt(id), oldest: 0 };
    let beyond = record(0, (128 << 10) - 1);
    for (open, sent, text) in [
        ("t/1/other/1", None, "of another node"),
        (ID, Some((attempt("t/2/n/1"), record(0, 1))), "which was not opened"),
        (ID, Some((attempt(ID), record(5, 1))), "was expected at 0"),
    ] {
        let agent = world.agent("n").await;
        let mut socket = world.log_socket(&agent, "n").await;
        socket.send_json(&opened(open)).await;
        if let Some((id, record)) = sent {
            socket.record(&id, &record).await;
        }
        let mut message = socket.text().await.unwrap();
        if message.contains("Credit") {
            message = socket.text().await.unwrap();
        }
        assert!(message.contains(text), "{message} does not contain {text:?}");
        assert_eq!(socket.text().await, None);
    }
    let agent = world.agent("n").await;
    let mut greedy = world.log_socket(&agent, "n").await;
    greedy.send_json(&opened(ID)).await;
    greedy.record(&attempt(ID), &beyond).await;
    greedy.record(&attempt(ID), &record((128 << 10) - 1, 64 << 10)).await;
    while let Some(message) = greedy.text().await {
        assert!(message.contains("Credit") || message.contains("beyond its credit"), "{message}");
    }
    let mut garbage = world.log_socket(&agent, "n").await;
    garbage.send(tokio_tungstenite::tungstenite::Message::Binary(vec![0xff; 10].into())).await;
    assert!(garbage.text().await.unwrap().contains("shorter than its head"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_waits_on_the_node_while_history_is_unavailable() {
    const END: u64 = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let inner =
        Arc::new(EmbeddedHistory::open(directory.path().join("h.db"), EmbeddedOptions::default()).unwrap());
    let gate = GatedHistory::new(inner);
    let rules = HubRules {
        credit: CreditRules { pool: 256 << 10, min_window: 64 << 10, max_window: 128 << 10 },
        recent: 16 << 10,
    };
    let setup = Setup { history: Some(gate.clone()), rules, ..Setup::default() };
    let world = world(setup).await;
    let mut agent = ServicedAgent::new(world.agent("n").await);
    let live = tokio::spawn({
        let reader = world.reader.clone();
        async move { read(&reader, 0, Follow::Yes).await }
    });
    gate.close();
    let mut sender = OutputSender::open(&world, &agent, 0).await;
    within("credit is exhausted", sender.send_all_credit(END, 20_000)).await;
    assert!(sender.position <= 128 << 10, "{} bytes were accepted", sender.position);
    assert!(world.counter("sentinel_logs_held_bytes") <= 256 << 10);
    // The control socket is not affected.
    agent
        .send_json(&ToOperator::Inventory(Inventory { attempts: vec![], more: false, sealing_key: None }))
        .await;
    gate.open();
    within("the rest is accepted", sender.send_until(END, 20_000)).await;
    within("all is archived", sender.await_archived(END)).await;
    agent.send_json(&ToOperator::Report(Box::new(report(ID, ended(END))))).await;
    assert!(matches!(agent.receive().await, ToAgent::Ack(_)));
    assert_eq!(within("the live reader ends", live).await.unwrap(), END);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_reader_delays_nothing_and_misses_nothing() {
    const END: u64 = 2 << 20;
    let rules = HubRules {
        credit: CreditRules { pool: 512 << 10, min_window: 64 << 10, max_window: 128 << 10 },
        recent: 16 << 10,
    };
    let world = world(Setup { rules, ..Setup::default() }).await;
    let agent = ServicedAgent::new(world.agent("n").await);
    let mut sender = OutputSender::open(&world, &agent, 0).await;
    sender.send_until(1000, 1000).await;
    let mut stalled = Box::pin(world.reader.open(attempt(ID), 0, Follow::Yes));
    let first = within("the first record", stalled.next()).await.unwrap().unwrap();
    within("output is accepted", sender.send_until(END, 50_000)).await;
    within("all is archived", sender.await_archived(END)).await;
    agent.send_json(&ToOperator::Report(Box::new(report(ID, ended(END))))).await;
    let mut position = first.end();
    while let Some(record) = within("a record is read", stalled.next()).await {
        let record = record.unwrap();
        assert_eq!(record.head.position, position);
        position = record.end();
    }
    assert_eq!(position, END);
}

/// xorshift64: the same choices for the same seed.
struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Sends everything up to `end`, with outages of History and new sockets at random.
async fn send_despite_faults(
    world: &World,
    agent: &ServicedAgent,
    gate: &GatedHistory,
    choices: &mut Choices,
    end: u64,
) -> OutputSender {
    let mut sender = OutputSender::open(world, agent, 0).await;
    let mut is_available = true;
    while sender.position < end {
        let to = (sender.position + 1 + choices.below(80_000)).min(end);
        match choices.below(8) {
            // A node may delete what it received as archived.
            0 => sender = OutputSender::open(world, agent, sender.archived).await,
            1 => {
                is_available = false;
                gate.close();
            }
            2 => {
                is_available = true;
                gate.open();
            }
            _ => {
                let size = 1 + choices.below(30_000);
                while sender.position < to {
                    if sender.send_record(to, size).await == 0 {
                        if !is_available {
                            break;
                        }
                        sender.receive_credit().await;
                    }
                }
            }
        }
    }
    gate.open();
    sender
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_get_every_byte_once_despite_broken_sockets_and_outages() {
    const END: u64 = 600_000;
    let rules = HubRules {
        credit: CreditRules { pool: 256 << 10, min_window: 16 << 10, max_window: 64 << 10 },
        recent: 8 << 10,
    };
    // The outages are short. A back-off of seconds would miss every chance between them.
    let (retry_min, retry_max) = (Duration::from_millis(1), Duration::from_millis(20));
    for seed in 1..=4_u64 {
        let mut choices = Choices(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("h.db");
        let store = EmbeddedHistory::open(file, EmbeddedOptions::default()).unwrap();
        let gate = GatedHistory::new(Arc::new(store));
        let archiver = ArchiverOptions { retry_min, retry_max, ..ArchiverOptions::default() };
        let setup = Setup { history: Some(gate.clone()), rules, archiver, ..Setup::default() };
        let world = world(setup).await;
        let mut agent = ServicedAgent::new(world.agent("n").await);
        let readers = [0, choices.below(END), choices.below(END)].map(|from| {
            let reader = world.reader.clone();
            tokio::spawn(async move { read(&reader, from, Follow::Yes).await })
        });
        let mut sender = send_despite_faults(&world, &agent, &gate, &mut choices, END).await;
        agent.send_json(&ToOperator::Report(Box::new(report(ID, ended(END))))).await;
        within("all is archived", sender.await_archived(END)).await;
        assert!(matches!(agent.receive().await, ToAgent::Ack(_)));
        for reader in readers {
            assert_eq!(within("a reader ends", reader).await.unwrap(), END, "seed {seed}");
        }
        assert_eq!(read(&world.reader, 0, Follow::No).await, END, "seed {seed}");
    }
}

#[tokio::test]
async fn closes_a_log_socket_when_memory_is_exhausted() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("h.db");
    let gate = GatedHistory::new(Arc::new(EmbeddedHistory::open(file, EmbeddedOptions::default()).unwrap()));
    let credit = CreditRules { pool: 100 << 10, min_window: 64 << 10, max_window: 64 << 10 };
    let rules = HubRules { credit, recent: 0 };
    let world =
        world(Setup { settings: short_timeouts(), history: Some(gate.clone()), rules, ..Setup::default() })
            .await;
    gate.close();
    let (a, b) = (world.agent("a").await, world.agent("b").await);
    let mut sockets = Vec::new();
    for (agent, node) in [(&a, "a"), (&b, "b")] {
        let id = attempt(&format!("t/1/{node}/1"));
        let mut socket = world.log_socket(agent, node).await;
        socket.send_json(&LogControl::Open { attempt: id.clone(), oldest: 0 }).await;
        assert!(matches!(socket.receive_log().await, LogControl::Credit { granted: 65_536, .. }));
        socket.record(&id, &record(0, 60 << 10)).await;
        sockets.push((socket, id));
    }
    let (second, id) = &mut sockets[1];
    assert_eq!(second.text().await, None);
    assert_eq!(world.counter("sentinel_logs_no_room_total"), 1);
    assert!(world.counter("sentinel_logs_held_bytes") <= 100 << 10);
    gate.open();
    eventually("memory is released", || world.counter("sentinel_logs_held_bytes") == 0).await;
    let mut again = world.log_socket(&b, "b").await;
    again.send_json(&LogControl::Open { attempt: id.clone(), oldest: 0 }).await;
    again.record(id, &record(0, 60 << 10)).await;
    loop {
        if matches!(again.receive_log().await, LogControl::Credit { archived: 61_440, .. }) {
            break;
        }
    }
}

#[tokio::test]
async fn shows_a_gap_in_place_whether_node_or_archive_lost_the_output() {
    let world = world(Setup::default()).await;
    let agent = ServicedAgent::new(world.agent("n").await);
    let id = attempt(ID);
    let mut dropped = record(100, 1);
    dropped.head.len = 50;
    dropped.head.dropped = Some(DropReason::SpoolFull);
    dropped.data.clear();
    let mut sender = OutputSender::open(&world, &agent, 0).await;
    sender.socket.record(&id, &record(0, 100)).await;
    sender.socket.record(&id, &dropped).await;
    sender.socket.record(&id, &record(150, 50)).await;
    sender.await_archived(200).await;
    // History was restored from an older state: the output in between is lost.
    let behind: Vec<LogRecord> = vec![record(300, 100)];
    let segment = OutputSegment::pack(id.clone(), &behind).unwrap();
    world.history.append_output(vec![segment]).await.unwrap();
    drop(sender);
    eventually("the socket is closed", || world.counter("sentinel_gateway_log_sockets") == 0).await;
    let before: Vec<_> = collect(&world.reader, Follow::No).await;
    assert_eq!(before, [(0, 100, None), (100, 150, Some(DropReason::SpoolFull)), (150, 200, None)]);
    agent.send_json(&ToOperator::Report(Box::new(report(ID, ended(400))))).await;
    agent
        .send_json(&ToOperator::Inventory(Inventory { attempts: vec![], more: false, sealing_key: None }))
        .await;
    // Its agent no longer owns it, so the gap stays.
    let newer = world.agent("n").await;
    eventually("it is released", || world.registry.is_released(&id)).await;
    world.history.record(vec![ended_entry(400)]).await.unwrap();
    let after: Vec<_> = collect(&world.reader, Follow::Yes).await;
    assert_eq!(after[2..], [(150, 200, None), (200, 300, Some(DropReason::Unreadable)), (300, 400, None)]);
    drop(newer);
}

fn ended_entry(end: u64) -> sentinel_operator::history::HistoryRecord {
    use sentinel_operator::history::{AttemptRecord, HistoryRecord, RecordSource};
    use sentinel_protocol::to_operator::ReportedState;
    let ReportedState::Ended(facts) = ended(end) else { unreachable!("ended") };
    HistoryRecord::Attempt(Box::new(AttemptRecord {
        attempt: attempt(ID),
        namespace: "ops".into(),
        name: "job".into(),
        run_started_at: sentinel_protocol::time::UnixMillis(1),
        trigger: None,
        spec_hash: spec_hash(),
        command: "true".into(),
        environment: sentinel_protocol::request::Environment::Container,
        stage: Stage::Ended,
        started_at: None,
        ended_at: Some(facts.ended_at),
        outcome: Some(facts.outcome),
        usage: facts.usage,
        output: facts.output,
        exit: facts.exit,
        source: RecordSource::Agent,
        epoch: sentinel_protocol::ids::Epoch::from(1),
    }))
}

async fn collect(reader: &LogReader, follow: Follow) -> Vec<(u64, u64, Option<DropReason>)> {
    let mut seen = Vec::new();
    let mut records = Box::pin(reader.open(attempt(ID), 0, follow));
    while let Some(record) = within("a record is read", records.next()).await {
        let record = record.unwrap();
        seen.push((record.head.position, record.end(), record.head.dropped));
    }
    seen
}
