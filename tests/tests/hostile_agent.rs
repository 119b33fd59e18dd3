//! A hostile agent and an honest one in one Run, on a real API server. While the honest node's command runs, the other reports all that an
//! agent can about it, with the right Task, Run and spec. The Execution ends as its command did, and its log is what that wrote.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt as _;
use sentinel_protocol::codec::encode_record;
use sentinel_protocol::ids::{AttemptId, SpecHash};
use sentinel_protocol::log::{LogControl, LogRecord, RecordHead, Stream};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::ToAgent;
use sentinel_protocol::to_operator::{
    Ended, Inventory, OutputSummary, Refused, Report, ReportedState, Running, ToOperator,
};
use sentinel_tests::attacks::agents::{self, Agent, LOCAL, Socket, flush, receive, send};
use sentinel_tests::testbed::Testbed;
use sentinel_tests::wait::until;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_tungstenite::tungstenite::Message;

const PATIENCE: Duration = Duration::from_secs(60);

/// How often each lie is sent.
const ROUNDS: usize = 10;

/// What the command does: half of its output before the lies, half after.
const SCRIPT: &str = r#"seq -f 'line %g of the honest node' 1 2000
until [ -e "$RELEASE" ]; do sleep 0.05; done
seq -f 'line %g of the honest node' 2001 4000
exit 7"#;

/// What it prints.
fn printed() -> Vec<u8> {
    (1..=4000).flat_map(|line| format!("line {line} of the honest node\n").into_bytes()).collect()
}

/// The other agent, and what it knows of its neighbour.
struct Liar {
    gateway: SocketAddr,
    token: String,
    spec_hash: SpecHash,
    own: AttemptId,
    neighbour: AttemptId,
}

impl Liar {
    /// Waits for its own `Start`, which names Task, Run and spec.
    async fn of(testbed: &Testbed, short: &str, neighbour: &str) -> Self {
        let gateway = SocketAddr::from(([127, 0, 0, 1], testbed.gateway_port()));
        let token = std::fs::read_to_string(testbed.path().join(format!("{short}.token"))).unwrap();
        let mut agent = Agent::welcomed(gateway, &token).await.unwrap();
        let (own, spec_hash) = loop {
            if let ToAgent::Start(start) = receive(&mut agent.control).await.unwrap() {
                break (start.attempt, start.spec_hash);
            }
        };
        let neighbour = AttemptId { node: neighbour.parse().unwrap(), ..own.clone() };
        Self { gateway, token, spec_hash, own, neighbour }
    }

    async fn agent(&self) -> Agent {
        Agent::welcomed(self.gateway, &self.token).await.unwrap()
    }

    fn report(&self, attempt: &AttemptId, state: ReportedState) -> Report {
        Report { attempt: attempt.clone(), spec_hash: self.spec_hash.clone(), state }
    }

    /// All that can be reported about an Attempt on the control socket.
    fn lies(&self) -> Vec<ToOperator> {
        let states = || {
            [
                ReportedState::Accepted,
                ReportedState::Running(Running { started_at: UnixMillis(1), pid: 1 }),
                ended(Outcome::Succeeded { exit_code: 0 }, 0),
                ended(Outcome::Failed { exit_code: 3 }, 1 << 40),
                ended(Outcome::Signaled { signal: 9 }, 0),
                ended(Outcome::Cancelled, 10),
            ]
        };
        let next = AttemptId { attempt: 2, ..self.neighbour.clone() };
        let mut lies = Vec::new();
        for attempt in [&self.neighbour, &next] {
            lies.extend(states().map(|state| ToOperator::Report(Box::new(self.report(attempt, state)))));
            lies.extend(states().map(|state| {
                let attempts = vec![self.report(attempt, state)];
                ToOperator::Inventory(Inventory { attempts, more: false, sealing_key: None })
            }));
            lies.push(ToOperator::Refused(Refused {
                attempt: attempt.clone(),
                spec_hash: self.spec_hash.clone(),
                refusal: Refusal::Stopping,
                offer: 0,
            }));
        }
        lies
    }

