//! An agent that reports more output than a command may write, so that the operator would wait for it forever.

use anyhow::Result;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Ended, OutputSummary, ReportedState, StreamSummary, Usage};

use super::Attack;
use super::agents::{Fleet, report, send};
use super::kit::{MIB, Row, Size};

/// See the module.
pub const ATTACK: Attack =
    Attack { name: "output-end", group: "gateway", about: "ends of output at 2^62, which never comes", run };

fn run(size: Size) -> BoxFuture<'static, Result<Vec<Row>>> {
    async move {
        let fleet = Fleet::start().await?;
        let mut agent = fleet.agent("writer").await?;
        let count = size.pick(50, 400);
        let sampler = fleet.victim.watch();
        for number in 1..=count {
            let end = 1 << 62;
            let stdout = StreamSummary { bytes: end, ..StreamSummary::default() };
            let ended = Ended {
                outcome: Outcome::Succeeded { exit_code: 0 },
                started_at: Some(UnixMillis(1)),
                ended_at: UnixMillis(2),
                exit: sentinel_protocol::exit::ExitDetails::default(),
                usage: Usage::default(),
                output: OutputSummary { stdout, end, ..OutputSummary::default() },
            };
            let state = ReportedState::Ended(Box::new(ended));
            send(&mut agent.control, &report(&format!("task/{number}/writer/1"), state)?).await?;
        }
        agent.flush().await?;
        let refused = fleet.security("OutputBeyondLimit").await?;
        let memory = sampler.finish();
        fleet.victim.close().await;
        Ok(vec![Row {
            attack: ATTACK.name,
            tried: format!("{count} results with output that ends at 2^62"),
            accepted: count - refused,
            refused,
            may_accept: 0,
            memory,
            bound: 16 * MIB,
            faults: Vec::new(),
        }])
    }
    .boxed()
}
