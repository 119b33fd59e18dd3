//! A whole agent with real supervisors and commands, against a gateway that is driven by the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod asked_again;
#[path = "../fixtures/mod.rs"]
mod fixtures;
#[path = "../gateway/mod.rs"]
mod gateway;
mod log_socket;
mod policy;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use gateway::{Archive, Gateway, PATIENCE, next_message, send_to, within};
use log_socket::{archive_all, check_output};
use sentinel_node_agent::journal::{AttemptDir, AttemptState};
use sentinel_node_agent::supervisor::Prefork;
use sentinel_node_agent::{AgentConfig, AgentError, Timing, Token, health};
use sentinel_protocol::ids::{AttemptId, Epoch, SpecHash};
use sentinel_protocol::outcome::{InterruptReason, Outcome};
use sentinel_protocol::refusal::{Refusal, SessionRefusal};
use sentinel_protocol::stage::Stage;
use sentinel_protocol::to_agent::{Ack, Cancel, Forget, Start, ToAgent};
use sentinel_protocol::to_operator::{ReportedState, ToOperator};
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

const TOKEN: &str = "a-token";
const ALL: u64 = u64::MAX;

fn attempt(run: u32) -> AttemptId {
    format!("0b6c-1/{run}/node-1/1").parse().unwrap()
}

fn spec(n: u8) -> SpecHash {
    SpecHash::new(format!("{n:064x}")).unwrap()
}

/// A request to run this shell text, with unlimited credit.
fn start(run: u32, script: &str) -> Start {
    let mut start = fixtures::shell(run, script);
    start.spec_hash = spec(1);
    start.deadlines.grace_ms = 1_000;
    start.credit = ALL;
    start
}

fn to_start(start: &Start) -> ToAgent {
    ToAgent::Start(Box::new(start.clone()))
}

fn cancel(run: u32) -> ToAgent {
    ToAgent::Cancel(Cancel {
        attempt: attempt(run),
        spec_hash: spec(1),
        epoch: Epoch::from(1),
        requested_by: None,
    })
}

/// Stops an agent, and the agent's task.
type Agent = (oneshot::Sender<()>, JoinHandle<Result<(), AgentError>>);

/// A node: a state directory, and the agent on it.
struct Node {
    dir: tempfile::TempDir,
    running: Option<Agent>,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("token"), TOKEN).unwrap();
        fs::set_permissions(dir.path().join("token"), PermissionsExt::from_mode(0o600)).unwrap();
        Self { dir, running: None }
    }

    fn with_agent(gateway: &Gateway) -> Self {
        let mut node = Self::new();
        node.start(gateway);
        node
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self, gateway: &Gateway) -> AgentConfig {
        let url = format!("ws://{}", gateway.address).parse().unwrap();
        let config = AgentConfig::new(url, Token::File(self.path("token")), self.state());
        AgentConfig {
            prefork: Prefork::Off,
            supervisor: Some(env!("CARGO_BIN_EXE_node-agent").into()),
            timing: Timing {
                first_wait: Duration::from_millis(10),
                longest_wait: Duration::from_millis(100),
                ..Timing::default()
            },
            ..config
        }
    }

    fn start(&mut self, gateway: &Gateway) {
        self.start_as(self.config(gateway));
    }

    fn start_as(&mut self, config: AgentConfig) {
        let (stop, stopped) = oneshot::channel::<()>();
        let agent = sentinel_node_agent::run(config, async {
            let _ = stopped.await;
        });
        self.running = Some((stop, tokio::spawn(agent)));
    }

    async fn stop(&mut self) {
        let (stop, agent) = self.running.take().unwrap();
        stop.send(()).unwrap();
        within("the agent's end", agent).await.unwrap().unwrap();
    }

    /// Lines that commands of this node wrote to a file: one per run.
    fn witness(&self) -> usize {
        fs::read_to_string(self.path("witness")).map_or(0, |text| text.lines().count())
    }

    fn witnessed(&self, script: &str) -> String {
        format!("echo x >> {}; {script}", self.path("witness").display())
    }
}

