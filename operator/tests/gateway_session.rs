//! Control sockets over real loopback connections: valid agents, invalid ones, and clients that are not agents.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

mod gateway;
#[path = "gateway_session/orphans.rs"]
mod orphans;
#[path = "gateway_session/refusals.rs"]
mod refusals;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use gateway::*;
use sentinel_operator::clock::Clock;
use sentinel_operator::controller::Fleet;
use sentinel_operator::gateway::{
    AgentIdentity, Authenticate, LedgerSink as _, departed, publish_node_gauges, routes,
};
use sentinel_operator::history::RecordSource;
use sentinel_operator::identity::AuthError;
use sentinel_protocol::ids::{Epoch, NodeName, TaskRef};
use sentinel_protocol::metrics::{DiskMetrics, NodeMetrics};
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::request::{Deadlines, Program, RunRequest};
use sentinel_protocol::secret::{SealingKey, SecretKeyRef};
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Ack, Cancel, Forget, Start, ToAgent};
use sentinel_protocol::to_operator::{Heartbeat, Inventory, Refused, ReportedState, Running, ToOperator};
use sentinel_protocol::version::Version;
use sentinel_secrets::sealed::SessionKeys;
use sentinel_secrets::values::{SecretValue, SecretValues};
use tokio::net::TcpSocket;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

#[tokio::test]
async fn a_session_is_active_once_its_inventory_is_complete() {
    let world = world(Setup::default()).await;
    world.registry.set_epoch(Epoch::from(7));
    let name = node_name("n-1");
    let mut agent = world.dial("n-1").await;
    agent.send_json(&ToOperator::Hello(hello())).await;
    let welcome = agent.expect_welcome().await;
    assert_eq!(
        (welcome.version, welcome.epoch, welcome.heartbeat_ms, welcome.dead_after_ms),
        (Version(1), Epoch::from(7), 5000, 15_000)
    );
    let view = world.registry.agent(&name).unwrap();
    assert_eq!(view.session.unwrap().session, welcome.session);
    assert_eq!(world.registry.active_session(&name), None, "active before its inventory is complete");
    let running =
        |id: &str| report(id, ReportedState::Running(Running { started_at: UnixMillis(1), pid: 9 }));
    let part = |attempts, more| ToOperator::Inventory(Inventory { attempts, more, sealing_key: None });
    agent.send_json(&part(vec![running("t/1/n-1/1")], true)).await;
    agent.send_json(&part(vec![running("u/1/n-1/1")], false)).await;
    eventually("the session stands", || world.registry.active_session(&name).is_some()).await;
    let calls = world.ledgers.calls();
    let whole = LedgerCall::Inventory(name.clone(), vec![attempt("t/1/n-1/1"), attempt("u/1/n-1/1")]);
    assert!(calls.contains(&whole), "{calls:?}");
    let owned = world.registry.owned_of(&"t".parse().unwrap());
    assert_eq!((owned.len(), owned[0].reports.len()), (1, 1));
}

#[tokio::test]
async fn a_heartbeat_renews_presence_within_bounds() {
    let world = world(Setup::default()).await;
    let mut agent = world.agent("n").await;
    let disk = DiskMetrics { mount: "/".repeat(1000).into(), total: 1, available: 1 };
    let metrics = NodeMetrics { cpu_percent: 12.5, disks: vec![disk; 100], ..NodeMetrics::default() };
    agent.send_json(&ToOperator::Heartbeat(Heartbeat { at: UnixMillis(5), metrics, audit: None })).await;
    let name = node_name("n");
    eventually("it is mirrored", || world.presence.lock().unwrap().contains_key(&name)).await;
    let record = world.presence.lock().unwrap()[&name].clone();
    assert_eq!((record.session, record.agent_version.as_str()), (agent.session(), "0.1.0"));
    assert_eq!((record.metrics.disks.len(), record.metrics.disks[0].mount.len()), (32, 128));
    let sample = world.registry.agent(&name).unwrap().sample.unwrap();
    assert_eq!(*sample.metrics, record.metrics);
}

#[tokio::test]
async fn a_silent_session_ends_although_its_connection_is_open() {
    let world = world(Setup { settings: short_timeouts(), ..Setup::default() }).await;
    let name = node_name("n");
    let agent = world.agent("n").await;
    // The socket is not polled, so pings are not answered.
    eventually("it is gone", || world.registry.active_session(&name).is_none()).await;
    assert_eq!(world.ledgers.calls().last(), Some(&LedgerCall::AgentChanged(name.clone())));
    assert_eq!(world.counter("sentinel_gateway_sessions_ended_total{reason=\"Silent\"}"), 1);
    assert!(world.registry.agent(&name).unwrap().last_seen.is_some());
    drop(agent);
}

