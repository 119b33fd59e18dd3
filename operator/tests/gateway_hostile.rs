//! Hostile agents with a valid token, and strangers without one: what they cost, and that others are not affected.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

mod gateway;
#[path = "gateway/reviews.rs"]
mod reviews;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use gateway::*;
use reviews::{ApiServer, forged};
use sentinel_core::lease::MAX_JUMP;
use sentinel_core::reconcile::orphan::Owner;
use sentinel_operator::gateway::registry::MAX_ORPHANS;
use sentinel_operator::gateway::{Authenticate, Settings, TokenReviews, TokenRules, orphans, routes};
use sentinel_operator::identity::rates::{Rate, Rates};
use sentinel_operator::logs::Follow;
use sentinel_operator::metrics::Registry as Metrics;
use sentinel_operator::server::Limits;
use sentinel_protocol::ids::Epoch;
use sentinel_protocol::log::{DropReason, LogControl};
use sentinel_protocol::outcome::{Outcome, StartFailure};
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::to_agent::{Ack, ToAgent};
use sentinel_protocol::to_operator::{Inventory, Refused, ReportedState, ToOperator};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

fn security(world: &World, kind: &str) -> u64 {
    world.counter(&format!("sentinel_gateway_security_events_total{{kind=\"{kind}\"}}"))
}

#[tokio::test]
async fn refuses_an_epoch_that_no_leader_can_have_had() {
    let world = world(Setup::default()).await;
    world.registry.set_epoch(Epoch::from(7));
    let jump = |more: u64| Epoch::new(7 + more).unwrap();
    for named in [Epoch::MAX, jump(MAX_JUMP + 1)] {
        let mut agent = world.dial("liar").await;
        agent
            .send_json(&ToOperator::Hello(sentinel_protocol::to_operator::Hello {
                highest_epoch: named,
                ..hello()
            }))
            .await;
        agent.expect_refusal("state was refused").await;
        assert_eq!(world.registry.highest_epoch(), Epoch::ZERO, "{named} was believed");
    }
    // An agent of an earlier release may send what is not a valid epoch.
    let mut agent = world.dial("poisoned").await;
    let text = serde_json::to_string(&ToOperator::Hello(hello())).unwrap();
    let text = text.replace("\"highestEpoch\":0", "\"highestEpoch\":18446744073709551615");
    agent.send(Message::Text(text.into())).await;
    agent.expect_refusal("epoch 18446744073709551615 is out of range").await;
    assert_eq!(security(&world, "EpochJump"), 2);
    // The same in a Refusal. A smaller jump comes from a restored cluster, and is followed.
    let mut agent = world.agent("n").await;
    let stale = |seen| {
        let refusal = Refusal::StaleEpoch { seen };
        ToOperator::Refused(Refused {
            attempt: attempt("t/1/n/1"),
            spec_hash: spec_hash(),
            refusal,
            offer: 0,
        })
    };
    agent.send_json(&stale(jump(MAX_JUMP))).await;
    eventually("the epoch is noted", || world.registry.highest_epoch() == jump(MAX_JUMP)).await;
    agent.send_json(&stale(Epoch::MAX)).await;
    agent.expect_refusal("at most").await;
    assert_eq!(world.registry.highest_epoch(), jump(MAX_JUMP));
}

#[tokio::test]
async fn drops_reports_of_attempts_that_were_never_started() {
    let world = world(Setup::default()).await;
    world.ledgers.started.store(1, Ordering::Relaxed);
    let mut agent = world.agent("n").await;
    for number in 2..=400 {
        let report = report(&format!("t/1/n/{number}"), ended(0));
        agent.send_json(&ToOperator::Report(Box::new(report))).await;
    }
    agent.send_json(&ToOperator::Report(Box::new(report("t/1/n/1", ended(0))))).await;
    assert_eq!(agent.receive().await, ToAgent::Ack(Ack { attempt: attempt("t/1/n/1"), stage: Stage::Ended }));
    assert_eq!(security(&world, "UnstartedAttempt"), 399);
    let owned = world.registry.agent(&node_name("n")).unwrap().session.unwrap().owned;
    assert_eq!(owned, 1, "the registry keeps an attempt that was never started");
    assert_eq!(world.history.attempt(attempt("t/1/n/2")).await.unwrap(), None);
    // The same in an Inventory.
    let mut again = world.dial("n").await;
    again.send_json(&ToOperator::Hello(hello())).await;
    again.expect_welcome().await;
    let attempts = (1..=3).map(|number| report(&format!("t/1/n/{number}"), ended(0))).collect();
    again.send_json(&ToOperator::Inventory(Inventory { attempts, more: false, sealing_key: None })).await;
    eventually("the inventory is complete", || world.registry.active_session(&node_name("n")).is_some())
        .await;
    assert_eq!(world.registry.all_owned().len(), 1);
}