#[tokio::test]
async fn the_handshake_carries_the_user_agent() {
    let mut gateway = Gateway::start(TOKEN).await;
    let mut node = Node::with_agent(&gateway);
    gateway.control().await;
    let agents = gateway.user_agents.lock().unwrap().clone();
    assert_eq!(agents, [sentinel_protocol::product::user_agent("sentinel-node-agent")]);
    node.stop().await;
}

#[tokio::test]
async fn a_command_runs_and_is_reported_acked_and_forgotten() {
    let mut gateway = Gateway::start(TOKEN).await;
    let node = Node::with_agent(&gateway);
    let mut control = gateway.control().await;
    assert!(control.inventory.attempts.is_empty());
    let start = start(1, &node.witnessed("echo out; echo err >&2; exit 3"));
    control.send_message(to_start(&start)).await;
    let ended = control.ended(&attempt(1)).await;
    assert_eq!(ended.outcome, Outcome::Failed { exit_code: 3 });

    let mut archive = Archive::default();
    archive_all(&mut gateway, &control, &attempt(1), &mut archive, ended.output.end).await;
    check_output(&ended, &archive);
    assert_eq!(archive.bytes["stdout"], b"out\n");
    assert_eq!(archive.bytes["stderr"], b"err\n");

    control.send_message(ToAgent::Ack(Ack { attempt: attempt(1), stage: Stage::Ended })).await;
    control.send_message(ToAgent::Forget(Forget { attempt: attempt(1), epoch: Epoch::from(1) })).await;
    // In time the tombstone answers, and nothing runs again.
    let again = within("the attempt to be forgotten", async {
        loop {
            control.send_message(to_start(&start)).await;
            let again = control.ended(&attempt(1)).await;
            if again.output.end == 0 {
                break again;
            }
        }
    })
    .await;
    assert_eq!(again.outcome, Outcome::Failed { exit_code: 3 });
    let names = fs::read_dir(node.state().join("attempts")).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names.filter(|name| !name.to_string_lossy().starts_with(".ready.")).collect();
    assert!(left.is_empty(), "a forgotten attempt is still on the disk: {left:?}");
    assert_eq!(node.witness(), 1);
}

#[tokio::test]
async fn running_is_reported_with_the_pid() {
    let mut gateway = Gateway::start(TOKEN).await;
    let _node = Node::with_agent(&gateway);
    let mut control = gateway.control().await;
    control.send_message(to_start(&start(1, "echo $$; exec sleep 60"))).await;
    let running = control.running(&attempt(1)).await;
    let mut archive = Archive::default();
    archive_all(&mut gateway, &control, &attempt(1), &mut archive, 2).await;
    assert_eq!(String::from_utf8_lossy(&archive.bytes["stdout"]).trim(), running.pid.to_string());
    control.send_message(cancel(1)).await;
    assert_eq!(control.ended(&attempt(1)).await.outcome, Outcome::Cancelled);
}

#[tokio::test]
async fn a_repeated_start_is_recognised_and_another_spec_refused() {
    let mut gateway = Gateway::start(TOKEN).await;
    let node = Node::with_agent(&gateway);
    let mut control = gateway.control().await;
    let start = start(1, &node.witnessed("true"));
    for _ in 0..20 {
        control.send_message(to_start(&start)).await;
    }
    control.ended(&attempt(1)).await;
    control.send_message(to_start(&Start { spec_hash: spec(2), ..start.clone() })).await;
    assert_eq!(control.refused().await.refusal, Refusal::SpecHashMismatch);
    control.send_message(to_start(&Start { epoch: Epoch::ZERO, attempt: attempt(2), ..start })).await;
    assert_eq!(control.refused().await.refusal, Refusal::StaleEpoch { seen: Epoch::from(1) });
    assert_eq!(node.witness(), 1);
}

