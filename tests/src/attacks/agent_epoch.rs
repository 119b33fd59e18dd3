//! An agent that sends epochs which no leader can have had, so that the next leader's epoch would overflow and every
//! agent would refuse it.

use anyhow::Result;
use futures_util::FutureExt as _;
use futures_util::SinkExt as _;
use futures_util::future::BoxFuture;
use sentinel_protocol::to_agent::ToAgent;
use tokio_tungstenite::tungstenite::Message;

use super::Attack;
use super::agents::{Fleet, LOCAL, hello, receive, token};
use super::kit::{MIB, Row, Size};

/// See the module.
pub const ATTACK: Attack = Attack {
    name: "epoch",
    group: "gateway",
    about: "Hellos that name epochs near the end of all numbers",
    run,
};

fn run(size: Size) -> BoxFuture<'static, Result<Vec<Row>>> {
    async move {
        let fleet = Fleet::start().await?;
        let sampler = fleet.victim.watch();
        let epochs = [u64::MAX, u64::MAX / 2, 1 << 62, (1 << 48) - 1, 1 << 40, 1_000_000];
        let tries = size.pick(12, 300);
        let mut accepted = 0;
        for number in 0..tries {
            let mut socket = fleet.dial("control", &token("liar"), LOCAL).await?;
            let epoch = epochs[number % epochs.len()];
            let text = serde_json::to_string(&hello())?;
            let text = text.replace("\"highestEpoch\":0", &format!("\"highestEpoch\":{epoch}"));
            socket.send(Message::text(text)).await?;
            accepted += usize::from(matches!(receive(&mut socket).await?, ToAgent::Welcome(_)));
        }
        let mut faults = Vec::new();
        let mut honest = fleet.dial("control", &token("honest"), LOCAL).await?;
        super::agents::send(&mut honest, &hello()).await?;
        match receive(&mut honest).await? {
            ToAgent::Welcome(welcome) if welcome.epoch.get() == 1 => {}
            other => faults.push(format!("an honest agent is answered {other:?}")),
        }
        if fleet.security("EpochJump").await? == 0 {
            faults.push("no security event was counted".to_owned());
        }
        let memory = sampler.finish();
        fleet.victim.close().await;
        Ok(vec![Row {
            attack: ATTACK.name,
            tried: format!("{tries} Hellos with epochs from 1,000,000 to 2^64 - 1, the operator's being 1"),
            accepted,
            refused: tries - accepted,
            may_accept: 0,
            memory,
            bound: 16 * MIB,
            faults,
        }])
    }
    .boxed()
}