#[tokio::test]
async fn truncates_the_texts_of_an_agent() {
    let world = world(Setup::default()).await;
    let mut agent = world.agent("n").await;
    let large = |number: usize| {
        let message = "x".repeat(900_000).replace("xx", "ä");
        let mut report = report(&format!("u/1/n/{number}"), ended(0));
        if let ReportedState::Ended(ended) = &mut report.state {
            // The type bounds the message; the text below does not.
            ended.outcome = Outcome::StartFailed { reason: StartFailure::Other, message: "MESSAGE".into() };
        }
        let text = serde_json::to_string(&ToOperator::Report(Box::new(report))).unwrap();
        text.replace("MESSAGE", &message)
    };
    agent.send(Message::Text(large(1).into())).await;
    let id = attempt("u/1/n/1");
    eventually("the report is recorded", || world.registry.report(&id).is_some()).await;
    let ReportedState::Ended(kept) = world.registry.report(&id).unwrap().state else { panic!("not ended") };
    let message = kept.outcome.message();
    assert!(message.len() <= 1024 && message.ends_with("ä…"), "{} bytes: {message:?}", message.len());
    // A digest that is not one makes the message malformed.
    let digest = serde_json::to_string(&ToOperator::Report(Box::new(report("u/1/n/2", ended(1))))).unwrap();
    let digest = digest.replacen("\"dropped\":0", "\"dropped\":0,\"sha256\":\"no digest\"", 1);
    agent.send(Message::Text(digest.into())).await;
    agent.expect_refusal("invalid SHA-256 digest").await;
}

#[tokio::test]
async fn bounds_the_ended_attempts_of_deleted_tasks_per_agent() {
    let world = world(Setup::default()).await;
    world.ledgers.unknown.lock().unwrap().push("gone".parse().unwrap());
    let mut agent = world.agent("n").await;
    let count = MAX_ORPHANS + 50;
    for number in 1..=count {
        agent.send_json(&ToOperator::Report(Box::new(report(&format!("gone/{number}/n/1"), ended(0))))).await;
    }
    let running = ReportedState::Running(sentinel_protocol::to_operator::Running {
        started_at: sentinel_protocol::time::UnixMillis(1),
        pid: 1,
    });
    agent.send_json(&ToOperator::Report(Box::new(report("gone/9999/n/1", running)))).await;
    eventually("all are recorded", || world.registry.all_owned().len() == count + 1).await;
    let metrics = world.gateway.metrics();
    orphans::sweep(&world.registry, &*world.ledgers, |_| Some(Owner::Gone), metrics);
    assert_eq!(world.counter("sentinel_gateway_reports_dropped_total"), 50);
    assert_eq!(world.registry.all_owned().len(), MAX_ORPHANS + 1);
    assert!(
        world.registry.report(&attempt("gone/9999/n/1")).is_some(),
        "a running command is dropped before it is cancelled"
    );
    assert!(matches!(agent.receive().await, ToAgent::Cancel(_)), "a running command is not cancelled");
}

#[tokio::test]
async fn bounds_the_log_sockets_of_an_agent_and_keeps_the_newest() {
    let world = world(Setup::default()).await;
    let agent = world.agent("n").await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(world.log_socket(&agent, "n").await);
    }
    eventually("two are left", || world.counter("sentinel_gateway_log_sockets") <= 2).await;
    assert_eq!(security(&world, "TooManySockets"), 18);
    let newest = sockets.last_mut().unwrap();
    newest.send_json(&LogControl::Open { attempt: attempt("t/1/n/1"), oldest: 0 }).await;
    assert!(matches!(newest.receive_log().await, LogControl::Credit { granted: 131_072, .. }));
    assert!(world.registry.active_session(&node_name("n")).is_some(), "the session ended");
}