#[tokio::test]
async fn a_restarted_agent_adopts_running_commands() {
    let mut gateway = Gateway::start(TOKEN).await;
    let mut node = Node::with_agent(&gateway);
    let mut control = gateway.control().await;
    let release = node.path("release");
    let script =
        format!("echo before; while [ ! -e {} ]; do sleep 0.05; done; echo after", release.display());
    control.send_message(to_start(&start(1, &node.witnessed(&script)))).await;
    let running = control.running(&attempt(1)).await;
    let first_state = control.hello.state_id.clone();
    drop(control);
    node.stop().await;
    node.start(&gateway);
    // Sockets of the first agent may still be queued.
    let mut control = loop {
        let mut socket = gateway.control_socket().await;
        let Some(Ok(Message::Text(text))) = within("a Hello", socket.next()).await else { continue };
        let hello: ToOperator = sentinel_protocol::codec::decode_text(&text).unwrap();
        let ToOperator::Hello(hello) = hello else { panic!("no Hello") };
        break gateway.welcome(socket, hello).await;
    };
    assert_eq!(control.hello.state_id, first_state);
    assert_eq!(control.hello.highest_epoch, Epoch::from(1));
    assert_eq!(control.inventory.attempts[0].state, ReportedState::Running(running));
    fs::write(release, "").unwrap();
    let ended = control.ended(&attempt(1)).await;
    assert_eq!(ended.outcome, Outcome::Succeeded { exit_code: 0 });
    let mut archive = Archive::default();
    archive_all(&mut gateway, &control, &attempt(1), &mut archive, ended.output.end).await;
    assert_eq!(archive.bytes["stdout"], b"before\nafter\n");
    assert_eq!(node.witness(), 1);
}

#[tokio::test]
async fn a_command_whose_supervisor_is_killed_is_interrupted() {
    let mut gateway = Gateway::start(TOKEN).await;
    let node = Node::with_agent(&gateway);
    let mut control = gateway.control().await;
    control.send_message(to_start(&start(1, "echo here; exec sleep 600"))).await;
    let running = control.running(&attempt(1)).await;
    archive_all(&mut gateway, &control, &attempt(1), &mut Archive::default(), 5).await;
    let dir = AttemptDir::at(node.state().join("attempts").join(attempt(1).directory_name()));
    let AttemptState::Running { supervisor, command, .. } = dir.state().unwrap() else {
        panic!("not running")
    };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor.pid), nix::sys::signal::SIGKILL).unwrap();
    let ended = control.ended(&attempt(1)).await;
    assert_eq!(ended.outcome, Outcome::Interrupted { reason: InterruptReason::SupervisorDied });
    assert!(ended.exit.killed, "nothing but KILL ends a command without its supervisor");
    assert_eq!(ended.started_at, Some(running.started_at));
    assert_eq!(ended.output.end, 5, "what it wrote before is still counted");
    assert!(!command.is_alive(), "the command survived");
}

#[tokio::test]
async fn a_cancel_before_its_start_is_remembered() {
    let mut gateway = Gateway::start(TOKEN).await;
    let node = Node::with_agent(&gateway);
    let mut control = gateway.control().await;
    control.send_message(cancel(1)).await;
    assert_eq!(control.ended(&attempt(1)).await.outcome, Outcome::Cancelled);
    control.send_message(to_start(&start(1, &node.witnessed("true")))).await;
    assert_eq!(control.ended(&attempt(1)).await.outcome, Outcome::Cancelled);
    assert_eq!(node.witness(), 0);
}

