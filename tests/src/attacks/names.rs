//! Names that would change the path of a request to the API server: they reach neither it nor a store. And a namespace
//! that the operator is not for.

use anyhow::Result;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::Attack;
use super::kit::{MIB, Row, Size, Victim};

/// See the module.
pub const ATTACK: Attack = Attack {
    name: "names",
    group: "http",
    about: "names in paths, queries and page tokens that are not names, and another namespace than the watched one",
    run,
};

const NAMES: [&str; 12] =
    ["%3Fx", "%23x", "a%3Fb", "x%20y", "A", "-a", "a-", "a..b", "%0a", "%E2%80%AE", "a;b", "a%26b"];

fn run(_: Size) -> BoxFuture<'static, Result<Vec<Row>>> {
    async move {
        // Its cluster does not answer: a request that reached it would be answered with 503.
        let operator = Victim::operator(&["--watch-namespace", "ours"]).await?;
        let sampler = operator.watch();
        let mut tries: Vec<(&str, String)> = Vec::new();
        for name in NAMES {
            for (namespace, name) in [("ours", name), (name, "a")] {
                let task = format!("/api/v1/tasks/{namespace}/{name}");
                tries.extend([("GET", task.clone()), ("DELETE", task.clone())]);
                tries.extend(["cancel", "rerun"].map(|verb| ("POST", format!("{task}/{verb}"))));
                tries.push(("GET", format!("{task}/events")));
            }
            for list in ["tasks", "events", "runs", "executions"] {
                tries.push(("GET", format!("/api/v1/{list}?namespace={name}")));
            }
            tries.push(("GET", format!("/api/v1/tasks?page=ours%2F{name}")));
            tries.push(("GET", format!("/api/v1/runs?task={name}")));
            tries.push(("GET", format!("/api/v1/executions?node={name}")));
            tries.push(("GET", format!("/api/v1/executions/{name}%2F/1/n")));
        }
        for verb in ["GET", "DELETE"] {
            tries.push((verb, "/api/v1/tasks/theirs/a".to_owned()));
        }
        tries.push(("GET", "/api/v1/tasks?namespace=theirs".to_owned()));
        tries.push(("GET", "/api/v1/runs?namespace=theirs".to_owned()));
        tries.push(("GET", "/api/v1/events?namespace=theirs".to_owned()));
        let mut faults = Vec::new();
        for (method, path) in &tries {
            let (status, text) = operator.ask(method, path, None).await?;
            if !matches!(status, 400 | 404) {
                faults.push(format!("{status} for {method} {path}: {text}"));
            }
        }
        let row = Row {
            attack: ATTACK.name,
            tried: format!("{} requests with names that are not names, or of another namespace", tries.len()),
            accepted: faults.len(),
            refused: tries.len() - faults.len(),
            may_accept: 0,
            memory: sampler.finish(),
            bound: 16 * MIB,
            faults,
        };
        operator.close().await;
        Ok(vec![row])
    }
    .boxed()
}