#[tokio::test]
async fn grants_no_credit_to_unknown_attempts() {
    let world = world(Setup::default()).await;
    world.ledgers.unknown.lock().unwrap().push("x".parse().unwrap());
    let mut agent = world.agent("n").await;
    let mut logs = world.log_socket(&agent, "n").await;
    for number in 1..=1024 {
        logs.send_json(&LogControl::Open { attempt: attempt(&format!("x/{number}/n/1")), oldest: 0 }).await;
    }
    logs.record(&attempt("x/1/n/1"), &record(0, 100)).await;
    logs.send_json(&LogControl::Open { attempt: attempt("t/1/n/1"), oldest: 0 }).await;
    let LogControl::Credit { attempt: granted, .. } = logs.receive_log().await else { panic!("no credit") };
    assert_eq!(granted, attempt("t/1/n/1"));
    assert_eq!(world.counter("sentinel_logs_reserved_bytes"), 128 << 10);
    assert_eq!(world.counter("sentinel_gateway_unknown_output_total"), 1025);
    // One of them was offered before its Report arrived.
    agent.send_json(&ToOperator::Report(Box::new(report("x/2/n/1", ended(100))))).await;
    let LogControl::Credit { attempt: granted, archived, .. } = logs.receive_log().await else {
        panic!("no credit")
    };
    assert_eq!((granted, archived), (attempt("x/2/n/1"), 0));
}

/// A command was started just when its leader was deposed; its agent sent all of its output to the next leader before
/// that one had read the Inventory, had nothing more to send, and none of it was ever archived.
#[tokio::test]
async fn output_that_was_ignored_is_sent_again() {
    let world = world(Setup::default()).await;
    world.ledgers.unknown.lock().unwrap().push("x".parse().unwrap());
    let mut agent = world.agent("n").await;
    let mut logs = world.log_socket(&agent, "n").await;
    let early = attempt("x/1/n/1");
    logs.send_json(&LogControl::Open { attempt: early.clone(), oldest: 0 }).await;
    logs.record(&early, &record(0, 100)).await;
    eventually("the record is ignored", || world.counter("sentinel_gateway_unknown_output_total") == 2).await;
    agent.send_json(&ToOperator::Report(Box::new(report("x/1/n/1", ended(100))))).await;
    assert_eq!(logs.text().await, None, "the socket stays open, and the agent waits forever");
    let mut logs = world.log_socket(&agent, "n").await;
    logs.send_json(&LogControl::Open { attempt: early.clone(), oldest: 0 }).await;
    logs.record(&early, &record(0, 100)).await;
    while !matches!(logs.receive_log().await, LogControl::Credit { archived: 100, .. }) {}
}