#[tokio::test]
async fn results_stay_in_the_inventory_until_forget() {
    let mut gateway = Gateway::start(TOKEN).await;
    let _node = Node::with_agent(&gateway);
    let mut control = gateway.control().await;
    control.send_message(to_start(&start(1, "true"))).await;
    let ended = control.ended(&attempt(1)).await;
    drop(control);
    let mut control = gateway.control().await;
    assert_eq!(control.inventory.attempts[0].state, ReportedState::Ended(Box::new(ended)));
    control.send_message(ToAgent::Ack(Ack { attempt: attempt(1), stage: Stage::Ended })).await;
    while control.heartbeat().await.metrics.unacknowledged > 0 {}
    drop(control);
    assert_eq!(gateway.control().await.inventory.attempts.len(), 1, "only Forget removes it");
}

#[tokio::test]
async fn heartbeats_carry_metrics_and_the_probe_succeeds() {
    let mut gateway = Gateway::start(TOKEN).await;
    let mut node = Node::with_agent(&gateway);
    let mut control = gateway.control().await;
    let first = control.heartbeat().await;
    assert_eq!(first.metrics.running, 0);
    control.send_message(to_start(&start(1, "exec sleep 60"))).await;
    loop {
        let metrics = control.heartbeat().await.metrics;
        if metrics.running == 1 && metrics.memory_total > 0 && metrics.cpu_count > 0 {
            break;
        }
    }
    assert!(health::health(&node.state()).is_ok());
    control.send_message(cancel(1)).await;
    control.ended(&attempt(1)).await;
    node.stop().await;
    assert!(health::health(&node.state()).is_err());
}

#[tokio::test]
async fn malformed_frames_end_the_session_and_the_agent_reconnects() {
    let mut gateway = Gateway::start(TOKEN).await;
    let _node = Node::with_agent(&gateway);
    for text in ["no json", "{}", "{\"kind\":\"Start\"}", "{\"kind\":\"Ack\",\"attempt\":\"../x\"}"] {
        let mut control = gateway.control().await;
        control.socket.send(Message::text(text)).await.unwrap();
        while control.socket.next().await.is_some_and(|frame| frame.is_ok()) {}
    }
    let mut control = gateway.control().await;
    control.socket.send(Message::Binary(vec![1, 2, 3].into())).await.unwrap();
    // A frame that is cut off, one with reserved bits, and one that claims 2^62 bytes.
    for bytes in [&[0x81, 0x7e, 0x01][..], &[0xf1, 0x01, 0x41], &[0x81, 0x7f, 0x40, 0, 0, 0, 0, 0, 0, 0]] {
        let mut control = gateway.control().await;
        let tcp = control.socket.get_mut();
        tcp.write_all(bytes).await.unwrap();
        tcp.shutdown().await.unwrap();
    }
    // A kind that a newer operator sends is not malformed.
    let mut control = gateway.control().await;
    control.socket.send(Message::text("{\"kind\":\"FromTheFuture\",\"x\":1}")).await.unwrap();
    control.send_message(to_start(&start(1, "true"))).await;
    assert_eq!(control.ended(&attempt(1)).await.outcome, Outcome::Succeeded { exit_code: 0 });
}

#[tokio::test]
async fn a_silent_gateway_is_dropped_at_its_deadline() {
    let mut gateway = Gateway::start(TOKEN).await;
    (gateway.heartbeat_ms, gateway.dead_after_ms) = (50, 400);
    let _node = Node::with_agent(&gateway);
    let silent = gateway.control().await;
    // The socket stays open and is not read, so that no ping is answered.
    let since = Instant::now();
    let next = gateway.control().await;
    assert!(since.elapsed() >= Duration::from_millis(300), "it was given up too early");
    assert!(since.elapsed() < PATIENCE / 2);
    drop((silent, next));
}

#[tokio::test]
async fn pongs_alone_keep_a_session_alive() {
    let mut gateway = Gateway::start(TOKEN).await;
    (gateway.heartbeat_ms, gateway.dead_after_ms) = (50, 400);
    let _node = Node::with_agent(&gateway);
    let mut control = gateway.control().await;
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(1200) {
        control.heartbeat().await;
    }
}

