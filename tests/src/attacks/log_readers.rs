//! Readers of a log that is archived who ask for all of it and never read: what each holds is bounded, and what they have
//! read of the archive is bounded for all together.

use anyhow::{Result, ensure};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::Attack;
use super::kit::{MIB, Row, Size, Victim};
use super::readers::open;
use crate::wait::until;

/// See the module.
pub const ATTACK: Attack = Attack {
    name: "log-readers",
    group: "http",
    about: "readers of logs of 1,600,000 short lines who never read: one log, those of a Run, their lines, searches with a hit in each line",
    run,
};

const NODES: usize = 8;

/// Bytes of output of each node: many short lines, behind one that is open.
const BYTES: u64 = 1_000_000;

fn run(size: Size) -> BoxFuture<'static, Result<Vec<Row>>> {
    async move {
        let dev = Victim::dev(&["--nodes", &NODES.to_string()]).await?;
        let uid = written(&dev).await?;
        let (log, run) = (format!("executions/{uid}/1/sim-1"), format!("runs/{uid}/1"));
        let readers = size.pick(100, 200);
        let mut rows = Vec::new();
        for (of, what) in [
            (&log, "log?follow=true"),
            (&log, "log?follow=true&format=json"),
            (&log, "log?follow=true&format=jsonl"),
            (&log, "log?follow=true&timestamps=true"),
            (&log, "lines/events?from=0"),
            (&log, "search?pattern=line&limit=10000"),
            (&run, "log"),
            (&run, "log?format=jsonl"),
            (&run, "lines/events"),
            (&run, "search?pattern=line&limit=10000"),
        ] {
            let path = format!("/api/v1/{of}/{what}");
            let sampler = dev.watch();
            let credentials = dev.credentials();
            let opened = (0..readers).map(|_| open(dev.api, &path, &credentials));
            let held: Vec<(TcpStream, u16)> = join_all(opened).await.into_iter().flatten().collect();
            let accepted = held.iter().filter(|(_, status)| *status == 200).count();
            let mut faults = Vec::new();
            if accepted < readers {
                faults.push(format!("only {accepted} of {readers} were accepted"));
            }
            // One that reads gets its answer beside them; then they hold what they ever will.
            if dev.ask("GET", &format!("/api/v1/{of}/lines?tail=1"), None).await?.0 != 200 {
                faults.push("the last line cannot be read".to_owned());
            }
            let memory = sampler.finish();
            drop(held);
            let tried =
                format!("{readers} unread readers of {}/{what}", of.split('/').next().unwrap_or_default());
            let refused = readers - accepted;
            rows.push(Row {
                attack: ATTACK.name,
                tried,
                accepted,
                refused,
                may_accept: readers,
                memory,
                bound: 64 * MIB,
                faults,
            });
        }
        dev.close().await;
        Ok(rows)
    }
    .boxed()
}

/// Logs that are complete in the archive; the uid of their Task.
async fn written(dev: &Victim) -> Result<String> {
    let task = json!({
        "apiVersion": "sentinelnode.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": "log"},
        "spec": {
            "targets": {"all": true},
            "run": {"command": ["sh", "-c", format!("printf begun; yes line | head -c {} >&2", BYTES - 5)], "output": {"limit": "1Gi"}},
        },
    });
    let (status, text) = dev.ask("POST", "/api/v1/tasks", Some(&task)).await?;
    ensure!(status == 201, "the Task was not made: {status} {text}");
    let made: Value = serde_json::from_str(&text)?;
    let uid = made["metadata"]["uid"].as_str().unwrap_or_default();
    for node in 1..=NODES {
        let path = format!("/api/v1/executions/{uid}/1/sim-{node}/lines?tail=1");
        until("all of the logs have arrived", std::time::Duration::from_secs(60), || async {
            let asked = dev.ask("GET", &path, None).await;
            let (_, text) = asked.map_err(|error| error.to_string())?;
            let window: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            if window["end"] == BYTES && window["ended"] == true { Ok(()) } else { Err(text) }
        })
        .await;
    }
    Ok(uid.to_owned())
}
