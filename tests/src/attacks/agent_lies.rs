//! An agent that lies about all it can: Attempts that it never had, those of another node, sizes, positions and credit. Beside it an
//! honest agent is connected, whose Session must not notice; that its Executions do not either is shown by the test `hostile_agent`, on
//! an API server that has Tasks.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use sentinel_operator::gateway::registry::MAX_OWNED;
use sentinel_protocol::codec::encode_record;
use sentinel_protocol::limits::{INVENTORY_PART, MAX_RECORD_DATA};
use sentinel_protocol::log::{LogRecord, RecordHead, Stream};
use sentinel_protocol::to_operator::{Inventory, Report, ReportedState, ToOperator};
use tokio_tungstenite::tungstenite::Message;

use super::Attack;
use super::agents::{Agent, Fleet, report, send};
use super::kit::{MIB, Row, Size};

/// See the module.
pub const ATTACK: Attack = Attack {
    name: "lies",
    group: "gateway",
    about: "an agent that invents Attempts, names those of another node, and lies about sizes, positions and credit",
    run,
};

/// Messages between two pings, whose answers show that the Session lives.
const BATCH: usize = 500;

/// Reports of Attempts of another node.
const FOREIGN: usize = 50;

/// Parts of the Inventory without end: five times what an agent may own.
const PARTS: usize = MAX_OWNED / INVENTORY_PART * 5;

/// How soon an honest agent is answered, on a machine that has other work too.
const SERVED_WITHIN: Duration = Duration::from_secs(20);

fn run(size: Size) -> BoxFuture<'static, Result<Vec<Row>>> {
    async move {
        let fleet = Fleet::start().await?;
        let mut honest = Honest { agent: fleet.agent("honest").await?, slowest: Duration::ZERO };
        let sampler = fleet.victim.watch();
        let mut faults = Vec::new();
        let (invented, ended) = invent(&fleet, &mut honest, size.pick(100_000, 1_000_000)).await?;
        if ended == 0 {
            faults.push(format!("{invented} invented Attempts ended no Session"));
        }
        let foreign = foreign(&fleet, &mut honest).await?;
        if foreign < FOREIGN {
            let taken = FOREIGN - foreign;
            faults.push(format!("{taken} of {FOREIGN} Reports about another node's Attempts ended no Session"));
        }
        let counted = fleet.security("ForeignReport").await?;
        if counted != FOREIGN {
            faults.push(format!("{counted} of {FOREIGN} Reports about another node's Attempts were counted"));
        }
        let parts = inventory(&fleet, &mut honest).await?;
        if parts == PARTS {
            faults.push(format!("an Inventory of {PARTS} parts ended no Session"));
        }
        let (frames, kept) = output(&fleet, &mut honest, size.pick(64, 512)).await?;
        if kept > 0 {
            faults.push(format!("{kept} bytes of credit are reserved for output of Attempts that do not exist"));
        }
        if let Err(error) = honest.asks().await {
            faults.push(format!("the honest agent's Session ended: {error:#}"));
        }
        if honest.slowest > SERVED_WITHIN {
            faults.push(format!("the honest agent was answered after {:?}", honest.slowest));
        }
        if !fleet.victim.is_alive().await {
            faults.push("/healthz does not answer".to_owned());
        }
        let memory = sampler.finish();
        fleet.victim.close().await;
        let tried = format!(
            "{invented} invented Attempts ({ended} Sessions ended), {foreign} of another node, an Inventory of {parts} parts, {frames} \
             frames of false output; the honest agent was answered within {:.1} s",
            honest.slowest.as_secs_f64()
        );
        let refused = ended + foreign + frames;
        Ok(vec![Row { attack: ATTACK.name, tried, accepted: kept, refused, may_accept: 0, memory, bound: 32 * MIB, faults }])
    }
    .boxed()
}

/// An agent that does nothing wrong.
struct Honest {
    agent: Agent,
    slowest: Duration,
}

impl Honest {
    /// Its Session lives, and how soon it is answered.
    async fn asks(&mut self) -> Result<()> {
        let asked = Instant::now();
        self.agent.flush().await?;
        self.slowest = self.slowest.max(asked.elapsed());
        Ok(())
    }
}

