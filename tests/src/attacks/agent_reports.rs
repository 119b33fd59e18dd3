//! An agent that reports without end: large texts about Tasks that do not exist, and Attempts that were never started.

use anyhow::Result;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, SinkExt as _};
use sentinel_protocol::outcome::{Outcome, StartFailure};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Ended, OutputSummary, ReportedState, Usage};
use tokio_tungstenite::tungstenite::Message;

use super::Attack;
use super::agents::{Agent, Fleet, report};
use super::kit::{MIB, Row, Size};

/// See the module.
pub const ATTACK: Attack = Attack {
    name: "reports",
    group: "gateway",
    about: "Reports with texts of nearly 1 MiB, of Tasks that do not exist and of Attempts that were never started",
    run,
};

/// Bytes of one text; the frame around it is below the largest.
const TEXT: usize = 1_000_000;

/// Attempts that an Execution may have, one of a Run that is not known included.
const MAX_ATTEMPTS: usize = 21;

fn run(size: Size) -> BoxFuture<'static, Result<Vec<Row>>> {
    async move {
        let count = size.pick(100, 600);
        let unknown = flood(count, |number| format!("unknown-{number}/1/reporter/1")).await?;
        let tried = format!("{count} Reports of 1 MB for Tasks that do not exist");
        let rows = vec![
            // Each is truncated, and kept until its Task is known.
            Row { tried, may_accept: count, ..unknown },
            {
                let row = flood(400, |number| format!("task/1/reporter/{}", number + 2)).await?;
                let tried = "Attempts 2 to 401 of one Run, with texts of 1 MB".to_owned();
                Row { tried, may_accept: MAX_ATTEMPTS - 1, ..row }
            },
        ];
        Ok(rows)
    }
    .boxed()
}

async fn flood(count: usize, id: impl Fn(usize) -> String) -> Result<Row> {
    let fleet = Fleet::start().await?;
    let mut agent: Agent = fleet.agent("reporter").await?;
    let text = "x".repeat(TEXT);
    let sampler = fleet.victim.watch();
    for number in 0..count {
        let ended = Ended {
            outcome: Outcome::StartFailed { reason: StartFailure::Other, message: "MESSAGE".into() },
            started_at: None,
            ended_at: UnixMillis(1),
            exit: sentinel_protocol::exit::ExitDetails::default(),
            usage: Usage::default(),
            output: OutputSummary::default(),
        };
        let report = serde_json::to_string(&report(&id(number), ReportedState::Ended(Box::new(ended)))?)?;
        agent.control.send(Message::text(report.replace("MESSAGE", &text))).await?;
    }
    agent.flush().await?;
    let refused = fleet.security("UnstartedAttempt").await?;
    drop(agent);
    let mut faults = Vec::new();
    if !fleet.victim.is_alive().await {
        faults.push("/healthz does not answer".to_owned());
    }
    let memory = sampler.finish();
    fleet.victim.close().await;
    Ok(Row {
        attack: ATTACK.name,
        tried: String::new(),
        accepted: count - refused,
        refused,
        may_accept: 0,
        memory,
        bound: 24 * MIB,
        faults,
    })
}
