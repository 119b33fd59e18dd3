//! Output from a log socket through the hub to readers and History, byte by byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

mod gateway;
#[path = "gateway/door.rs"]
mod door;

use std::sync::Arc;
use std::time::Duration;

use door::Door;
use futures_util::StreamExt;
use gateway::*;
use sentinel_core::stream::credit::CreditRules;
use sentinel_operator::gateway::routes;
use sentinel_operator::history::OutputSegment;
use sentinel_operator::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use sentinel_operator::logs::{Follow, HubRules, LogReader};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::{DropReason, LogControl, LogRecord};
use sentinel_protocol::to_agent::{Ack, ToAgent};
use sentinel_protocol::to_operator::{Inventory, Stage, ToOperator};

const ID: &str = "t/1/n/1";

/// An agent's side of the output of one Attempt: it sends within its credit, and again from `archived` on a new socket.
struct Outpour {
    socket: Agent,
    attempt: AttemptId,
    position: u64,
    granted: u64,
    archived: u64,
}

impl Outpour {
    async fn open(world: &World, agent: &Agent, oldest: u64) -> Self {
        let mut socket = world.log_socket(agent, "n").await;
        let attempt = attempt(ID);
        socket.say(&LogControl::Open { attempt: attempt.clone(), oldest }).await;
        let mut outpour = Self { socket, attempt, position: oldest, granted: 0, archived: 0 };
        outpour.hear().await;
        outpour.position = outpour.archived;
        outpour
    }

    async fn hear(&mut self) {
        match self.socket.hear_log().await {
            LogControl::Credit { granted, archived, .. } => {
                assert!(granted >= self.granted && archived >= self.archived, "credit went back");
                (self.granted, self.archived) = (granted, archived);
            }
            other => panic!("no credit but {other:?}"),
        }
    }

    /// Sends everything before `end`, in records of `size`.
    async fn pour(&mut self, end: u64, size: u64) {
        while self.position < end {
            let len = size.min(end - self.position).min(self.granted - self.position);
            if len == 0 {
                self.hear().await;
                continue;
            }
            self.socket.record(&self.attempt, &record(self.position, len)).await;
            self.position += len;
        }
    }

    async fn drain(&mut self, end: u64) {
        while self.archived < end {
            self.hear().await;
        }
    }
}

