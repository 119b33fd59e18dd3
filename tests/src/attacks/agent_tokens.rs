//! Clients without a valid token: they cause TokenReviews at the API server, and occupy connections that agents need.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use tokio::io::AsyncReadExt as _;

use super::Attack;
use super::agents::{Fleet, STRANGER, connect, forged};
use super::kit::{ANSWERED_WITHIN, MIB, Row, Size};

/// See the module.
pub const ATTACK: Attack = Attack {
    name: "tokens",
    group: "gateway",
    about: "forged tokens and silent connections, thousands of them from one address",
    run,
};

/// Reviews of one address at once, and a second.
const BURST: usize = 2_000;
const PER_SECOND: usize = 100;

/// Connections of one address that have not proved who they are.
const PER_ADDRESS: usize = 1_000;

fn run(size: Size) -> BoxFuture<'static, Result<Vec<Row>>> {
    async move { Ok(vec![tokens(size).await?, places(size).await?]) }.boxed()
}

async fn tokens(size: Size) -> Result<Row> {
    let fleet = Fleet::start().await?;
    let known = fleet.agent("known").await?;
    let before = fleet.reviews();
    let count = size.pick(4_000, 19_000);
    let sampler = fleet.victim.watch();
    let begun = Instant::now();
    let mut faults = Vec::new();
    let mut done = 0;
    while done < count {
        let tries = (done..count.min(done + 250)).map(|number| async move { forged(number) });
        let tokens: Vec<String> = join_all(tries).await;
        done += tokens.len();
        let dials = tokens.iter().map(|token| fleet.dial("control", token, STRANGER));
        if join_all(dials).await.iter().any(Result::is_ok) {
            faults.push("a forged token opened a socket".to_owned());
        }
        if done % 1_000 == 0 {
            for node in ["known", "new"] {
                if let Err(error) = fleet.agent(&format!("{node}-{done}")).await {
                    faults.push(format!("an agent was not let in meanwhile: {error:#}"));
                }
            }
        }
    }
    let took = begun.elapsed();
    drop(known);
    let logins = 2 * (count / 1_000);
    let accepted = fleet.reviews().saturating_sub(before + logins);
    let memory = sampler.finish();
    fleet.victim.close().await;
    Ok(Row {
        attack: ATTACK.name,
        tried: format!(
            "{count} forged tokens from one address in {:.1} s; accepted are reviews",
            took.as_secs_f64()
        ),
        accepted,
        refused: count.saturating_sub(accepted),
        may_accept: BURST + (took.as_secs() as usize + 1) * PER_SECOND,
        memory,
        bound: 32 * MIB,
        faults,
    })
}

async fn places(size: Size) -> Result<Row> {
    let fleet = Fleet::start().await?;
    let gateway = fleet.victim.gateway.context("the operator has a gateway")?;
    let count = size.pick(1_400, 19_000);
    let sampler = fleet.victim.watch();
    let mut held = Vec::new();
    let mut closed = 0;
    for _ in 0..count {
        // The kernel may refuse one while thousands wait for their end.
        match connect(gateway, STRANGER).await {
            Ok(stream) => held.push(stream),
            Err(_) => closed += 1,
        }
    }
    let mut faults = Vec::new();
    if let Err(error) = fleet.agent("honest").await {
        faults.push(format!("an agent was not let in meanwhile: {error:#}"));
    }
    // The operator closes the others at its own pace.
    let waiting = Instant::now();
    while count - closed > PER_ADDRESS && waiting.elapsed() < ANSWERED_WITHIN {
        let mut open = Vec::new();
        for mut stream in held {
            let mut byte = [0; 1];
            let read = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut byte)).await;
            if read.is_ok() { closed += 1 } else { open.push(stream) }
        }
        held = open;
    }
    let memory = sampler.finish();
    fleet.victim.close().await;
    let accepted = count - closed;
    Ok(Row {
        attack: ATTACK.name,
        tried: format!("{count} silent connections from one address"),
        accepted,
        refused: closed,
        may_accept: PER_ADDRESS,
        memory,
        bound: 24 * MIB,
        faults,
    })
}