#[tokio::test]
async fn an_agent_that_only_answers_pings_keeps_its_session() {
    let world = world(Setup { settings: short_timeouts(), ..Setup::default() }).await;
    let mut agent = world.agent("n").await;
    // One ping per heartbeat: three times as many as a silent agent would receive.
    let pings = 3 * short_timeouts().dead_after.as_millis() / short_timeouts().heartbeat.as_millis();
    for _ in 0..pings {
        let frame = within("a ping", agent.socket.next()).await;
        assert!(matches!(frame, Some(Ok(Message::Ping(_)))), "the session ended: {frame:?}");
    }
    assert!(world.registry.is_current(&node_name("n"), &agent.session()));
}

#[tokio::test]
async fn a_newer_session_replaces_the_current_one() {
    let world = world(Setup::default()).await;
    let name = node_name("n");
    let mut older = world.agent("n").await;
    let newer = world.agent("n").await;
    older.expect_refusal("a newer session of this node").await;
    eventually("one session is left", || world.metrics.render().contains("\nsentinel_gateway_sessions 1\n"))
        .await;
    assert_eq!(world.registry.active_session(&name), Some(newer.session()));
    assert_eq!(world.counter("sentinel_gateway_sessions_ended_total{reason=\"Replaced\"}"), 1);
}

#[tokio::test]
async fn the_session_of_an_agent_that_does_not_read_ends() {
    let world = world(Setup::default()).await;
    let name = node_name("n");
    let token = world.tokens.issue(&name);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let stream = socket.connect(world.addr).await.unwrap();
    let mut agent = Agent::over(stream, world.addr, routes::CONTROL_PATH, &token).await.unwrap();
    agent.send_json(&ToOperator::Hello(hello())).await;
    agent
        .send_json(&ToOperator::Inventory(Inventory { attempts: vec![], more: false, sealing_key: None }))
        .await;
    eventually("the session stands", || world.registry.active_session(&name).is_some()).await;
    let mut queued = 0_u64;
    let forget = |n: u64| {
        let id = format!("{n:0>60}/1/n/1");
        ToAgent::Forget(Forget { attempt: attempt(&id), epoch: Epoch::from(1) })
    };
    // Far more than socket buffers and the outbox take together.
    while world.registry.send(&name, &forget(queued)).is_some() {
        queued += 1;
        assert!(queued < 1_000_000, "the queue has no bound");
        if queued.is_multiple_of(100) {
            tokio::task::yield_now().await;
        }
    }
    eventually("the session ends", || world.registry.active_session(&name).is_none()).await;
    assert_eq!(world.counter("sentinel_gateway_sessions_ended_total{reason=\"NotReading\"}"), 1);
}

#[tokio::test]
async fn a_result_is_acknowledged_only_when_history_holds_it() {
    let world = world(Setup::default()).await;
    let mut agent = world.agent("n").await;
    let running = ReportedState::Running(Running { started_at: UnixMillis(1), pid: 9 });
    agent.send_json(&ToOperator::Report(Box::new(report("t/1/n/1", running)))).await;
    let id = attempt("t/1/n/1");
    assert_eq!(agent.receive().await, ToAgent::Ack(Ack { attempt: id.clone(), stage: Stage::Running }));
    agent.send_json(&ToOperator::Report(Box::new(report("t/1/n/1", ended(0))))).await;
    assert_eq!(agent.receive().await, ToAgent::Ack(Ack { attempt: id.clone(), stage: Stage::Ended }));
    let stored = world.history.attempt(id.clone()).await.unwrap().unwrap();
    assert_eq!(
        (stored.stage, stored.source, stored.name.as_str()),
        (Stage::Ended, RecordSource::Agent, "job")
    );
    assert!(world.ledgers.calls().contains(&LedgerCall::Archived(id.clone(), Stage::Ended)));
    // Sent again because the Ack was lost: acknowledged again.
    agent.send_json(&ToOperator::Report(Box::new(report("t/1/n/1", ended(0))))).await;
    assert_eq!(agent.receive().await, ToAgent::Ack(Ack { attempt: id, stage: Stage::Ended }));
}