/// Reports of Attempts that never were. Returns how many, and how many Sessions that has ended.
async fn invent(fleet: &Fleet, honest: &mut Honest, count: usize) -> Result<(usize, usize)> {
    let (mut sent, mut ended) = (0, 0);
    while sent < count {
        let mut liar = fleet.agent("liar").await?;
        loop {
            for number in sent..(sent + BATCH).min(count) {
                let report = report(&format!("invented-{number}/1/liar/1"), ReportedState::Accepted)?;
                let text = serde_json::to_string(&report)?;
                if liar.control.feed(Message::text(text)).await.is_err() {
                    break;
                }
            }
            sent += BATCH;
            honest.asks().await?;
            if liar.flush().await.is_err() {
                ended += 1;
                break;
            }
            if sent >= count {
                break;
            }
        }
    }
    Ok((sent.min(count), ended))
}

/// Reports of Attempts of another node: each ends its Session. Returns how many did.
async fn foreign(fleet: &Fleet, honest: &mut Honest) -> Result<usize> {
    let mut ended = 0;
    for number in 1..=FOREIGN {
        let mut liar = fleet.agent("liar").await?;
        send(&mut liar.control, &report(&format!("task/{number}/honest/1"), ReportedState::Accepted)?)
            .await?;
        ended += usize::from(liar.flush().await.is_err());
        honest.asks().await?;
    }
    Ok(ended)
}

/// An Inventory without end. Returns the parts that were taken.
async fn inventory(fleet: &Fleet, honest: &mut Honest) -> Result<usize> {
    let mut liar = fleet.agent("liar").await?;
    for part in 0..PARTS {
        let attempts: Result<Vec<Report>> = (0..INVENTORY_PART)
            .map(|number| {
                match report(&format!("listed-{part}-{number}/1/liar/1"), ReportedState::Accepted)? {
                    ToOperator::Report(report) => Ok(*report),
                    _ => anyhow::bail!("no Report"),
                }
            })
            .collect();
        let part_of_it = Inventory { attempts: attempts?, more: true, sealing_key: None };
        let sent = send(&mut liar.control, &ToOperator::Inventory(part_of_it)).await;
        if sent.is_err() || liar.flush().await.is_err() {
            return Ok(part);
        }
        honest.asks().await?;
    }
    Ok(PARTS)
}

/// Output without credit, of Attempts that do not exist, with false sizes and positions. Returns the frames, and the credit that is
/// reserved for them.
async fn output(fleet: &Fleet, honest: &mut Honest, count: usize) -> Result<(usize, usize)> {
    let liar = fleet.agent("liar").await?;
    let data = Bytes::from(vec![b'x'; MAX_RECORD_DATA]);
    for number in 0..count {
        let mut logs = liar.logs().await?;
        let position = [0, 1 << 40, i64::MAX as u64 - data.len() as u64][number % 3];
        let head = RecordHead {
            stream: Stream::Stdout,
            position,
            offset: position,
            len: data.len() as u64,
            at_micros: i64::MAX,
            dropped: None,
        };
        let attempt = format!("task/{}/{}/1", number + 1, ["liar", "honest"][number % 2]).parse()?;
        let mut frame = encode_record(&attempt, &LogRecord { head, data: data.clone() })?.to_vec();
        match number % 4 {
            // More than it states, and less.
            0 => frame.extend([b'x'; 100]),
            1 => frame.truncate(frame.len() - 1),
            2 => frame.extend(vec![b'x'; 1 << 20]),
            _ => {}
        }
        // The operator may close the socket meanwhile.
        let _ = logs.send(Message::binary(frame)).await;
        let _ = logs.send(Message::Ping(b"flush"[..].into())).await;
        while matches!(logs.next().await, Some(Ok(message)) if !matches!(message, Message::Pong(_) | Message::Close(_)))
        {
        }
        honest.asks().await?;
    }
    Ok((count, fleet.metric("sentinel_logs_reserved_bytes").await?))
}
