//! Agents as pods of real nodes, each with a kubelet and a process 1 of its own. Run by `just test-nodes`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::collections::BTreeSet;
use std::time::Duration;

use sentinel_tests::machines::escape::{BASELINE_AS_ROOT, successes};
use sentinel_tests::machines::pods::{Pods, node_boot, node_exec, node_kill};
use sentinel_tests::wait::until;
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

/// One pod with a state directory to a node.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const PATIENCE: Duration = Duration::from_mins(1);

async fn pods(test: &str) -> (Pods, MutexGuard<'static, ()>) {
    let guard = ONE_AT_A_TIME.lock().await;
    (Pods::deploy(test).await, guard)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real nodes: just test-nodes"]
async fn commands_run_in_agent_container_or_on_host() {
    let (pods, _guard) = pods("environments").await;
    let script = "hostname; cat /etc/hostname; cat /proc/self/cgroup; exit 0";
    let container = pods.task("container", "Container", script).await;
    let host = pods.task("host", "Host", script).await;
    for node in &pods.nodes {
        for uid in [&container, &host] {
            let execution = pods.ended(uid, node).await;
            assert_eq!(execution["outcome"], "Succeeded", "{execution}");
        }
        let log = pods.log(&container, node).await;
        assert_eq!(log.lines().next(), Some(pods.pod(node).await.as_str()), "{log}");
        let log = pods.log(&host, node).await;
        let names: Vec<&str> = log.lines().take(2).collect();
        assert_eq!(names, [node, node]);
        assert!(log.contains("/sentinel/") && !log.contains("kubepods"), "its control groups are {log}");
    }
    pods.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real nodes: just test-nodes"]
async fn host_commands_outlive_agent_pods_and_are_adopted() {
    let (pods, _guard) = pods("rolled").await;
    let script = "echo start >>/var/recording; i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i + 1)); sleep 0.1; done; \
                  echo waiting; while [ ! -e /var/enough ]; do sleep 0.2; done; echo end >>/var/recording";
    let uid = pods.task("long", "Host", script).await;
    for node in &pods.nodes {
        pods.output_contains(&uid, node, "line 3\n").await;
    }
    // Deleted by hand, then rolled.
    pods.kubectl(&["delete", "pods", "-l", "app=node-agent", "--wait"]).await;
    pods.rolled_out().await;
    for node in &pods.nodes {
        pods.reachable(node).await;
    }
    pods.kubectl(&["rollout", "restart", "daemonset/node-agent"]).await;
    pods.rolled_out().await;
    for node in &pods.nodes {
        pods.output_contains(&uid, node, "waiting").await;
        node_exec(node, "touch /var/enough").await.unwrap();
    }
    let expected: String =
        (0..200).map(|line| format!("line {line}\n")).chain(["waiting\n".into()]).collect();
    for node in &pods.nodes {
        let execution = pods.ended(&uid, node).await;
        assert_eq!(execution["outcome"], "Succeeded", "{execution}");
        assert_eq!(pods.log(&uid, node).await, expected, "{node}");
        let recording = node_exec(node, "cat /var/recording; rm /var/enough").await.unwrap();
        assert_eq!(recording, "start\nend\n", "{node}");
    }
    pods.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real nodes: just test-nodes"]
async fn node_after_power_cut_reconnects_and_reports_lost() {
    let (pods, _guard) = pods("power").await;
    let [kept, cut] = &pods.nodes[..] else { panic!("two nodes are needed, not {:?}", pods.nodes) };
    let script = "echo start >>/var/recording; echo begun; while [ ! -e /var/enough ]; do sleep 0.2; done";
    let uid = pods.task("cut", "Host", script).await;
    for node in &pods.nodes {
        pods.output_contains(&uid, node, "begun").await;
    }
    node_kill(cut).await;
    until("the node is unreachable", PATIENCE, || async {
        let node = pods.testbed.get(&format!("/api/v1/nodes/{cut}")).await?;
        if node["reachable"] == false { Ok(()) } else { Err(node.to_string()) }
    })
    .await;
    node_boot(cut).await;
    let execution = pods.ended(&uid, cut).await;
    assert_eq!(execution["outcome"], "Lost", "{execution}");
    assert!(execution["message"].as_str().unwrap().contains("rebooted"), "{execution}");
    pods.reachable(cut).await;
    node_exec(kept, "touch /var/enough").await.unwrap();
    let execution = pods.ended(&uid, kept).await;
    assert_eq!(execution["outcome"], "Succeeded", "{execution}");
    let after = pods.task("after", "Host", "hostname").await;
    for node in &pods.nodes {
        let execution = pods.ended(&after, node).await;
        assert_eq!(execution["outcome"], "Succeeded", "{execution}");
        let recording = node_exec(node, "cat /var/recording; rm -f /var/enough").await.unwrap();
        assert_eq!(recording, "start\n", "{node}");
    }
    pods.rolled_out().await;
    pods.close().await;
}

/// The agent of a pod: its token is in a volume of the kubelet, and its state directory is one of the node.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs real nodes: just test-nodes"]
async fn nothing_escapes_that_a_profile_keeps_on_a_real_kubelet() {
    let (pods, _guard) = pods("escape").await;
    let mut tokens = Vec::new();
    for node in &pods.nodes {
        let pod = pods.pod(node).await;
        let copy = "for file in bin/escape setuid; do busybox cp -p /$file /proc/1/root/var/; done; \
                    busybox mkdir -p -m 777 /proc/1/root/var/scratch; busybox chmod 777 /proc/1/root/var/scratch";
        pods.kubectl(&["exec", &pod, "--", "/bin/busybox", "sh", "-c", copy]).await;
        let uid = pods.kubectl(&["get", "pod", &pod, "-o", "jsonpath={.metadata.uid}"]).await;
        let token = format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~projected/token/token");
        assert!(node_exec(node, &format!("test -s {token}")).await.is_ok(), "the token is not at {token}");
        tokens.push(token);
    }
    let as_root = BASELINE_AS_ROOT.into_iter().collect();
    let none = BTreeSet::new();
    let user = json!({ "user": "1234", "group": "1234" });
    for (name, environment, fields, expected) in [
        ("container", "Container", json!({}), &none),
        ("container-user", "Container", user.clone(), &none),
        ("container-read-only", "Container", json!({ "readOnlyRootFilesystem": true }), &none),
        ("host", "Host", json!({ "sandbox": "Restricted", "user": "1234", "group": "1234" }), &none),
        ("host-user", "Host", user, &none),
        ("host-root", "Host", json!({}), &as_root),
    ] {
        let at = if environment == "Host" { "/var" } else { "" };
        let command = [
            format!("{}/escape", if environment == "Host" { "/var" } else { "/bin" }),
            "token=/run/sentinel/token".to_owned(),
            "state=/var/lib/sentinel".to_owned(),
            "socket=/var/lib/sentinel/socket".to_owned(),
            format!("setuid={at}/setuid"),
            format!("scratch={at}/scratch"),
            format!("volumes={}", tokens.join(":")),
        ];
        let mut run = json!({ "command": command, "environment": environment });
        run.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let uid = pods.task_of(name, run).await;
        for node in &pods.nodes {
            let execution = pods.ended(&uid, node).await;
            let printed = pods.log(&uid, node).await;
            assert_eq!(execution["outcome"], "Succeeded", "{execution}\n{printed}");
            println!("--- {name} on {node}\n{printed}");
            let mut found = successes(&printed);
            if environment == "Host" && expected == &as_root {
                // The nodes of these tests have no readable block device.
                found.insert("disk");
            }
            assert_eq!(&found, expected, "{name} on {node}");
        }
    }
    pods.close().await;
}