    /// Sends each in a Session of its own. Returns how many ended it.
    async fn sends(&self) -> usize {
        let mut ended = 0;
        for lie in self.lies() {
            let mut agent = self.agent().await;
            send(&mut agent.control, &lie).await.unwrap();
            ended += usize::from(agent.flush().await.is_err());
        }
        ended
    }

    /// Output of its neighbour, from each of these positions. Returns how many ended the socket.
    async fn writes(&self, positions: &[u64]) -> usize {
        let mut ended = 0;
        let agent = self.agent().await;
        for position in positions {
            for is_opened in [false, true] {
                let mut logs = agent.logs().await.unwrap();
                if is_opened {
                    let open = LogControl::Open { attempt: self.neighbour.clone(), oldest: *position };
                    let _ = send(&mut logs, &open).await;
                }
                let _ = logs.send(self.frame(*position)).await;
                ended += usize::from(flush(&mut logs).await.is_err());
            }
        }
        ended
    }

    fn frame(&self, position: u64) -> Message {
        let data = Bytes::from_static(b"a line of the liar\n");
        let len = data.len() as u64;
        let head = RecordHead {
            stream: Stream::Stdout,
            position,
            offset: position,
            len,
            at_micros: 1,
            dropped: None,
        };
        Message::binary(encode_record(&self.neighbour, &LogRecord { head, data }).unwrap().to_vec())
    }

    /// All lies about its neighbour, whose output has arrived up to here, some times. Each ends its Session or its socket. Returns how
    /// many there were.
    async fn lies_about(&self, half: u64) -> usize {
        let (mut sent, mut ended) = (0, 0);
        for _ in 0..ROUNDS {
            sent += self.lies().len();
            ended += self.sends().await;
            let positions = [0, half, half + 1, 1 << 40];
            sent += positions.len() * 2;
            ended += self.writes(&positions).await;
        }
        assert_eq!(ended, sent, "not each lie ended a Session or a log socket");
        sent
    }

    /// Epochs that no leader can have had. Returns how many were refused.
    async fn names_epochs(&self) -> usize {
        let mut refused = 0;
        for epoch in [(1 << 48) - 1, 1 << 40, 1_000_000_u64] {
            let mut control: Socket =
                agents::dial(self.gateway, "control", &self.token, LOCAL).await.unwrap();
            let hello = serde_json::to_string(&agents::hello()).unwrap();
            let hello = hello.replace("\"highestEpoch\":0", &format!("\"highestEpoch\":{epoch}"));
            control.send(Message::text(hello)).await.unwrap();
            refused += usize::from(!matches!(receive(&mut control).await, Ok(ToAgent::Welcome(_))));
        }
        refused
    }

    /// Attempts of its own node that never were, until its Session is ended.
    async fn floods(&self) {
        let mut agent = self.agent().await;
        for number in 0..20_000 {
            let invented = format!("invented-{number}/1/{}/1", self.own.node).parse().unwrap();
            let report = ToOperator::Report(Box::new(self.report(&invented, ReportedState::Accepted)));
            let text = serde_json::to_string(&report).unwrap();
            if agent.control.send(Message::text(text)).await.is_err() {
                break;
            }
        }
    }

    /// Ends its own Execution, with more output than there can be.
    async fn concludes(&self) {
        let mut agent = self.agent().await;
        let report = self.report(&self.own, ended(Outcome::Succeeded { exit_code: 0 }, 1 << 62));
        send(&mut agent.control, &ToOperator::Report(Box::new(report))).await.unwrap();
        agent.flush().await.unwrap();
    }
}

fn ended(outcome: Outcome, end: u64) -> ReportedState {
    let ended = Ended::without_record(outcome, UnixMillis(1));
    ReportedState::Ended(Box::new(Ended {
        output: OutputSummary { end, ..OutputSummary::default() },
        ..ended
    }))
}