/// Reads to the end, and checks every byte and every position on the way.
async fn read(reader: &LogReader, from: u64, follow: Follow) -> u64 {
    let mut records = Box::pin(reader.open(attempt(ID), from, follow));
    let mut position = from;
    while let Some(record) = within("a record", records.next()).await {
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
async fn output_reaches_live_and_late_readers_whole_and_the_end_is_acknowledged_behind_it() {
    const END: u64 = 3 << 20;
    let world = world(Wishes::default()).await;
    let mut agent = world.agent("n").await;
    let live = tokio::spawn({
        let reader = world.reader.clone();
        async move { read(&reader, 0, Follow::Yes).await }
    });
    let mut outpour = Outpour::open(&world, &agent, 0).await;
    assert_eq!((outpour.granted, outpour.archived), (128 << 10, 0));
    outpour.pour(END / 2, 100_000).await;
    // The end is known before all output is here.
    agent.say(&ToOperator::Report(Box::new(report(ID, ended(END))))).await;
    let early = tokio::time::timeout(Duration::from_millis(300), agent.text()).await;
    assert!(early.is_err(), "acknowledged before its output is archived: {early:?}");
    outpour.pour(END, 100_000).await;
    outpour.drain(END).await;
    let ack = Ack { attempt: attempt(ID), stage: Stage::Ended };
    assert_eq!(agent.hear().await, ToAgent::Ack(ack));
    assert_eq!(within("the live reader ends", live).await.unwrap(), END);
    for from in [0, 1, END / 2 + 7, END - 1, END] {
        assert_eq!(read(&world.reader, from, Follow::No).await, END, "from {from}");
        assert_eq!(read(&world.reader, from, Follow::Yes).await, END, "from {from}");
    }
    assert_eq!(world.history.output_end(attempt(ID), 0).await.unwrap(), END);
    drop(outpour);
    eventually("all memory is given back", || {
        world.counter("sentinel_logs_held_bytes") == 0 && world.counter("sentinel_logs_reserved_bytes") == 0
    })
    .await;
}

#[tokio::test]
async fn what_is_sent_twice_is_taken_once_and_what_is_missing_closes_the_socket() {
    let world = world(Wishes::default()).await;
    let agent = world.agent("n").await;
    let mut outpour = Outpour::open(&world, &agent, 0).await;
    let id = attempt(ID);
    for (position, len) in [(0, 100), (0, 100), (50, 100), (10, 20), (149, 51)] {
        outpour.socket.record(&id, &record(position, len)).await;
    }
    outpour.drain(200).await;
    assert_eq!(read(&world.reader, 0, Follow::No).await, 200);
    outpour.socket.record(&id, &record(201, 5)).await;
    loop {
        match outpour.socket.hear_log().await {
            LogControl::Credit { .. } => {}
            LogControl::Refuse { refusal } => {
                assert!(refusal.to_string().contains("was expected at 200"), "{refusal}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.counter("sentinel_logs_gaps_total"), 1);
    let mut again = Outpour::open(&world, &agent, 0).await;
    assert!(again.archived <= 200, "{} was never archived", again.archived);
    again.pour(300, 100).await;
    again.drain(300).await;
    assert_eq!(read(&world.reader, 0, Follow::No).await, 300);
}

#[tokio::test]
async fn bad_words_on_the_log_socket_are_refused_by_name() {
    let world = world(Wishes { settings: hasty(), ..Wishes::default() }).await;
    let token = world.tokens.issue(&node_name("n"));
    let mut stranger = Agent::dial(world.addr, routes::LOGS_PATH, &token).await.unwrap();
    stranger.say(&LogControl::Hello { session: "nobody".parse().unwrap() }).await;
    assert!(stranger.text().await.unwrap().contains("Replaced"));
    let mut rude = Agent::dial(world.addr, routes::LOGS_PATH, &token).await.unwrap();
    rude.say(&LogControl::Open { attempt: attempt(ID), oldest: 0 }).await;
    assert!(rude.text().await.unwrap().contains("HelloExpected"));

    let opened = |id: &str| LogControl::Open { attempt: attempt(id), oldest: 0 };
    let beyond = record(0, (128 << 10) - 1);
    for (open, sent, words) in [
        ("t/1/other/1", None, "of another node"),
        (ID, Some((attempt("t/2/n/1"), record(0, 1))), "which was not opened"),
        (ID, Some((attempt(ID), record(5, 1))), "was expected at 0"),
    ] {
        let agent = world.agent("n").await;
        let mut socket = world.log_socket(&agent, "n").await;
        socket.say(&opened(open)).await;
        if let Some((id, record)) = sent {
            socket.record(&id, &record).await;
        }
        let mut said = socket.text().await.unwrap();
        if said.contains("Credit") {
            said = socket.text().await.unwrap();
        }
        assert!(said.contains(words), "{said} does not say {words:?}");
        assert_eq!(socket.text().await, None);
    }
    let agent = world.agent("n").await;
    let mut greedy = world.log_socket(&agent, "n").await;
    greedy.say(&opened(ID)).await;
    greedy.record(&attempt(ID), &beyond).await;
    greedy.record(&attempt(ID), &record((128 << 10) - 1, 64 << 10)).await;
    while let Some(said) = greedy.text().await {
        assert!(said.contains("Credit") || said.contains("beyond its credit"), "{said}");
    }
    let mut garbage = world.log_socket(&agent, "n").await;
    garbage.send(tokio_tungstenite::tungstenite::Message::Binary(vec![0xff; 10].into())).await;
    assert!(garbage.text().await.unwrap().contains("shorter than its head"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_history_is_away_output_waits_on_the_node_and_nothing_is_lost() {
    const END: u64 = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let inner =
        Arc::new(EmbeddedHistory::open(directory.path().join("h.db"), EmbeddedOptions::default()).unwrap());
    let door = Door::before(inner);
    let rules = HubRules {
        credit: CreditRules { pool: 256 << 10, min_window: 64 << 10, max_window: 128 << 10 },
        recent: 16 << 10,
    };
    let wishes = Wishes { history: Some(door.clone()), rules, ..Wishes::default() };
    let world = world(wishes).await;
    let mut agent = world.agent("n").await;
    let live = tokio::spawn({
        let reader = world.reader.clone();
        async move { read(&reader, 0, Follow::Yes).await }
    });
    door.close();
    let mut outpour = Outpour::open(&world, &agent, 0).await;
    let stuck = tokio::time::timeout(Duration::from_millis(700), outpour.pour(END, 20_000)).await;
    assert!(stuck.is_err(), "all of it was taken although nothing could be archived");
    assert!(outpour.position <= 128 << 10, "{} bytes were taken", outpour.position);
    assert!(world.counter("sentinel_logs_held_bytes") <= 256 << 10);
    // Heartbeats and results do not care.
    agent.say(&ToOperator::Inventory(Inventory { attempts: vec![], more: false })).await;
    door.open();
    within("the rest is taken", outpour.pour(END, 20_000)).await;
    within("all is archived", outpour.drain(END)).await;
    agent.say(&ToOperator::Report(Box::new(report(ID, ended(END))))).await;
    assert!(matches!(agent.hear().await, ToAgent::Ack(_)));
    assert_eq!(within("the live reader ends", live).await.unwrap(), END);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stands_still_holds_nobody_up_and_misses_nothing() {
    const END: u64 = 2 << 20;
    let rules = HubRules {
        credit: CreditRules { pool: 512 << 10, min_window: 64 << 10, max_window: 128 << 10 },
        recent: 16 << 10,
    };
    let world = world(Wishes { rules, ..Wishes::default() }).await;
    let mut agent = world.agent("n").await;
    let mut outpour = Outpour::open(&world, &agent, 0).await;
    outpour.pour(1000, 1000).await;
    let mut still = Box::pin(world.reader.open(attempt(ID), 0, Follow::Yes));
    let first = within("the first record", still.next()).await.unwrap().unwrap();
    within("nobody waits for the reader", outpour.pour(END, 50_000)).await;
    within("all is archived", outpour.drain(END)).await;
    agent.say(&ToOperator::Report(Box::new(report(ID, ended(END))))).await;
    let mut position = first.end();
    while let Some(record) = within("a record", still.next()).await {
        let record = record.unwrap();
        assert_eq!(record.head.position, position);
        position = record.end();
    }
    assert_eq!(position, END);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_get_every_byte_once_through_broken_sockets_and_an_archive_that_comes_and_goes() {
    const END: u64 = 600_000;
    for seed in 1..=4_u64 {
        // xorshift64: the same choices for the same seed.
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut any = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("h.db");
        let door = Door::before(Arc::new(EmbeddedHistory::open(file, EmbeddedOptions::default()).unwrap()));
        let rules = HubRules {
            credit: CreditRules { pool: 256 << 10, min_window: 16 << 10, max_window: 64 << 10 },
            recent: 8 << 10,
        };
        let world = world(Wishes { history: Some(door.clone()), rules, ..Wishes::default() }).await;
        let mut agent = world.agent("n").await;
        let readers: Vec<_> = [0, any(END), any(END)]
            .into_iter()
            .map(|from| {
                let reader = world.reader.clone();
                tokio::spawn(async move { read(&reader, from, Follow::Yes).await })
            })
            .collect();
        let mut outpour = Outpour::open(&world, &agent, 0).await;
        while outpour.position < END {
            let to = (outpour.position + 1 + any(80_000)).min(END);
            match any(8) {
                // The node may have let go of what it was told is archived.
                0 => outpour = Outpour::open(&world, &agent, outpour.archived).await,
                1 => door.close(),
                2 => door.open(),
                _ => {
                    let size = 1 + any(30_000);
                    let _ = tokio::time::timeout(Duration::from_millis(60), outpour.pour(to, size)).await;
                }
            }
        }
        door.open();
        agent.say(&ToOperator::Report(Box::new(report(ID, ended(END))))).await;
        within("all is archived", outpour.drain(END)).await;
        assert!(matches!(agent.hear().await, ToAgent::Ack(_)));
        for reader in readers {
            assert_eq!(within("a reader ends", reader).await.unwrap(), END, "seed {seed}");
        }
        assert_eq!(read(&world.reader, 0, Follow::No).await, END, "seed {seed}");
    }
}

#[tokio::test]
async fn when_memory_is_used_up_a_log_socket_is_closed_and_its_agent_keeps_the_output() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("h.db");
    let door = Door::before(Arc::new(EmbeddedHistory::open(file, EmbeddedOptions::default()).unwrap()));
    let credit = CreditRules { pool: 100 << 10, min_window: 64 << 10, max_window: 64 << 10 };
    let rules = HubRules { credit, recent: 0 };
    let world =
        world(Wishes { settings: hasty(), history: Some(door.clone()), rules, ..Wishes::default() }).await;
    door.close();
    let (a, b) = (world.agent("a").await, world.agent("b").await);
    let mut sockets = Vec::new();
    for (agent, node) in [(&a, "a"), (&b, "b")] {
        let id = attempt(&format!("t/1/{node}/1"));
        let mut socket = world.log_socket(agent, node).await;
        socket.say(&LogControl::Open { attempt: id.clone(), oldest: 0 }).await;
        assert!(matches!(socket.hear_log().await, LogControl::Credit { granted: 65_536, .. }));
        socket.record(&id, &record(0, 60 << 10)).await;
        sockets.push((socket, id));
    }
    let (second, id) = &mut sockets[1];
    assert_eq!(second.text().await, None);
    assert_eq!(world.counter("sentinel_logs_no_room_total"), 1);
    assert!(world.counter("sentinel_logs_held_bytes") <= 100 << 10);
    door.open();
    eventually("memory is given back", || world.counter("sentinel_logs_held_bytes") == 0).await;
    let mut again = world.log_socket(&b, "b").await;
    again.say(&LogControl::Open { attempt: id.clone(), oldest: 0 }).await;
    again.record(id, &record(0, 60 << 10)).await;
    loop {
        if matches!(again.hear_log().await, LogControl::Credit { archived: 61_440, .. }) {
            break;
        }
    }
}

#[tokio::test]
async fn a_hole_is_shown_in_place_whether_the_node_says_so_or_the_archive_has_lost_it() {
    let world = world(Wishes::default()).await;
    let mut agent = world.agent("n").await;
    let id = attempt(ID);
    let mut dropped = record(100, 1);
    dropped.head.len = 50;
    dropped.head.dropped = Some(DropReason::SpoolFull);
    dropped.data.clear();
    let mut outpour = Outpour::open(&world, &agent, 0).await;
    outpour.socket.record(&id, &record(0, 100)).await;
    outpour.socket.record(&id, &dropped).await;
    outpour.socket.record(&id, &record(150, 50)).await;
    outpour.drain(200).await;
    // History is put back to an older state: what lies between is gone for good.
    let behind: Vec<LogRecord> = vec![record(300, 100)];
    let segment = OutputSegment::pack(id.clone(), &behind).unwrap();
    world.history.append_output(vec![segment]).await.unwrap();
    drop(outpour);
    eventually("the socket is gone", || world.counter("sentinel_gateway_log_sockets") == 0).await;
    let before: Vec<_> = collect(&world.reader, Follow::No).await;
    assert_eq!(before, [(0, 100, None), (100, 150, Some(DropReason::SpoolFull)), (150, 200, None)]);
    agent.say(&ToOperator::Report(Box::new(report(ID, ended(400))))).await;
    agent.say(&ToOperator::Inventory(Inventory { attempts: vec![], more: false })).await;
    // Its agent says it owns it no more, so nobody will fill the hole.
    let newer = world.agent("n").await;
    eventually("it is let go of", || world.registry.has_let_go(&id)).await;
    world.history.record(vec![ended_entry(400)]).await.unwrap();
    let after: Vec<_> = collect(&world.reader, Follow::Yes).await;
    assert_eq!(after[2..], [(150, 200, None), (200, 300, Some(DropReason::Unreadable)), (300, 400, None)]);
    drop(newer);
}

fn ended_entry(end: u64) -> sentinel_operator::history::Entry {
    use sentinel_operator::history::{AttemptRecord, Entry, Source};
    use sentinel_protocol::to_operator::ReportedState;
    let ReportedState::Ended(facts) = ended(end) else { unreachable!("ended") };
    Entry::Attempt(Box::new(AttemptRecord {
        attempt: attempt(ID),
        namespace: "ops".into(),
        name: "job".into(),
        run_started_at: sentinel_protocol::time::UnixMillis(1),
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
        source: Source::Agent,
        epoch: sentinel_protocol::ids::Epoch::from(1),
    }))
}

async fn collect(reader: &LogReader, follow: Follow) -> Vec<(u64, u64, Option<DropReason>)> {
    let mut seen = Vec::new();
    let mut records = Box::pin(reader.open(attempt(ID), 0, follow));
    while let Some(record) = within("a record", records.next()).await {
        let record = record.unwrap();
        seen.push((record.head.position, record.end(), record.head.dropped));
    }
    seen
}
