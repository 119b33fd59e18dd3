//! Metrics of the last 15 minutes are read as soon as they are received, whatever History does.

use sentinel_protocol::metrics::{DiskMetrics, NetworkMetrics, NodeMetrics};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Heartbeat, ToOperator};
use serde_json::{Value, json};

use crate::operator::TestOperator;
use crate::stores::faulty::Fault;

fn heartbeat() -> ToOperator {
    let disk = |total, available| DiskMetrics { mount: "/".into(), total, available };
    ToOperator::Heartbeat(Heartbeat {
        at: UnixMillis(1),
        metrics: NodeMetrics {
            cpu_percent: 42.25,
            cpu_count: 4,
            memory_used: 3 << 30,
            memory_total: 4 << 30,
            load: [2.5, 0.0, 0.0],
            disks: vec![disk(100, 90), disk(100, 30)],
            networks: vec![NetworkMetrics { interface: "eth0".into(), received: 5, sent: 6 }],
            ..NodeMetrics::default()
        },
        audit: None,
    })
}

/// The value of the only slot that has one.
fn only(values: &Value) -> Value {
    let values = values.as_array().unwrap();
    assert_eq!(values.len(), 90);
    let known: Vec<_> = values.iter().filter(|value| !value.is_null()).collect();
    assert!(known.len() <= 1, "{values:?}");
    known.first().map_or(Value::Null, |value| (*value).clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_of_a_node_are_read_at_once() {
    let operator = TestOperator::new(&["a", "b"]).await;
    operator.history.set(Fault::Unavailable);
    let mut agent = operator.agent("a").await;
    let silent = operator.get("/nodes/a/samples").await;
    assert_eq!(only(&silent["cpu"]), Value::Null);
    assert_eq!(operator.get("/samples?nodes=a,b").await["cpu"], json!({}));

    agent.send_json(&heartbeat()).await;
    let shown = operator.until("/nodes/a", |node| node["metrics"]["cpuCount"] == 4).await;
    let samples = operator.get("/nodes/a/samples").await;
    assert_eq!((&samples["name"], &samples["slotMs"]), (&shown["name"], &json!(10_000)));
    assert_eq!(only(&samples["cpu"]), json!(42.25));
    assert_eq!(only(&samples["memory"]), json!(75.0));
    assert_eq!(only(&samples["disk"]), json!(70.0), "the fullest");
    assert_eq!(only(&samples["load"]), json!(2.5));
    assert_eq!(only(&samples["received"]), Value::Null, "nothing to compare with");
    let start: jiff::Timestamp = samples["start"].as_str().unwrap().parse().unwrap();
    let age = operator.now().0 - start.as_millisecond();
    assert!((890_000..930_000).contains(&age), "{age}");

    let fleet = operator.get("/samples?nodes=b,a,unknown").await;
    let cpu = fleet["cpu"].as_object().unwrap();
    assert_eq!(cpu.keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(only(&cpu["a"]), json!(42));

    // What was received stays readable when the agent has gone.
    drop(agent);
    operator.until("/nodes/a", |node| node["reachable"] == false).await;
    assert_eq!(only(&operator.get("/nodes/a/samples").await["cpu"]), json!(42.25));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_are_of_nodes_that_exist_and_of_a_screen_of_them() {
    let operator = TestOperator::new(&["a"]).await;
    assert_eq!(operator.ask("/nodes/nope/samples").await.0, 404);
    let names = |count: usize| vec!["a"; count].join(",");
    assert_eq!(operator.ask(&format!("/samples?nodes={}", names(100))).await.0, 200);
    for wrong in
        ["/samples".to_owned(), "/samples?nodes=a,N_N".to_owned(), format!("/samples?nodes={}", names(101))]
    {
        let (status, error) = operator.ask(&wrong).await;
        assert_eq!(status, 400, "{wrong}: {error}");
        assert_eq!(
            (&error["field"], &error["allowed"]),
            (&json!("nodes"), &json!("1 to 100 names of nodes, separated by commas"))
        );
    }
}