/// Its leaders had ended before History was available, and the next Run had begun: nothing described the Run any more, and its
/// results stayed on the nodes for good.
#[tokio::test]
async fn a_result_of_a_run_that_history_never_had_is_archived_by_what_its_task_records() {
    let world = world(Setup::default()).await;
    let recorded = world.ledgers.facts(&attempt("t/1/n/1")).unwrap();
    world.ledgers.unknown.lock().unwrap().push("t".parse().unwrap());
    let mut agent = ServicedAgent::new(world.agent("n").await);
    agent.send_json(&ToOperator::Report(Box::new(report("t/1/n/1", ended(0))))).await;
    eventually("it is asked for", || world.ledgers.earlier_asked.load(Ordering::Relaxed) == 1).await;
    *world.ledgers.earlier.lock().unwrap() = Some(recorded);
    agent.send_json(&ToOperator::Report(Box::new(report("t/1/n/1", ended(0))))).await;
    let ack = Ack { attempt: attempt("t/1/n/1"), stage: Stage::Ended };
    assert_eq!(agent.receive().await, ToAgent::Ack(ack));
    let stored = world.history.attempt(attempt("t/1/n/1")).await.unwrap().unwrap();
    assert_eq!((stored.stage, &*stored.name, &*stored.command), (Stage::Ended, "job", "true"));
}

#[tokio::test]
async fn archives_a_result_without_a_ledger_from_history() {
    let world = world(Setup::default()).await;
    let mut agent = world.agent("n").await;
    let running = ReportedState::Running(Running { started_at: UnixMillis(1), pid: 9 });
    agent.send_json(&ToOperator::Report(Box::new(report("t/1/n/1", running)))).await;
    let _ = agent.receive().await;
    world.ledgers.unknown.lock().unwrap().push("t".parse().unwrap());
    agent.send_json(&ToOperator::Report(Box::new(report("t/1/n/1", ended(0))))).await;
    let ack = Ack { attempt: attempt("t/1/n/1"), stage: Stage::Ended };
    assert_eq!(agent.receive().await, ToAgent::Ack(ack));
    assert_eq!(world.counter("sentinel_gateway_stray_reports_total"), 1);
    let owned = world.registry.all_owned();
    assert_eq!((owned[0].stage, owned[0].archived), (Stage::Ended, Some(Stage::Ended)));
}

#[tokio::test]
async fn a_start_reaches_its_agent_with_credit() {
    let world = world(Setup::default()).await;
    let name = node_name("n");
    let fleet: &dyn Fleet = &world.registry;
    assert_eq!(fleet.start(start(), None), None, "no agent is connected");
    let mut agent = world.agent("n").await;
    assert_eq!(fleet.agent(&name).session, Some(agent.session()));
    assert_eq!(fleet.start(start(), None), Some(agent.session()));
    let ToAgent::Start(start) = agent.receive().await else { panic!("no start") };
    assert_eq!((start.attempt.clone(), start.credit), (attempt("t/1/n/1"), 128 << 10));
    let running = ReportedState::Running(Running { started_at: UnixMillis(1), pid: 9 });
    agent.send_json(&ToOperator::Report(Box::new(report("t/1/n/1", running)))).await;
    let task = start.attempt.task.clone();
    eventually("it is owned", || fleet.active_attempt(&task, &name).is_some()).await;
    assert_eq!(fleet.owned(&task)[0].reports[0].attempt, start.attempt);
    let cancel =
        Cancel { attempt: start.attempt, spec_hash: spec_hash(), epoch: Epoch::from(1), requested_by: None };
    assert_eq!(fleet.cancel(cancel.clone()), Some(agent.session()));
    loop {
        match agent.receive().await {
            ToAgent::Ack(_) => {}
            other => break assert_eq!(other, ToAgent::Cancel(cancel)),
        }
    }
}

/// A Session whose agent takes values that are sealed to this key.
async fn agent_with(world: &World, key: SealingKey) -> Agent {
    let mut agent = world.dial("n").await;
    agent.send_json(&ToOperator::Hello(hello())).await;
    agent.welcome = Some(agent.expect_welcome().await);
    let sealing_key = Some(key);
    agent.send_json(&ToOperator::Inventory(Inventory { attempts: vec![], more: false, sealing_key })).await;
    let session = Some(agent.session());
    eventually("it is active", || world.registry.active_session(&node_name("n")) == session).await;
    agent
}

