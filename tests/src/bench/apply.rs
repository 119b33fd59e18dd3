//! The same through the real API server: a Task is created there, and an operator with all its real stores sees it.

use std::time::Duration;

use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api as Kube, PostParams, WatchEvent, WatchParams};
use sentinel_operator::resource::Task;
use serde_json::json;

use super::figures::{Times, clock, until_printed};
use super::limits::spawn_and_read;
use super::progress::note;
use super::setup::{AGENT, Api, CreatedTask, PRINT_TIME, agent_binary, task};
use super::table::Table;
use crate::programs::Program;
use crate::testbed::{Options, Testbed, secret};

const ROUNDS: usize = 200;
const WARM_UP: usize = 10;

/// kubectl alone takes a while to start, so a few rounds are enough.
const KUBECTL_ROUNDS: usize = 20;

pub(super) async fn measure(table: &mut Table) {
    note("apply: a namespace, an operator, an agent");
    // Not the default's agent, which is built by another profile.
    let options = Options { agent: agent_binary(), ..Options::default() };
    let testbed = Testbed::with("bench", options).await;
    let node = testbed.namespace.node("n", &[]).await;
    let token = testbed.namespace.agent_token(&node).await;
    // An agent reads no token that others can read.
    secret(&testbed.path().join("n.token"), &token);
    let agent = Program::start(AGENT, "n", testbed.path(), &testbed.agent_arguments("n"));
    testbed.reachable("n").await;
    note("apply: the floor");
    let floor = floor(&testbed).await;
    note("apply: create a Task");
    let created = created(&testbed, &node).await;
    note("apply: kubectl apply");
    let (applied, kubectl) = applied(&testbed, &node).await;
    table.times("create on the API server → process start", created, floor, "8 / 25 ms");
    table.times("kubectl apply begins → process start", applied, kubectl, "");
    drop(agent);
    testbed.close().await;
}

/// A ConfigMap is created, a watch delivers it, a process is started.
async fn floor(testbed: &Testbed) -> Times {
    let maps = Kube::<ConfigMap>::namespaced(testbed.namespace.client.clone(), &testbed.namespace.name);
    let other = testbed.namespace.parts.client().await;
    let seen = Kube::<ConfigMap>::namespaced(other, &testbed.namespace.name);
    let version =
        seen.list(&kube::api::ListParams::default()).await.expect("a list").metadata.resource_version;
    let events = seen.watch(&WatchParams::default(), &version.unwrap_or_default()).await.expect("a watch");
    let mut events = std::pin::pin!(events);
    let mut times = Vec::new();
    for number in 0..WARM_UP + ROUNDS {
        let name = format!("limit-{number}");
        let map = ConfigMap {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            ..ConfigMap::default()
        };
        let parameters = PostParams::default();
        let begun = clock();
        let create = maps.create(&parameters, &map);
        let watch = async {
            while let Some(event) = events.try_next().await.expect("an event") {
                if let WatchEvent::Added(map) = event
                    && map.metadata.name.as_ref() == Some(&name)
                {
                    return spawn_and_read();
                }
            }
            panic!("the watch ended")
        };
        let (created, printed) = tokio::join!(create, watch);
        created.expect("created");
        times.push(until_printed(begun, &printed));
    }
    Times::of(times.split_off(WARM_UP))
}

async fn created(testbed: &Testbed, node: &str) -> Times {
    let tasks = Kube::<Task>::namespaced(testbed.namespace.client.clone(), &testbed.namespace.name);
    let api = Api::at(&testbed.api);
    let mut times = Vec::new();
    for number in 0..WARM_UP + ROUNDS {
        let mut object = task(&format!("t-{number}"), &json!({"nodeNames": [node]}), PRINT_TIME);
        object["metadata"]["namespace"] = json!(testbed.namespace.name);
        let object: Task = serde_json::from_value(object).expect("a Task");
        let begun = clock();
        let task = tasks.create(&PostParams::default(), &object).await.expect("created");
        let made = CreatedTask::of(&serde_json::to_value(&task).expect("JSON"));
        let printed = api.follow(&made, node).await.text().await.expect("output");
        times.push(until_printed(begun, &printed));
        api.finished(&made).await;
    }
    Times::of(times.split_off(WARM_UP))
}

/// With kubectl, beside what kubectl alone takes to create a ConfigMap.
async fn applied(testbed: &Testbed, node: &str) -> (Times, Times) {
    let api = Api::at(&testbed.api);
    let (mut ours, mut alone) = (Vec::new(), Vec::new());
    for number in 0..KUBECTL_ROUNDS {
        let name = format!("k-{number}");
        let mut object = task(&name, &json!({"nodeNames": [node]}), PRINT_TIME);
        object["metadata"]["namespace"] = json!(testbed.namespace.name);
        let begun = clock();
        testbed.namespace.apply(&object.to_string()).await.expect("applied");
        let path = format!("/api/v1/tasks/{}/{name}", testbed.namespace.name);
        let made = CreatedTask::of(&api.get(&path).await.expect("the Task"));
        let printed = api.follow(&made, node).await.text().await.expect("output");
        ours.push(until_printed(begun, &printed));
        api.finished(&made).await;
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        let begun = std::time::Instant::now();
        testbed.namespace.apply(&map.to_string()).await.expect("applied");
        alone.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (Times::of(ours), Times::of(alone))
}