async fn security_events(testbed: &Testbed, kind: &str) -> usize {
    let url = format!("{}/metrics", testbed.metrics);
    let text = testbed.http.get(url).send().await.unwrap().text().await.unwrap();
    let line = format!("sentinel_gateway_security_events_total{{kind=\"{kind}\"}} ");
    text.lines().find_map(|text| text.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
}

async fn log_of(testbed: &Testbed, path: &str) -> Vec<u8> {
    let url = format!("{}{path}/log", testbed.api);
    testbed.http.get(url).send().await.unwrap().bytes().await.unwrap().to_vec()
}

/// A Task on both nodes, whose command waits in the middle of its output.
fn shared(nodes: &[&str], release: &Path) -> Value {
    json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": {"name": "shared"},
        "spec": {
            "targets": {"nodeNames": nodes},
            "run": {
                "command": ["sh", "-c", SCRIPT],
                "env": [{"name": "RELEASE", "value": release}],
            },
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_reports_of_another_node_changes_nothing_there() {
    let testbed = Testbed::new("hostile").await;
    let honest = testbed.agent("honest", &[]).await;
    testbed.add_node("liar", &[]).await;
    let [honest_node, liar_node] = ["honest", "liar"].map(|short| testbed.namespace.node_name(short));
    let release = testbed.path().join("release");
    testbed.namespace.apply(&shared(&[&honest_node, &liar_node], &release).to_string()).await.unwrap();
    let liar = Liar::of(&testbed, "liar", &honest_node).await;
    let path = format!("/api/v1/executions/{}/1/{honest_node}", liar.own.task);
    let half = until("half of the output has arrived", PATIENCE, || async {
        let text = log_of(&testbed, &path).await;
        if text.ends_with(b"line 2000 of the honest node\n") {
            Ok(text.len() as u64)
        } else {
            Err(text.len())
        }
    })
    .await;
    let sent = liar.lies_about(half).await;
    assert_eq!(security_events(&testbed, "ForeignReport").await, sent, "not each lie was counted");
    assert_eq!(liar.names_epochs().await, 3);
    liar.floods().await;
    let running = testbed.get(&path).await.unwrap();
    assert_eq!((&running["state"], &running["attempt"]), (&json!("Running"), &json!(1)), "{running}");

    std::fs::write(&release, "").unwrap();
    liar.concludes().await;
    let wait = ["wait", "--for=condition=Failed", "--timeout=60s", "tasks.sentinelnode.dev", "shared"];
    testbed.namespace.kubectl(&wait).await.unwrap();
    let wrote = printed();
    until("all of its output is present", PATIENCE, || async {
        let text = log_of(&testbed, &path).await;
        if text.len() >= wrote.len() { Ok(()) } else { Err(text.len()) }
    })
    .await;
    assert!(log_of(&testbed, &path).await == wrote, "the log is not what the command wrote");
    let shown = testbed.get(&path).await.unwrap();
    is_what_it_did(&shown, &wrote);
    let status =
        testbed.namespace.kubectl(&["get", "stask", "shared", "-o", "jsonpath={.status.run.counts}"]);
    let counts: Value = serde_json::from_str(&status.await.unwrap()).unwrap();
    assert_eq!((&counts["failed"], &counts["succeeded"]), (&json!(1), &json!(1)), "{counts}");
    let sessions = honest.log().matches("session established").count();
    assert_eq!(sessions, 1, "the honest agent had other Sessions:\n{}", honest.log());
    println!(
        "{sent} lies about a running Attempt, each refused and counted; its log has its {} bytes",
        wrote.len()
    );
    drop(honest);
    testbed.close().await;
}

/// One Attempt, which exited with 7 and wrote this.
fn is_what_it_did(shown: &Value, wrote: &[u8]) {
    assert_eq!((&shown["outcome"], &shown["exitCode"]), (&json!("Failed"), &json!(7)), "{shown}");
    assert_eq!((&shown["source"], &shown["attempt"]), (&json!("Agent"), &json!(1)), "{shown}");
    assert_eq!(shown["attempts"].as_array().map(Vec::len), Some(1), "{shown}");
    assert_eq!(shown["outputBytes"], json!(wrote.len()), "{shown}");
    let digest: String = Sha256::digest(wrote).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(shown["details"].to_string().contains(&digest), "{digest} is not in {shown}");
}