#[tokio::test]
async fn values_of_secrets_are_sealed_to_the_session_that_they_are_sent_in() {
    let world = world(Setup::default()).await;
    let (name, fleet) = (node_name("n"), &world.registry as &dyn Fleet);
    let reference = SecretKeyRef { name: "db".into(), key: "password".into(), optional: false };
    let mut values = SecretValues::default();
    values.insert(&reference, SecretValue::new(b"hunter2hunter2".to_vec()));
    assert_eq!(fleet.takes_secrets(&name), None, "no agent is connected");
    let plain = world.agent("n").await;
    assert_eq!(fleet.takes_secrets(&name), Some(false));
    assert_eq!(fleet.start(start(), Some(&values)), None, "nothing is sent to an agent without a key");
    drop(plain);
    // To a key of low order nothing can be sealed: the operator read the Secret again and again to try.
    let broken = agent_with(&world, SealingKey([0; 32])).await;
    assert_eq!(fleet.takes_secrets(&name), Some(false));
    drop(broken);
    let (first, second) = (SessionKeys::generate(), SessionKeys::generate());
    let mut older = agent_with(&world, first.public()).await;
    assert_eq!(fleet.takes_secrets(&name), Some(true));
    assert_eq!(fleet.start(start(), Some(&values)), Some(older.session()));
    let ToAgent::Start(mut received) = older.receive().await else { panic!("no start") };
    let sealed = received.secrets.take().unwrap();
    assert!(!format!("{sealed:?} {}", sealed.0).contains("hunter2"));
    assert_eq!(first.open(&older.session(), &received, &sealed).as_ref(), Ok(&values));
    // The next Session has another key, and opens nothing of the one before.
    let mut newer = agent_with(&world, second.public()).await;
    assert!(second.open(&newer.session(), &received, &sealed).is_err());
    assert_eq!(fleet.start(start(), Some(&values)), Some(newer.session()));
    let ToAgent::Start(mut received) = newer.receive().await else { panic!("no start") };
    let sealed = received.secrets.take().unwrap();
    assert_eq!(second.open(&newer.session(), &received, &sealed), Ok(values));
    assert_eq!(fleet.start(start(), None), Some(newer.session()));
    let ToAgent::Start(received) = newer.receive().await else { panic!("no start") };
    assert_eq!(received.secrets, None);
}

fn start() -> Start {
    Start::new(
        attempt("t/1/n/1"),
        spec_hash(),
        Epoch::from(1),
        TaskRef::new("ops", "job").unwrap(),
        RunRequest::new(Program::Command(vec!["true".into()])),
        Deadlines { start_ms: 1000, run_ms: None, idle_ms: None, total_ms: None, grace_ms: 1000 },
    )
}

/// Accepts, refuses, or is unavailable; counts its reviews.
#[derive(Default)]
struct SwitchableAuth {
    refuses: AtomicBool,
    is_unavailable: AtomicBool,
    reviews: AtomicUsize,
}

impl Authenticate for SwitchableAuth {
    fn agent<'a>(&'a self, _bearer: &'a str) -> BoxFuture<'a, Result<AgentIdentity, AuthError>> {
        self.reviews.fetch_add(1, Ordering::Relaxed);
        let answer = if self.is_unavailable.load(Ordering::Relaxed) {
            Err(AuthError::Unavailable("connection refused".into()))
        } else if self.refuses.load(Ordering::Relaxed) {
            Err(AuthError::Invalid("expired".into()))
        } else {
            Ok(AgentIdentity { node: node_name("n"), node_uid: None, pod_uid: None })
        };
        Box::pin(async move { answer })
    }
}

#[tokio::test]
async fn a_session_ends_when_its_token_is_refused_and_not_while_it_cannot_be_reviewed() {
    let auth = Arc::new(SwitchableAuth::default());
    let setup = Setup { settings: short_timeouts(), auth: Some(auth.clone()), ..Setup::default() };
    let world = world(setup).await;
    let mut agent = world.agent("n").await;
    auth.refuses.store(true, Ordering::Relaxed);
    auth.is_unavailable.store(true, Ordering::Relaxed);
    let before = auth.reviews.load(Ordering::Relaxed);
    // Reading answers the pings.
    while auth.reviews.load(Ordering::Relaxed) < before + 4 {
        let frame = within("a ping", agent.socket.next()).await;
        assert!(matches!(frame, Some(Ok(Message::Ping(_)))), "the session ended: {frame:?}");
    }
    let error = Agent::dial(world.addr, routes::CONTROL_PATH, "x").await.err().expect("refused");
    let SocketError::Http(answer) = error else { panic!("{error}") };
    assert_eq!(answer.status(), 503);
    auth.is_unavailable.store(false, Ordering::Relaxed);
    agent.expect_refusal("no longer valid").await;
    assert_eq!(world.counter("sentinel_gateway_sessions_ended_total{reason=\"Unauthenticated\"}"), 1);
}

