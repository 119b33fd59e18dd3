//! Control sockets over real loopback connections: good agents, bad agents, and those that are none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

mod gateway;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use gateway::*;
use sentinel_core::reconcile::orphan::Owner;
use sentinel_operator::controller::Fleet;
use sentinel_operator::gateway::{AgentIdentity, AuthError, Authenticate, routes, strays};
use sentinel_operator::history::Source;
use sentinel_protocol::ids::{Epoch, RunNumber, TaskRef};
use sentinel_protocol::metrics::{DiskMetrics, NodeMetrics};
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::request::{
    Deadlines, Environment, Leftovers, OutputRules, Program, ResourceLimits, RunRequest,
};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Ack, Cancel, Forget, Start, ToAgent};
use sentinel_protocol::to_operator::{
    Heartbeat, Inventory, Refused, ReportedState, Running, Stage, ToOperator,
};
use sentinel_protocol::version::Version;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

/// One raw HTTP exchange: everything the gateway answers.
async fn raw(world: &World, request: &str) -> String {
    let mut stream = TcpStream::connect(world.addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = within("an answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn upgrade(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{more}\r\n"
    )
}

#[tokio::test]
async fn a_request_without_a_good_token_is_refused_with_a_reason() {
    let world = world(Wishes::default()).await;
    for path in [routes::CONTROL_PATH, routes::LOGS_PATH] {
        for (header, reason) in [
            ("", "Missing"),
            ("Authorization: Bearer \r\n", "Malformed"),
            ("Authorization: Basic abc\r\n", "Malformed"),
            ("Authorization: Bearer a\r\nAuthorization: Bearer a\r\n", "Malformed"),
            ("Authorization: Bearer wrong\r\n", "Invalid"),
        ] {
            let answer = raw(&world, &upgrade(path, header)).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{header:?}: {answer}");
            assert!(answer.contains(&format!("\"reason\":\"{reason}\"")), "{header:?}: {answer}");
        }
    }
    assert_eq!(world.counter("sentinel_gateway_refused_total{reason=\"Malformed\"}"), 6);
}

#[tokio::test]
async fn what_is_no_websocket_is_told_so() {
    let world = world(Wishes::default()).await;
    let token = world.tokens.issue(&node_name("n"));
    let auth = format!("Authorization: Bearer {token}\r\n");
    let plain = format!("GET /agent/v1/control HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{auth}\r\n");
    let answer = raw(&world, &plain).await;
    assert!(answer.starts_with("HTTP/1.1 426 ") && answer.contains("WebSocket"), "{answer}");
    let old = upgrade(routes::CONTROL_PATH, &auth).replace("Version: 13", "Version: 8");
    assert!(raw(&world, &old).await.starts_with("HTTP/1.1 426 "));
    let keyless = upgrade(routes::CONTROL_PATH, &auth).replace("AAAAAAAAAAAAAAAAAAAAAA==", "x");
    assert!(raw(&world, &keyless).await.starts_with("HTTP/1.1 400 "));
    assert!(raw(&world, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    let elsewhere = upgrade("/agent/v2/control", &auth);
    assert!(raw(&world, &elsewhere).await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn an_agent_is_welcomed_and_counts_once_it_has_said_what_it_owns() {
    let world = world(Wishes::default()).await;
    world.registry.set_epoch(Epoch::from(7));
    let name = node_name("n-1");
    let mut agent = world.dial("n-1").await;
    agent.say(&ToOperator::Hello(hello())).await;
    let welcome = agent.expect_welcome().await;
    assert_eq!(
        (welcome.version, welcome.epoch, welcome.heartbeat_ms, welcome.dead_after_ms),
        (Version(1), Epoch::from(7), 5000, 15_000)
    );
    let view = world.registry.agent(&name).unwrap();
    assert_eq!(view.session.unwrap().session, welcome.session);
    assert_eq!(world.registry.standing(&name).0, None, "not before its inventory");
    let running =
        |id: &str| report(id, ReportedState::Running(Running { started_at: UnixMillis(1), pid: 9 }));
    let part = |attempts, more| ToOperator::Inventory(Inventory { attempts, more });
    agent.say(&part(vec![running("t/1/n-1/1")], true)).await;
    agent.say(&part(vec![running("u/1/n-1/1")], false)).await;
    eventually("the session stands", || world.registry.standing(&name).0.is_some()).await;
    let told = world.books.told();
    let whole = Word::Inventory(name.clone(), vec![attempt("t/1/n-1/1"), attempt("u/1/n-1/1")]);
    assert!(told.contains(&whole), "{told:?}");
    let owned = world.registry.owned_of(&"t".parse().unwrap());
    assert_eq!((owned.len(), owned[0].reports.len()), (1, 1));
}

#[tokio::test]
async fn bad_first_messages_are_refused_by_name() {
    let world = world(Wishes { settings: hasty(), ..Wishes::default() }).await;
    let beat = Heartbeat { at: UnixMillis(0), metrics: NodeMetrics::default() };
    let newer = {
        let mut hello = hello();
        hello.versions = vec![Version(9)];
        hello
    };
    let text = |text: &str| Message::Text(text.into());
    let json = |message: &ToOperator| text(&serde_json::to_string(message).unwrap());
    for (first, words) in [
        (json(&ToOperator::Heartbeat(beat)), "the first message must be Hello"),
        (json(&ToOperator::Hello(newer)), "the operator speaks 1"),
        (Message::Binary(vec![1, 2, 3].into()), "the first message must be Hello"),
        (text("{\"kind\":\"Hello\"}"), "missing field"),
        (text("not json"), "not a message"),
        (text(&"[".repeat(100_000)), "not a message"),
        (text(&format!("\"{}\"", "x".repeat(1 << 20))), "too long"),
    ] {
        let mut agent = world.dial("n").await;
        // The gateway may refuse a frame before all of it was sent.
        let _ = futures_util::SinkExt::send(&mut agent.socket, first).await;
        agent.expect_refusal(words).await;
    }
    assert!(world.registry.agent(&node_name("n")).is_none());
}

#[tokio::test]
async fn half_a_frame_or_nothing_at_all_is_given_up_on() {
    let world = world(Wishes { settings: hasty(), ..Wishes::default() }).await;
    let mut silent = world.dial("n").await;
    assert_eq!(silent.text().await, None);
    let mut half = world.dial("n").await;
    // The head of a masked text frame of 100 bytes, and 3 of them.
    half.socket.get_mut().write_all(&[0x81, 0x80 | 0x64, 1, 2, 3, 4, 9, 9, 9]).await.unwrap();
    assert_eq!(half.text().await, None);
}

#[tokio::test]
async fn what_breaks_the_rules_of_websockets_ends_the_session_with_a_reason() {
    let world = world(Wishes { settings: hasty(), ..Wishes::default() }).await;
    for (frame, words) in [
        // Not masked.
        (vec![0x81, 1, b'x'], "unmasked"),
        // Reserved bits.
        (vec![0xf1, 0x81, 0, 0, 0, 0, b'x'], "reserved"),
        // A length of 2⁶³.
        (vec![0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], "too long"),
        // Text that is not UTF-8.
        (vec![0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe], "unreadable message"),
    ] {
        let mut agent = world.agent("n").await;
        agent.socket.get_mut().write_all(&frame).await.unwrap();
        agent.expect_refusal(words).await;
    }
}

#[tokio::test]
async fn bad_later_messages_end_the_session_and_unknown_ones_do_not() {
    let world = world(Wishes::default()).await;
    for (bad, words) in [
        (Message::Binary(vec![0; 10].into()), "binary frame"),
        (Message::Text("{}".into()), "not a message"),
        (Message::Text("{\"kind\":\"Report\",\"attempt\":\"x\"}".into()), "not a message"),
        (Message::Text(serde_json::to_string(&ToOperator::Hello(hello())).unwrap().into()), "second Hello"),
    ] {
        let mut agent = world.agent("n").await;
        agent.send(bad).await;
        agent.expect_refusal(words).await;
    }
    let mut agent = world.agent("n").await;
    agent.send(Message::Text("{\"kind\":\"Telepathy\",\"thought\":1}".into())).await;
    agent.say(&ToOperator::Heartbeat(Heartbeat { at: UnixMillis(1), metrics: NodeMetrics::default() })).await;
    eventually("a heartbeat", || world.counter("sentinel_gateway_heartbeats_total") == 1).await;
    assert_eq!(world.counter("sentinel_gateway_unknown_messages_total"), 1);
    assert_eq!(world.counter("sentinel_gateway_sessions_ended_total{reason=\"Malformed\"}"), 4);
}

#[tokio::test]
async fn an_agent_that_speaks_for_another_node_is_refused_and_believed_nothing() {
    let world = world(Wishes::default()).await;
    let foreign = report("t/1/other/1", ended(0));
    for message in [
        ToOperator::Report(Box::new(foreign.clone())),
        ToOperator::Inventory(Inventory { attempts: vec![foreign.clone()], more: false }),
        ToOperator::Refused(Refused {
            attempt: foreign.attempt.clone(),
            spec_hash: spec_hash(),
            refusal: Refusal::Stopping,
            offer: 0,
        }),
    ] {
        let mut agent = world.agent("n").await;
        agent.say(&message).await;
        agent.expect_refusal("is of another node than this agent's, n").await;
    }
    let told = world.books.told();
    assert!(!told.iter().any(|word| matches!(word, Word::Report(_) | Word::Refused(_))), "{told:?}");
    assert_eq!(world.counter("sentinel_gateway_security_events_total{kind=\"ForeignReport\"}"), 3);
}

#[tokio::test]
async fn a_heartbeat_is_mirrored_and_kept_within_bounds() {
    let world = world(Wishes::default()).await;
    let mut agent = world.agent("n").await;
    let disk = DiskMetrics { mount: "/".repeat(1000).into(), total: 1, available: 1 };
    let metrics = NodeMetrics { cpu_percent: 12.5, disks: vec![disk; 100], ..NodeMetrics::default() };
    agent.say(&ToOperator::Heartbeat(Heartbeat { at: UnixMillis(5), metrics })).await;
    let name = node_name("n");
    eventually("it is mirrored", || world.presence.lock().unwrap().contains_key(&name)).await;
    let record = world.presence.lock().unwrap()[&name].clone();
    assert_eq!((record.session, record.agent_version.as_str()), (agent.session(), "0.1.0"));
    assert_eq!((record.metrics.disks.len(), record.metrics.disks[0].mount.len()), (32, 128));
    let sample = world.registry.agent(&name).unwrap().sample.unwrap();
    assert_eq!(*sample.metrics, record.metrics);
}

#[tokio::test]
async fn a_silent_agent_is_dropped_although_its_connection_stays_open() {
    let world = world(Wishes { settings: hasty(), ..Wishes::default() }).await;
    let name = node_name("n");
    let agent = world.agent("n").await;
    // Nobody polls the socket, so that not even pings are answered.
    eventually("it is gone", || world.registry.standing(&name).0.is_none()).await;
    let told = world.books.told();
    assert_eq!(told.last(), Some(&Word::AgentChanged(name.clone())));
    assert_eq!(world.counter("sentinel_gateway_sessions_ended_total{reason=\"Silent\"}"), 1);
    assert!(world.registry.agent(&name).unwrap().last_seen.is_some());
    drop(agent);
}

#[tokio::test]
async fn an_agent_that_only_answers_pings_stays() {
    let world = world(Wishes { settings: hasty(), ..Wishes::default() }).await;
    let mut agent = world.agent("n").await;
    let long = hasty().dead_after * 3;
    let heard = tokio::time::timeout(long, agent.text()).await;
    assert!(heard.is_err(), "the session ended: {heard:?}");
}

#[tokio::test]
async fn a_newer_session_takes_the_place_of_an_older_one() {
    let world = world(Wishes::default()).await;
    let name = node_name("n");
    let mut older = world.agent("n").await;
    let newer = world.agent("n").await;
    older.expect_refusal("a newer session of this node").await;
    eventually("only one counts", || world.metrics.render().contains("\nsentinel_gateway_sessions 1\n"))
        .await;
    assert_eq!(world.registry.standing(&name).0, Some(newer.session()));
    assert_eq!(world.counter("sentinel_gateway_sessions_ended_total{reason=\"Replaced\"}"), 1);
}

#[tokio::test]
async fn an_agent_that_does_not_read_is_cut_off_and_holds_no_memory() {
    let world = world(Wishes::default()).await;
    let name = node_name("n");
    let token = world.tokens.issue(&name);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let stream = socket.connect(world.addr).await.unwrap();
    let mut agent = Agent::over(stream, world.addr, routes::CONTROL_PATH, &token).await.unwrap();
    agent.say(&ToOperator::Hello(hello())).await;
    agent.say(&ToOperator::Inventory(Inventory { attempts: vec![], more: false })).await;
    eventually("the session stands", || world.registry.standing(&name).0.is_some()).await;
    let mut taken = 0_u64;
    let forget = |n: u64| {
        let id = format!("{n:0>60}/1/n/1");
        ToAgent::Forget(Forget { attempt: attempt(&id), epoch: Epoch::from(1) })
    };
    // Far more than socket buffers and the outbox take together.
    while world.registry.send(&name, &forget(taken)).is_some() {
        taken += 1;
        assert!(taken < 1_000_000, "everything was taken");
        if taken.is_multiple_of(100) {
            tokio::task::yield_now().await;
        }
    }
    eventually("it is cut off", || world.registry.standing(&name).0.is_none()).await;
    assert_eq!(world.counter("sentinel_gateway_sessions_ended_total{reason=\"NotReading\"}"), 1);
}

#[tokio::test]
async fn a_result_is_acknowledged_only_when_history_holds_it() {
    let world = world(Wishes::default()).await;
    let mut agent = world.agent("n").await;
    let running = ReportedState::Running(Running { started_at: UnixMillis(1), pid: 9 });
    agent.say(&ToOperator::Report(Box::new(report("t/1/n/1", running)))).await;
    let id = attempt("t/1/n/1");
    assert_eq!(agent.hear().await, ToAgent::Ack(Ack { attempt: id.clone(), stage: Stage::Running }));
    agent.say(&ToOperator::Report(Box::new(report("t/1/n/1", ended(0))))).await;
    assert_eq!(agent.hear().await, ToAgent::Ack(Ack { attempt: id.clone(), stage: Stage::Ended }));
    let stored = world.history.attempt(id.clone()).await.unwrap().unwrap();
    assert_eq!((stored.stage, stored.source, stored.name.as_str()), (Stage::Ended, Source::Agent, "job"));
    assert!(world.books.told().contains(&Word::Archived(id.clone(), Stage::Ended)));
    // Said again, because the Ack was lost: acknowledged again.
    agent.say(&ToOperator::Report(Box::new(report("t/1/n/1", ended(0))))).await;
    assert_eq!(agent.hear().await, ToAgent::Ack(Ack { attempt: id, stage: Stage::Ended }));
}

#[tokio::test]
async fn a_result_of_a_run_without_a_ledger_is_archived_by_what_history_knows_of_it() {
    let world = world(Wishes::default()).await;
    let mut agent = world.agent("n").await;
    let running = ReportedState::Running(Running { started_at: UnixMillis(1), pid: 9 });
    agent.say(&ToOperator::Report(Box::new(report("t/1/n/1", running)))).await;
    let _ = agent.hear().await;
    world.books.unknown.lock().unwrap().push("t".parse().unwrap());
    agent.say(&ToOperator::Report(Box::new(report("t/1/n/1", ended(0))))).await;
    let ack = Ack { attempt: attempt("t/1/n/1"), stage: Stage::Ended };
    assert_eq!(agent.hear().await, ToAgent::Ack(ack));
    assert_eq!(world.counter("sentinel_gateway_stray_reports_total"), 1);
    let owned = world.registry.all_owned();
    assert_eq!((owned[0].stage, owned[0].archived), (Stage::Ended, Some(Stage::Ended)));
}

#[tokio::test]
async fn a_start_reaches_its_agent_once_it_counts_and_carries_credit() {
    let world = world(Wishes::default()).await;
    let name = node_name("n");
    let fleet: &dyn Fleet = &world.registry;
    assert_eq!(fleet.start(start()), None, "nobody is connected");
    let mut agent = world.agent("n").await;
    assert_eq!(fleet.agent(&name).session, Some(agent.session()));
    assert_eq!(fleet.start(start()), Some(agent.session()));
    let ToAgent::Start(heard) = agent.hear().await else { panic!("no start") };
    assert_eq!((heard.attempt.clone(), heard.credit), (attempt("t/1/n/1"), 128 << 10));
    let running = ReportedState::Running(Running { started_at: UnixMillis(1), pid: 9 });
    agent.say(&ToOperator::Report(Box::new(report("t/1/n/1", running)))).await;
    let task = heard.attempt.task.clone();
    eventually("it is owned", || fleet.living(&task, &name).is_some()).await;
    assert_eq!(fleet.owned(&task)[0].reports[0].attempt, heard.attempt);
    let cancel = Cancel { attempt: heard.attempt, spec_hash: spec_hash(), epoch: Epoch::from(1) };
    assert_eq!(fleet.cancel(cancel.clone()), Some(agent.session()));
    loop {
        match agent.hear().await {
            ToAgent::Ack(_) => {}
            other => break assert_eq!(other, ToAgent::Cancel(cancel)),
        }
    }
}

fn start() -> Start {
    let program = Program::Command(vec!["true".into()]);
    let output = OutputRules { limit: 1, spool: 1, max_block_ms: 1, merge: false };
    Start {
        attempt: attempt("t/1/n/1"),
        spec_hash: spec_hash(),
        epoch: Epoch::from(1),
        task: TaskRef::new("ops", "job").unwrap(),
        request: RunRequest {
            program,
            env: vec![],
            working_dir: "/".into(),
            user: None,
            group: None,
            umask: 0o22,
            stdin: String::new(),
            environment: Environment::Container,
            success_exit_codes: vec![0],
            output,
            limits: ResourceLimits::default(),
            leftovers: Leftovers::End,
        },
        deadlines: Deadlines { start_ms: 1000, run_ms: None, idle_ms: None, total_ms: None, grace_ms: 1000 },
        credit: 0,
        offer: 0,
    }
}

#[tokio::test]
async fn strays_are_ended_and_forgotten_once_they_are_archived() {
    let world = world(Wishes::default()).await;
    let mut agent = world.agent("n").await;
    let running = ReportedState::Running(Running { started_at: UnixMillis(1), pid: 9 });
    agent.say(&ToOperator::Report(Box::new(report("t/1/n/1", running)))).await;
    assert!(matches!(agent.hear().await, ToAgent::Ack(_)));
    // Its Task is deleted.
    world.books.unknown.lock().unwrap().push("t".parse().unwrap());
    let look = |owner| strays::look(&world.registry, &*world.books, |_| owner);
    look(None);
    look(Some(Owner::AtRun(RunNumber(1))));
    look(Some(Owner::Gone));
    let cancel = Cancel { attempt: attempt("t/1/n/1"), spec_hash: spec_hash(), epoch: Epoch::from(1) };
    assert_eq!(agent.hear().await, ToAgent::Cancel(cancel), "and nothing while nobody can say whose it is");
    agent.say(&ToOperator::Report(Box::new(report("t/1/n/1", ended(0))))).await;
    assert_eq!(agent.hear().await, ToAgent::Ack(Ack { attempt: attempt("t/1/n/1"), stage: Stage::Ended }));
    look(Some(Owner::Gone));
    let forget = Forget { attempt: attempt("t/1/n/1"), epoch: Epoch::from(1) };
    assert_eq!(agent.hear().await, ToAgent::Forget(forget));
    assert!(world.registry.all_owned().is_empty());
}

/// Says yes, until it says no; or cannot say.
struct Fickle {
    good: Arc<AtomicBool>,
    away: Arc<AtomicBool>,
}

impl Authenticate for Fickle {
    fn agent<'a>(&'a self, _bearer: &'a str) -> BoxFuture<'a, Result<AgentIdentity, AuthError>> {
        let answer = if self.away.load(Ordering::Relaxed) {
            Err(AuthError::Unavailable("gone fishing".into()))
        } else if self.good.load(Ordering::Relaxed) {
            Ok(AgentIdentity { node: node_name("n"), node_uid: None, pod_uid: None })
        } else {
            Err(AuthError::Invalid("expired".into()))
        };
        Box::pin(async move { answer })
    }
}

#[tokio::test]
async fn a_session_whose_token_is_no_longer_good_ends_and_one_that_nobody_can_review_goes_on() {
    let (good, away) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let fickle = Arc::new(Fickle { good: good.clone(), away: away.clone() });
    let wishes = Wishes { settings: hasty(), auth: Some(fickle), ..Wishes::default() };
    let world = world(wishes).await;
    let mut agent = world.agent("n").await;
    good.store(false, Ordering::Relaxed);
    away.store(true, Ordering::Relaxed);
    let heard = tokio::time::timeout(hasty().review_every * 4, agent.text()).await;
    assert!(heard.is_err(), "the session ended although nobody could say: {heard:?}");
    let error = Agent::dial(world.addr, routes::CONTROL_PATH, "x").await.err().expect("refused");
    let SocketError::Http(answer) = error else { panic!("{error}") };
    assert_eq!(answer.status(), 503);
    away.store(false, Ordering::Relaxed);
    agent.expect_refusal("no longer valid").await;
    assert_eq!(world.counter("sentinel_gateway_sessions_ended_total{reason=\"Unauthenticated\"}"), 1);
}

#[tokio::test]
async fn a_gateway_that_stops_says_so_to_its_agents_and_takes_no_new_ones() {
    let world = world(Wishes::default()).await;
    let mut agent = world.agent("n").await;
    let mut late = world.dial("m").await;
    let gateway = world.gateway.clone();
    let stopping = tokio::spawn(async move { gateway.stop(Duration::from_secs(5), None).await });
    agent.expect_refusal("the operator is stopping").await;
    late.say(&ToOperator::Hello(hello())).await;
    late.expect_refusal("the operator is stopping").await;
    within("the gateway stops", stopping).await.unwrap();
}

/// Told only that it stops, a thousand agents looked for the next leader all at once, and kept it from being found.
#[tokio::test]
async fn a_gateway_that_stops_and_knows_who_leads_next_names_it_to_its_agents() {
    let world = world(Wishes::default()).await;
    let mut agent = world.agent("n").await;
    let mut late = world.dial("m").await;
    let gateway = world.gateway.clone();
    let successor = Some("10.0.0.2:7979".to_owned());
    let stopping = tokio::spawn(async move { gateway.stop(Duration::from_secs(5), successor).await });
    agent.expect_refusal("not the leader; the leader is 10.0.0.2:7979").await;
    late.say(&ToOperator::Hello(hello())).await;
    late.expect_refusal("the operator is stopping").await;
    within("the gateway stops", stopping).await.unwrap();
}
