//! What the gateway refuses: requests that open no socket, invalid first messages, and what ends a Session.

use sentinel_operator::gateway::routes;
use sentinel_protocol::metrics::NodeMetrics;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Heartbeat, Inventory, Refused, ToOperator};
use sentinel_protocol::version::Version;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::gateway::*;

/// One raw HTTP exchange: the whole response.
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
async fn refuses_requests_without_a_valid_token() {
    let world = world(Setup::default()).await;
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
async fn refuses_requests_that_are_not_a_websocket_handshake() {
    let world = world(Setup::default()).await;
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
async fn refuses_an_invalid_first_message() {
    let world = world(Setup { settings: short_timeouts(), ..Setup::default() }).await;
    let beat = Heartbeat { at: UnixMillis(0), metrics: NodeMetrics::default(), audit: None };
    let newer = {
        let mut hello = hello();
        hello.versions = vec![Version(9)];
        hello
    };
    let frame = |text: &str| Message::Text(text.into());
    let json = |message: &ToOperator| frame(&serde_json::to_string(message).unwrap());
    for (first, text) in [
        (json(&ToOperator::Heartbeat(beat)), "the first message must be Hello"),
        (json(&ToOperator::Hello(newer)), "the operator speaks 1"),
        (Message::Binary(vec![1, 2, 3].into()), "the first message must be Hello"),
        (frame("{\"kind\":\"Hello\"}"), "missing field"),
        (frame("not json"), "not a message"),
        (frame(&"[".repeat(100_000)), "not a message"),
        (frame(&format!("\"{}\"", "x".repeat(1 << 20))), "too long"),
    ] {
        let mut agent = world.dial("n").await;
        // The gateway may refuse a frame before all of it was sent.
        let _ = futures_util::SinkExt::send(&mut agent.socket, first).await;
        agent.expect_refusal(text).await;
    }
    assert!(world.registry.agent(&node_name("n")).is_none());
}

#[tokio::test]
async fn closes_a_socket_that_sends_no_hello_in_time() {
    let world = world(Setup { settings: short_timeouts(), ..Setup::default() }).await;
    let mut silent = world.dial("n").await;
    assert_eq!(silent.text().await, None);
    let mut half = world.dial("n").await;
    // The header of a masked text frame of 100 bytes, and 3 of them.
    half.socket.get_mut().write_all(&[0x81, 0x80 | 0x64, 1, 2, 3, 4, 9, 9, 9]).await.unwrap();
    assert_eq!(half.text().await, None);
}

#[tokio::test]
async fn a_websocket_protocol_violation_ends_the_session() {
    let world = world(Setup { settings: short_timeouts(), ..Setup::default() }).await;
    for (frame, text) in [
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
        agent.expect_refusal(text).await;
    }
}

#[tokio::test]
async fn malformed_messages_end_the_session_and_unknown_kinds_do_not() {
    let world = world(Setup::default()).await;
    for (bad, text) in [
        (Message::Binary(vec![0; 10].into()), "binary frame"),
        (Message::Text("{}".into()), "not a message"),
        (Message::Text("{\"kind\":\"Report\",\"attempt\":\"x\"}".into()), "not a message"),
        (Message::Text(serde_json::to_string(&ToOperator::Hello(hello())).unwrap().into()), "second Hello"),
    ] {
        let mut agent = world.agent("n").await;
        agent.send(bad).await;
        agent.expect_refusal(text).await;
    }
    let mut agent = world.agent("n").await;
    agent.send(Message::Text("{\"kind\":\"Telepathy\",\"thought\":1}".into())).await;
    agent
        .send_json(&ToOperator::Heartbeat(Heartbeat {
            at: UnixMillis(1),
            metrics: NodeMetrics::default(),
            audit: None,
        }))
        .await;
    eventually("a heartbeat", || world.counter("sentinel_gateway_heartbeats_total") == 1).await;
    assert_eq!(world.counter("sentinel_gateway_unknown_messages_total"), 1);
    assert_eq!(world.counter("sentinel_gateway_sessions_ended_total{reason=\"Malformed\"}"), 4);
}

#[tokio::test]
async fn refuses_an_agent_that_reports_for_another_node() {
    let world = world(Setup::default()).await;
    let foreign = report("t/1/other/1", ended(0));
    for message in [
        ToOperator::Report(Box::new(foreign.clone())),
        ToOperator::Inventory(Inventory { attempts: vec![foreign.clone()], more: false, sealing_key: None }),
        ToOperator::Refused(Refused {
            attempt: foreign.attempt.clone(),
            spec_hash: spec_hash(),
            refusal: Refusal::Stopping,
            offer: 0,
        }),
    ] {
        let mut agent = world.agent("n").await;
        agent.send_json(&message).await;
        agent.expect_refusal("is of another node than this agent's, n").await;
    }
    let calls = world.ledgers.calls();
    let is_applied = |call: &LedgerCall| matches!(call, LedgerCall::Report(_) | LedgerCall::Refused(_));
    assert!(!calls.iter().any(is_applied), "{calls:?}");
    assert_eq!(world.counter("sentinel_gateway_security_events_total{kind=\"ForeignReport\"}"), 3);
}
