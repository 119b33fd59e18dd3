//! One token, any number of sockets: each with a message that is never finished, or with offers of output of Attempts
//! that do not exist.

use std::time::Duration;

use anyhow::Result;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use sentinel_protocol::log::LogControl;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::Attack;
use super::agents::{Agent, Fleet, Socket, send};
use super::kit::{ANSWERED_WITHIN, MIB, Row, Size};

/// See the module.
pub const ATTACK: Attack = Attack {
    name: "sockets",
    group: "gateway",
    about: "log sockets of one token, each with an unfinished message kept alive by pings, or with unknown output",
    run,
};

fn run(size: Size) -> BoxFuture<'static, Result<Vec<Row>>> {
    async move { Ok(vec![fragments(size).await?, offers(size).await?]) }.boxed()
}

/// Sockets that one agent may have of a kind.
const MAX_SOCKETS: usize = 2;

async fn fragments(size: Size) -> Result<Row> {
    let fleet = Fleet::start().await?;
    let mut agent = fleet.agent("opener").await?;
    let count = size.pick(60, 300);
    let sampler = fleet.victim.watch();
    let mut sockets = Vec::new();
    for _ in 0..count {
        let mut socket = agent.logs().await?;
        // Most of the largest record.
        let begin = Frame::message(vec![b'x'; 120_000], OpCode::Data(Data::Binary), false);
        let _ = socket.send(Message::Frame(begin)).await;
        sockets.push(socket);
    }
    agent.flush().await?;
    // The operator closes the others at its own pace.
    let waiting = tokio::time::Instant::now();
    let mut accepted = count - closed(&mut sockets).await;
    while accepted > MAX_SOCKETS && waiting.elapsed() < ANSWERED_WITHIN {
        accepted = count - closed(&mut sockets).await;
    }
    let mut faults = Vec::new();
    // Longer than a message may take.
    let until = tokio::time::Instant::now() + Duration::from_secs(25);
    while tokio::time::Instant::now() < until {
        for socket in &mut sockets {
            let _ = socket.send(Message::Ping(vec![0; 64].into())).await;
        }
        agent.flush().await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    if closed(&mut sockets).await < count {
        faults.push("a message that is never finished is waited for as long as pings come".to_owned());
    }
    let memory = sampler.finish();
    fleet.victim.close().await;
    Ok(Row {
        attack: ATTACK.name,
        tried: format!("{count} log sockets of one token, an unfinished message on each, pings for 25 s"),
        accepted,
        refused: count - accepted,
        may_accept: MAX_SOCKETS,
        memory,
        bound: 16 * MIB,
        faults,
    })
}

/// How many of them the operator has closed.
async fn closed(sockets: &mut [Socket]) -> usize {
    let mut closed = 0;
    for socket in sockets {
        let over = async {
            loop {
                match socket.next().await {
                    None | Some(Err(_) | Ok(Message::Close(_))) => return,
                    Some(Ok(_)) => {}
                }
            }
        };
        closed += usize::from(tokio::time::timeout(Duration::from_millis(20), over).await.is_ok());
    }
    closed
}

async fn offers(size: Size) -> Result<Row> {
    let fleet = Fleet::start().await?;
    let sampler = fleet.victim.watch();
    let (nodes, each) = (size.pick(10, 60), 1024);
    let mut agents: Vec<(Agent, Socket)> = Vec::new();
    for number in 0..nodes {
        let node = format!("opener-{number}");
        let agent = fleet.agent(&node).await?;
        let mut logs = agent.logs().await?;
        for run in 1..=each {
            let attempt = format!("task/{run}/{node}/1").parse()?;
            send(&mut logs, &LogControl::Open { attempt, oldest: 0 }).await?;
        }
        logs.send(Message::Ping(b"flush"[..].into())).await?;
        while !matches!(logs.next().await, Some(Ok(Message::Pong(_)) | Err(_)) | None) {}
        agents.push((agent, logs));
    }
    let reserved = fleet.metric("sentinel_logs_reserved_bytes").await?;
    let mut faults = Vec::new();
    if reserved > 0 {
        faults.push(format!("{reserved} bytes of credit are reserved for Attempts that do not exist"));
    }
    let memory = sampler.finish();
    fleet.victim.close().await;
    Ok(Row {
        attack: ATTACK.name,
        tried: format!("{nodes} x {each} offers of output of Attempts that do not exist"),
        accepted: reserved / (128 << 10),
        refused: nodes * each - reserved / (128 << 10),
        may_accept: 0,
        memory,
        bound: 24 * MIB,
        faults,
    })
}