/// Nodes that an autoscaler had removed stayed in the registry, and in its metric, forever.
#[tokio::test]
async fn the_registry_shrinks_when_nodes_leave_the_cluster() {
    let world = world(Setup::default()).await;
    let clock = Clock::system();
    publish_node_gauges(&world.metrics, &world.registry, &clock, Duration::from_secs(15));
    let known = || world.counter("sentinel_nodes_known");
    let kept = world.agent("kept").await;
    let existing = [node_name("existing"), node_name("awaited")];
    for name in ["existing", "awaited", "gone"] {
        let agent = world.agent(name).await;
        drop(agent);
        let name = node_name(name);
        eventually("the session ends", || world.registry.active_session(&name).is_none()).await;
    }
    assert_eq!(known(), 4);
    world.ledgers.awaited.lock().unwrap().push(node_name("awaited"));
    let remove = |exists: &[NodeName], now| {
        departed::remove_departed(&world.registry, &*world.ledgers, |node| exists.contains(node), now)
    };
    assert_eq!(remove(&existing, clock.monotonic()), 1, "a deleted node without a session is removed");
    assert!(world.registry.agent(&node_name("gone")).is_none());
    // The Node of a connected agent, and that of a target of an unsettled Run, is deleted.
    assert_eq!(remove(&[node_name("existing")], clock.monotonic()), 0);
    assert_eq!(known(), 3);
    world.ledgers.awaited.lock().unwrap().clear();
    assert_eq!(remove(&[node_name("existing")], clock.monotonic()), 1);
    assert_eq!(remove(&[], clock.monotonic()), 1);
    assert_eq!((known(), world.registry.len()), (1, 1));
    assert!(world.registry.is_current(&node_name("kept"), &kept.session()));
    // One that comes back is known again, and one that a Run awaits is removed at last.
    drop(world.agent("gone").await);
    let gone = node_name("gone");
    eventually("the session ends", || world.registry.active_session(&gone).is_none()).await;
    assert_eq!(known(), 2);
    world.ledgers.awaited.lock().unwrap().push(gone);
    let month = clock.monotonic().plus(Duration::from_hours(720).as_millis() as u64);
    assert_eq!(remove(&[], month), 0, "a Run may still wait for it");
    assert_eq!(remove(&[], month.plus(Duration::from_hours(2).as_millis() as u64)), 1);
}

#[tokio::test]
async fn a_stopping_gateway_refuses_its_agents() {
    let world = world(Setup::default()).await;
    let mut agent = world.agent("n").await;
    let mut late = world.dial("m").await;
    let gateway = world.gateway.clone();
    let stopping = tokio::spawn(async move { gateway.stop(Duration::from_secs(5), None).await });
    agent.expect_refusal("the operator is stopping").await;
    late.send_json(&ToOperator::Hello(hello())).await;
    late.expect_refusal("the operator is stopping").await;
    within("the gateway stops", stopping).await.unwrap();
}

/// Without the name, a thousand agents searched for the next leader at once, and kept it from being found.
#[tokio::test]
async fn a_stopping_gateway_names_the_next_leader() {
    let world = world(Setup::default()).await;
    let mut agent = world.agent("n").await;
    let mut late = world.dial("m").await;
    let gateway = world.gateway.clone();
    let successor = Some("10.0.0.2:7979".to_owned());
    let stopping = tokio::spawn(async move { gateway.stop(Duration::from_secs(5), successor).await });
    agent.expect_refusal("not the leader; the leader is 10.0.0.2:7979").await;
    late.send_json(&ToOperator::Hello(hello())).await;
    late.expect_refusal("the operator is stopping").await;
    within("the gateway stops", stopping).await.unwrap();
}

/// Where a subscriber writes in a test.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The first event with this message.
    fn event(&self, message: &str) -> Option<serde_json::Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        events.into_iter().find(|event| event["fields"]["message"] == message)
    }
}

#[tokio::test]
async fn log_events_carry_the_session_and_the_attempt() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = world(Setup::default()).await;
    let mut agent = world.agent("n-1").await;
    agent
        .send_json(&ToOperator::Refused(Refused {
            attempt: attempt("t/7/n-1/2"),
            spec_hash: spec_hash(),
            refusal: Refusal::Stopping,
            offer: 0,
        }))
        .await;
    let declined = "an agent declined a Start";
    eventually("it is logged", || log.event(declined).is_some()).await;
    let event = log.event(declined).unwrap();
    let fields = &event["fields"];
    assert_eq!(fields["task"], "t", "{event}");
    assert_eq!(fields["run"], "7", "{event}");
    assert_eq!(fields["node"], "n-1", "{event}");
    assert_eq!(fields["attempt"], 2, "{event}");
    let span = &event["span"];
    assert_eq!(span["name"], "session", "{event}");
    assert_eq!(span["node"], "n-1", "{event}");
    assert_eq!(span["session"], agent.session().to_string(), "{event}");
}
