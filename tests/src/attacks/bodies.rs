//! Requests with a body that never ends: route, method and guard are checked before the body is read, and reading has a
//! budget and a deadline.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

use super::Attack;
use super::kit::{MIB, Row, Size, Victim, status_of};

/// See the module.
pub const ATTACK: Attack = Attack {
    name: "bodies",
    group: "http",
    about: "POSTs of 512 KiB that stop one byte before their end, on every listener and path",
    run,
};

/// The longest time before a connection with an unfinished body is closed: seconds in which this machine ran us.
const ENDED_WITHIN: u32 = 20;

/// Bytes of each body.
const BODY: usize = 512 << 10;

fn run(size: Size) -> BoxFuture<'static, Result<Vec<Row>>> {
    async move {
        let mut rows = Vec::new();
        let operator = Victim::operator(&[]).await?;
        if let Some(metrics) = operator.metrics {
            rows.push(
                unfinished(&operator, metrics, "metrics listener, /metrics", "/metrics", "", size).await?,
            );
        }
        rows.push(
            unfinished(&operator, operator.api, "operator's API, GET path", "/api/v1/nodes", "", size)
                .await?,
        );
        operator.close().await;
        let dev = Victim::dev(&[]).await?;
        rows.push(
            unfinished(&dev, dev.api, "dev mode's API, without its token", "/api/v1/tasks", "", size).await?,
        );
        let owner = dev.credentials();
        rows.push(
            unfinished(&dev, dev.api, "dev mode's API, as its owner", "/api/v1/tasks", &owner, size).await?,
        );
        dev.close().await;
        Ok(rows)
    }
    .boxed()
}

async fn unfinished(
    victim: &Victim,
    at: SocketAddr,
    place: &str,
    path: &str,
    credentials: &str,
    size: Size,
) -> Result<Row> {
    let count = size.pick(60, 400);
    let sampler = victim.watch();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {at}\r\n{credentials}sentinel-request: 1\r\ncontent-type: application/json\r\ncontent-length: {BODY}\r\n\r\n"
    );
    let begun = Instant::now();
    let tries = (0..count).map(|_| one(at, &head));
    let (answers, seconds) = counting_seconds(join_all(tries)).await;
    let took = begun.elapsed();
    let memory = sampler.finish();
    let mut faults = Vec::new();
    if seconds > ENDED_WITHIN {
        faults.push(format!("{place}: the last connection stood {} s", took.as_secs()));
    }
    if !victim.is_alive().await {
        faults.push(format!("{place}: /healthz does not answer"));
    }
    let accepted = answers.iter().filter(|status| status.is_some_and(|status| status < 300)).count();
    Ok(Row {
        attack: ATTACK.name,
        tried: format!(
            "{count} unfinished bodies of 512 KiB: {place}; all ended after {:.1} s",
            took.as_secs_f64()
        ),
        accepted,
        refused: count - accepted,
        may_accept: 0,
        memory,
        bound: 40 * MIB,
        faults,
    })
}

/// The seconds of some work, without those in which this machine did not run us.
async fn counting_seconds<T>(work: impl Future<Output = T>) -> (T, u32) {
    let mut seconds = 0;
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return (done, seconds),
            _ = ticks.tick() => seconds += 1,
        }
    }
}

/// All of a body but its last byte, and then nothing until the connection ends.
async fn one(at: SocketAddr, head: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(at).await.ok()?;
    stream.write_all(head.as_bytes()).await.ok()?;
    let (mut from, mut to) = stream.split();
    let namespace = vec![b' '; 16 << 10];
    let sending = async {
        for _ in 0..BODY / namespace.len() - 1 {
            if to.write_all(&namespace).await.is_err() {
                return;
            }
        }
        let _ = to.write_all(&namespace[1..]).await;
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = sending => {}
        _ = tokio::time::timeout(Duration::from_secs(120), from.read_to_end(&mut answer)) => {}
    }
    status_of(&String::from_utf8_lossy(&answer))
}
