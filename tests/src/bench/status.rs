//! What a Run writes into a real API server, by the API server's own count.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use kube::api::{Api as Kube, PostParams};
use sentinel_operator::resource::Task;
use serde_json::json;

use super::events::Ends;
use super::operator::{ApiServer, Wanted};
use super::progress::note;
use super::scale::NODES;
use super::setup::{Setup, task};
use super::simulated_agents;
use super::table::Table;
use crate::cluster::TestNamespace;

/// Nodes that are made at a time.
const AT_ONCE: usize = 64;

/// What a Run may write whatever its size, and each second besides.
const ONCE: f64 = 4.0;
const EACH_SECOND: f64 = 2.0;

/// A label with the smallest size that a node is part of.
const SIZE: &str = "bench-size";
const SIZES: [usize; 3] = [10, 1000, NODES];

pub(super) async fn measure(table: &mut Table) {
    note(&format!("status: {NODES} nodes on the API server"));
    let namespace = TestNamespace::new("bench-status").await;
    let names: Vec<String> =
        stream::iter(0..NODES).map(|at| node(&namespace, at)).buffered(AT_ONCE).collect().await;
    let server =
        ApiServer { kubeconfig: namespace.parts.kubeconfig.clone(), namespace: namespace.name.clone() };
    let setup = Setup::with(Wanted { nodes: names, api_server: Some(server), ..Wanted::default() }).await;
    note("status: their agents");
    let agents = simulated_agents::connect(&setup).await;
    let mut ends = Ends::of(&setup.api).await;
    for size in SIZES {
        note(&format!("status: a Run over {size}"));
        let before = Writes::of(&namespace).await;
        let time = run(&namespace, &mut ends, size).await.as_secs_f64();
        // What is written behind its end.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let after = Writes::of(&namespace).await;
        // One of them made the Task.
        let writes = after.ours - before.ours - 1.0;
        let aim = format!("{:.0}", ONCE + (EACH_SECOND * time).ceil());
        let what = format!("writes of a Run over {size} nodes, {time:.1} s, into the API server");
        table.number(&what, writes, None, "", &aim);
        table.number("  of them target slices", after.slices - before.slices, None, "", "");
        table.number("  events besides", after.events - before.events, None, "", "");
    }
    agents.end().await;
    setup.operator.end().await;
    namespace.close().await;
}

async fn node(namespace: &TestNamespace, at: usize) -> String {
    let size = SIZES.iter().find(|size| at < **size).expect("no node beyond the largest size");
    namespace.node(&format!("n-{at:05}"), &[(SIZE, &size.to_string())]).await
}

/// A Run over the first nodes; how long it took.
async fn run(namespace: &TestNamespace, ends: &mut Ends, size: usize) -> Duration {
    let sizes: Vec<String> =
        SIZES.iter().filter(|part| **part <= size).map(|part| part.to_string()).collect();
    let name = format!("over-{size}");
    let part_of = json!([{"key": SIZE, "operator": "In", "values": sizes}]);
    let mut object = task(&name, &json!({"nodeSelector": {"matchExpressions": part_of}}), "true");
    object["metadata"]["namespace"] = json!(namespace.name);
    let object: Task = serde_json::from_value(object).expect("a Task");
    let begun = Instant::now();
    let tasks = Kube::<Task>::namespaced(namespace.client.clone(), &namespace.name);
    tasks.create(&PostParams::default(), &object).await.expect("created");
    ends.of_task(&name).await - begun
}

/// Writes that the API server has served since its start.
#[derive(Debug, Clone, Copy)]
struct Writes {
    /// Of our kinds.
    ours: f64,
    /// Of target slices, which are among them.
    slices: f64,
    /// Of events.
    events: f64,
}

impl Writes {
    async fn of(namespace: &TestNamespace) -> Self {
        let asked = namespace.parts.kubectl(&["get", "--raw", "/metrics"]).await;
        let text = asked.expect("the API server's metrics");
        Self::counted(&text)
    }

    fn counted(metrics: &str) -> Self {
        let sum = |label: &str| {
            let counted = metrics.lines().filter(|line| line.starts_with("apiserver_request_total{"));
            let written = counted.filter(|line| {
                ["POST", "PUT", "PATCH", "APPLY", "DELETE"]
                    .iter()
                    .any(|verb| line.contains(&format!("verb=\"{verb}\"")))
            });
            let values =
                written.filter(|line| line.contains(label)).filter_map(|line| line.rsplit(' ').next());
            values.map(|value| value.parse::<f64>().expect("a number")).sum()
        };
        Self {
            ours: sum("group=\"sentinelnode.dev\""),
            slices: sum("resource=\"targetslices\""),
            events: sum("resource=\"events\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_of_our_kinds_are_counted_and_reads_are_not() {
        let metrics = r#"
# HELP apiserver_request_total Counter of apiserver requests.
apiserver_request_total{code="200",group="sentinelnode.dev",resource="tasks",subresource="status",verb="PATCH"} 3
apiserver_request_total{code="201",group="sentinelnode.dev",resource="tasks",subresource="",verb="POST"} 1
apiserver_request_total{code="201",group="sentinelnode.dev",resource="targetslices",subresource="",verb="POST"} 1
apiserver_request_total{code="200",group="sentinelnode.dev",resource="tasks",subresource="",verb="LIST"} 7
apiserver_request_total{code="201",group="events.k8s.io",resource="events",subresource="",verb="POST"} 2
apiserver_request_total{code="200",group="",resource="nodes",subresource="",verb="PATCH"} 5
"#;
        let Writes { ours, slices, events } = Writes::counted(metrics);
        assert_eq!((ours, slices, events), (5.0, 1.0, 2.0));
    }
}