/// On a busy socket, Attempts that became known were opened only once it was idle.
#[tokio::test]
async fn attempt_that_becomes_known_is_opened_on_a_busy_socket() {
    let world = world(Setup::default()).await;
    world.ledgers.unknown.lock().unwrap().push("x".parse().unwrap());
    let mut agent = world.agent("n").await;
    let mut logs = world.log_socket(&agent, "n").await;
    let (late, busy) = (attempt("x/1/n/1"), attempt("t/1/n/1"));
    logs.send_json(&LogControl::Open { attempt: late.clone(), oldest: 0 }).await;
    logs.send_json(&LogControl::Open { attempt: busy.clone(), oldest: 0 }).await;
    assert!(matches!(logs.receive_log().await, LogControl::Credit { attempt, .. } if attempt == busy));
    agent.send_json(&ToOperator::Report(Box::new(report("x/1/n/1", ended(100))))).await;
    // One record for each Credit: the socket is never idle.
    let until_opened = async {
        for position in (0..).step_by(10) {
            logs.record(&busy, &record(position, 10)).await;
            match logs.receive_log().await {
                LogControl::Credit { attempt, .. } if attempt == late => break,
                LogControl::Credit { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    within("the late attempt is opened", until_opened).await;
}

#[tokio::test]
async fn bounds_the_credit_of_a_node_over_all_its_attempts() {
    let world = world(Setup::default()).await;
    let agent = world.agent("n").await;
    let mut logs = world.log_socket(&agent, "n").await;
    for number in 1..=1000 {
        logs.send_json(&LogControl::Open { attempt: attempt(&format!("t/{number}/n/1")), oldest: 0 }).await;
    }
    for _ in 0..96 {
        assert!(matches!(logs.receive_log().await, LogControl::Credit { .. }));
    }
    logs.send_json(&LogControl::Hello { session: agent.session() }).await;
    eventually("the socket is closed", || world.counter("sentinel_gateway_log_sockets") == 0).await;
    let reserved = world.counter("sentinel_logs_reserved_bytes");
    assert_eq!(reserved, 0, "reserved memory is not released");
}

#[tokio::test]
async fn a_fragmented_message_has_a_deadline_despite_pings() {
    let settings = Settings { dead_after: Duration::from_millis(600), ..short_timeouts() };
    let world = world(Setup { settings, ..Setup::default() }).await;
    let mut agent = world.agent("n").await;
    let begin = Frame::message(vec![b'x'; 50_000], OpCode::Data(Data::Text), false);
    agent.send(Message::Frame(begin)).await;
    let mut pings = 0;
    let over = async {
        loop {
            if agent.socket.send(Message::Ping(vec![0; 100].into())).await.is_err() {
                return;
            }
            pings += 1;
            tokio::select! {
                frame = agent.socket.next() => if !matches!(frame, Some(Ok(_))) { return },
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    };
    within("the socket is closed", over).await;
    assert_eq!(security(&world, "SlowMessage"), 1, "after {pings} pings");
}

#[tokio::test]
async fn an_end_beyond_the_output_limit_becomes_a_marked_gap() {
    let within = Duration::from_millis(300);
    let world = world(Setup { output_within: Some(within), ..Setup::default() }).await;
    world.ledgers.output_limit.store(8 << 20, Ordering::Relaxed);
    let mut agent = world.agent("n").await;
    let id = attempt("t/1/n/1");
    let mut logs = world.log_socket(&agent, "n").await;
    logs.send_json(&LogControl::Open { attempt: id.clone(), oldest: 0 }).await;
    logs.receive_log().await;
    logs.record(&id, &record(0, 1000)).await;
    agent.send_json(&ToOperator::Report(Box::new(report("t/1/n/1", ended(1 << 62))))).await;
    assert_eq!(agent.receive().await, ToAgent::Ack(Ack { attempt: id.clone(), stage: Stage::Ended }));
    assert_eq!(security(&world, "OutputBeyondLimit"), 1);
    assert_eq!(world.counter("sentinel_gateway_output_given_up_total"), 1);
    let kept = world.history.attempt(id.clone()).await.unwrap().unwrap();
    assert_eq!(kept.output.end, 8 << 20);
    let mut records = Box::pin(world.reader.open(id, 0, Follow::Yes));
    let mut seen = Vec::new();
    while let Some(record) = gateway::within("the log ends", records.next()).await {
        let head = record.unwrap().head;
        seen.push((head.position, head.len, head.dropped));
    }
    assert_eq!(seen, [(0, 1000, None), (1000, (8 << 20) - 1000, Some(DropReason::NotSent))]);
}

#[tokio::test]
async fn does_not_wait_for_output_that_its_agent_no_longer_owns() {
    let world = world(Setup { output_within: Some(Duration::from_secs(20)), ..Setup::default() }).await;
    let mut agent = world.agent("n").await;
    agent.send_json(&ToOperator::Report(Box::new(report("t/1/n/1", ended(5000))))).await;
    let id = attempt("t/1/n/1");
    eventually("the report is recorded", || world.registry.report(&id).is_some()).await;
    // Its state directory was lost: the next Session does not own it.
    let _again = world.agent("n").await;
    eventually("it is archived", || {
        world.ledgers.calls().contains(&LedgerCall::Archived(id.clone(), Stage::Ended))
    })
    .await;
}

#[tokio::test]
async fn waits_for_output_while_its_node_is_disconnected() {
    let world = world(Setup { output_within: Some(Duration::from_millis(100)), ..Setup::default() }).await;
    let (offline, online) = (attempt("t/1/offline/1"), attempt("t/1/online/1"));
    let mut agent = world.agent("offline").await;
    agent.send_json(&ToOperator::Report(Box::new(report("t/1/offline/1", ended(5000))))).await;
    eventually("the report is recorded", || world.registry.report(&offline).is_some()).await;
    drop(agent);
    eventually("the session ends", || world.registry.active_session(&node_name("offline")).is_none()).await;
    let mut agent = world.agent("online").await;
    agent.send_json(&ToOperator::Report(Box::new(report("t/1/online/1", ended(5000))))).await;
    assert_eq!(agent.receive().await, ToAgent::Ack(Ack { attempt: online, stage: Stage::Ended }));
    assert!(
        !world.ledgers.calls().contains(&LedgerCall::Archived(offline, Stage::Ended)),
        "given up while its node is disconnected"
    );
}

#[tokio::test]
async fn unauthenticated_connections_cannot_occupy_the_slots_of_agents() {
    let limits = Limits { unauthenticated_per_address: 30, ..Limits::of_agents() };
    let world = world(Setup { limits, ..Setup::default() }).await;
    let mut agents = Vec::new();
    // An authenticated connection does not count.
    for n in 0..40 {
        agents.push(world.agent(&format!("n{n}")).await);
    }
    let mut strangers = Vec::new();
    for _ in 0..30 {
        strangers.push(TcpStream::connect(world.addr).await.unwrap());
    }
    let mut one_more = TcpStream::connect(world.addr).await.unwrap();
    let read = within("it is closed at once", one_more.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "a connection over the limit is served");
    assert!(world.counter("sentinel_server_turned_away_total{listener=\"gateway\"}") >= 1);
    drop(strangers);
    eventually("slots are free again", || {
        world.counter("sentinel_server_connections{listener=\"gateway\"}") <= 40
    })
    .await;
    world.agent("late").await;
}

fn reviews_of(server: &ApiServer, rates: Rates) -> (Arc<TokenReviews>, Metrics) {
    rustls::crypto::ring::default_provider().install_default().ok();
    let metrics = Metrics::new();
    let config = kube::Config::new(format!("http://{}", server.addr()).parse().unwrap());
    let rules = TokenRules { rates, believe: Duration::ZERO, ..TokenRules::new("sentinel", "agent") };
    let reviews = TokenReviews::new(kube::Client::try_from(config).unwrap(), rules, &metrics);
    (Arc::new(reviews), metrics)
}

#[tokio::test]
async fn does_not_review_implausible_or_recently_refused_tokens() {
    let server = ApiServer::start().await;
    let (reviews, _) = reviews_of(&server, Rates::default());
    for token in ["x.y.z", "abc", &forged("other", "sentinel-operator", 1), &forged("agent", "elsewhere", 1)]
    {
        assert!(reviews.agent(token).await.is_err());
    }
    assert_eq!(server.reviews(), 0);
    let refused = forged("agent", "sentinel-operator", 1);
    for _ in 0..100 {
        assert_eq!(reviews.agent(&refused).await.unwrap_err().category(), "Invalid");
    }
    assert_eq!(server.reviews(), 1);
}

#[tokio::test]
async fn a_flood_of_unknown_tokens_spares_the_api_server_and_agents() {
    let server = ApiServer::start().await;
    let slow = Rate { per_second: 1.0, burst: 20.0 };
    let rates = Rates { all: Rate { per_second: 1000.0, burst: 1000.0 }, address: slow };
    let (reviews, _) = reviews_of(&server, rates);
    let known = server.agent("n-known");
    let (attacker, other) = ("10.0.0.66".parse().ok(), "10.0.0.1".parse().ok());
    assert!(reviews.agent_at(&known, attacker).await.is_ok());
    let mut busy = 0;
    for number in 0..2000 {
        let error =
            reviews.agent_at(&forged("agent", "sentinel-operator", number), attacker).await.unwrap_err();
        busy += usize::from(error.category() == "TooManyRequests");
    }
    assert!(busy > 1900, "{busy} of 2000 were refused unreviewed");
    assert!(server.reviews() < 100, "{} reviews", server.reviews());
    // A token that was an agent's is reviewed despite the flood from its address; so is a new one from another address.
    assert!(reviews.agent_at(&known, attacker).await.is_ok());
    assert!(reviews.agent_at(&server.agent("n-new"), other).await.is_ok());
}

#[tokio::test]
async fn refuses_unknown_tokens_over_the_rate_with_retry_after() {
    let server = ApiServer::start().await;
    let none = Rate { per_second: 0.0, burst: 0.0 };
    let (reviews, _) = reviews_of(&server, Rates { all: none, address: none });
    let world = world(Setup { auth: Some(reviews), ..Setup::default() }).await;
    let token = forged("agent", "sentinel-operator", 1);
    let error = Agent::dial(world.addr, routes::CONTROL_PATH, &token).await.err().expect("refused");
    let SocketError::Http(answer) = error else { panic!("{error}") };
    assert_eq!(answer.status(), 429);
    assert_eq!(answer.headers()["retry-after"], "5");
    assert_eq!(world.counter("sentinel_gateway_refused_total{reason=\"TooManyRequests\"}"), 1);
}