#[tokio::test]
async fn a_gateway_without_welcome_is_dropped() {
    let mut gateway = Gateway::start(TOKEN).await;
    let mut node = Node::new();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut config = node.config(&gateway);
    config.timing.welcome_within = Duration::from_millis(100);
    let agent = sentinel_node_agent::run(config, async {
        let _ = stopped.await;
    });
    node.running = Some((stop, tokio::spawn(agent)));
    let silent = gateway.control_socket().await;
    gateway.control().await;
    drop(silent);
}

#[tokio::test]
async fn a_renewed_token_is_used_for_the_next_connection() {
    let mut gateway = Gateway::start("another-token").await;
    let node = Node::with_agent(&gateway);
    within("a declined connection", async {
        while *gateway.declined.lock().unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    fs::write(node.path("token"), "another-token\n").unwrap();
    gateway.control().await;
}

#[tokio::test]
async fn an_agent_dials_the_named_leader() {
    let mut follower = Gateway::start(TOKEN).await;
    let mut leader = Gateway::start(TOKEN).await;
    let _node = Node::with_agent(&follower);
    let mut socket = follower.control_socket().await;
    let ToOperator::Hello(_) = next_message(&mut socket).await else { panic!("no Hello") };
    let refusal = SessionRefusal::NotLeader { leader: Some(leader.address.clone()) };
    send_to(&mut socket, &ToAgent::Refuse(refusal)).await;
    let mut control = leader.control().await;
    control.send_message(to_start(&start(1, "echo hi"))).await;
    let ended = control.ended(&attempt(1)).await;
    let mut archive = Archive::default();
    archive_all(&mut leader, &control, &attempt(1), &mut archive, ended.output.end).await;
    assert_eq!(archive.bytes["stdout"], b"hi\n");
    // When the leader is gone, the configured address is dialled again.
    drop((control, leader));
    follower.control_socket().await;
}

/// An agent that had been sent to its leader ignored the address that this leader named.
#[tokio::test]
async fn a_stopping_leader_may_name_the_next() {
    let mut follower = Gateway::start(TOKEN).await;
    let mut leader = Gateway::start(TOKEN).await;
    let mut next = Gateway::start(TOKEN).await;
    let mut node = Node::new();
    let mut config = node.config(&follower);
    config.timing.settled_after = Duration::ZERO;
    node.start_as(config);
    for (gateway, named) in [(&mut follower, leader.address.clone()), (&mut leader, next.address.clone())] {
        let mut socket = gateway.control_socket().await;
        let ToOperator::Hello(_) = next_message(&mut socket).await else { panic!("no Hello") };
        send_to(&mut socket, &ToAgent::Refuse(SessionRefusal::NotLeader { leader: Some(named) })).await;
    }
    next.control().await;
}

#[tokio::test]
async fn agents_share_a_process_but_not_a_state_directory() {
    let mut gateway = Gateway::start(TOKEN).await;
    let node = Node::with_agent(&gateway);
    let first = gateway.control().await;
    let second = sentinel_node_agent::run(node.config(&gateway), std::future::pending()).await;
    assert!(matches!(second, Err(AgentError::StateDir { .. })), "{second:?}");
    let _other = Node::with_agent(&gateway);
    let other = gateway.control().await;
    assert_ne!(first.hello.state_id, other.hello.state_id);
}

#[tokio::test]
async fn commands_beyond_the_maximum_are_refused() {
    let mut gateway = Gateway::start(TOKEN).await;
    let mut node = Node::new();
    let mut config = node.config(&gateway);
    config.rules.max_attempts = 2;
    node.start_as(config);
    let mut control = gateway.control().await;
    for run in 1..=3 {
        control.send_message(to_start(&start(run, "exec sleep 60"))).await;
    }
    let refused = control.refused().await;
    assert_eq!(
        (refused.attempt, refused.refusal),
        (attempt(3), Refusal::TooManyAttempts { limit: 2, rule: None })
    );
    for run in 1..=2 {
        control.send_message(cancel(run)).await;
    }
    control.ended(&attempt(1)).await;
}
