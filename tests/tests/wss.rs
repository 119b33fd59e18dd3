//! Agents over `wss://`: which certificates they accept, and a certificate that is replaced while the operator runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use sentinel_tests::certificates::{Ca, presented};
use sentinel_tests::programs::Program;
use sentinel_tests::testbed::{Options, Testbed};
use sentinel_tests::wait::until;

/// Longer than the operator takes to read its certificate again (30 s).
const ROTATED_WITHIN: Duration = Duration::from_secs(60);

const PATIENCE: Duration = Duration::from_secs(30);

/// Creates a Task for one node of the testbed.
async fn apply(testbed: &Testbed, name: &str, short: &str, script: &str) {
    let node = testbed.namespace.node_name(short);
    let task = serde_json::json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": { "name": name },
        "spec": { "targets": { "nodeNames": [node] }, "run": { "command": ["sh", "-c", script], "sandbox": "Privileged" } },
    });
    testbed.namespace.apply(&task.to_string()).await.unwrap();
}

/// The output of a Task's first Run, once it is complete.
async fn output(testbed: &Testbed, name: &str, short: &str) -> String {
    let task = ["tasks.sentinelnode.dev", name];
    let wait = ["wait", "--for=condition=Complete", "--timeout=40s"];
    testbed.namespace.kubectl(&[&wait[..], &task].concat()).await.unwrap();
    let uid = ["get", "-o", "jsonpath={.metadata.uid}"];
    let uid = testbed.namespace.kubectl(&[&uid[..], &task].concat()).await.unwrap();
    let node = testbed.namespace.node_name(short);
    let url = format!("{}/api/v1/executions/{uid}/1/{node}/log", testbed.api);
    testbed.http.get(url).send().await.unwrap().text().await.unwrap()
}

async fn logs(agent: &Program, reason: &str) {
    until(&format!("the agent logs {reason:?}"), PATIENCE, || async {
        let log = agent.log();
        if log.contains(reason) { Ok(()) } else { Err(log) }
    })
    .await;
}

/// Starts an agent that must not get a Session.
async fn start_refused(
    testbed: &Testbed,
    short: &str,
    url: &str,
    ca: Option<&Path>,
    reason: &str,
) -> Program {
    testbed.add_node(short, &[]).await;
    let agent = testbed.start_agent_at(short, url, ca);
    logs(&agent, reason).await;
    agent
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_verify_gateway_and_sessions_survive_rotation() {
    let files = tempfile::tempdir().unwrap();
    let (old_ca, new_ca) = (Ca::new(files.path(), "old-ca"), Ca::new(files.path(), "new-ca"));
    let old = old_ca.issue(files.path(), "old", "localhost");
    let new = new_ca.issue(files.path(), "new", "localhost");
    let used = old_ca.issue(files.path(), "used", "localhost");
    used.replace_with(&old);
    let both = files.path().join("both.crt");
    let texts = [&old_ca, &new_ca].map(|ca| fs::read_to_string(&ca.certificate).unwrap());
    fs::write(&both, texts.concat()).unwrap();

    let options = Options { tls: Some(used.clone()), ..Options::default() };
    let testbed = Testbed::with("wss", options).await;
    let port = testbed.gateway_port();
    let url = format!("wss://localhost:{port}");
    assert_eq!(presented(port, "localhost", &old_ca).await.unwrap(), old.der());

    // The right CA and name.
    testbed.add_node("a", &[]).await;
    let _agent = testbed.start_agent_at("a", &url, Some(&both));
    testbed.reachable("a").await;
    apply(&testbed, "before", "a", "echo over TLS").await;
    assert_eq!(output(&testbed, "before", "a").await, "over TLS\n");

    // Another CA, another name, and no TLS at all.
    let by_name = format!("wss://127.0.0.1:{port}");
    let plain = format!("ws://localhost:{port}");
    let _other_ca = start_refused(&testbed, "b", &url, Some(&new_ca.certificate), "UnknownIssuer").await;
    let _other_name = start_refused(&testbed, "c", &by_name, Some(&both), "not valid for name").await;
    let _no_tls = start_refused(&testbed, "d", &plain, None, "WebSocket upgrade with").await;
    for short in ["b", "c", "d"] {
        let node =
            testbed.get(&format!("/api/v1/nodes/{}", testbed.namespace.node_name(short))).await.unwrap();
        assert_eq!(node["reachable"], false, "{node}");
    }
    assert_eq!(testbed.metric("sentinel_gateway_sessions_begun_total").await.unwrap(), 1.0);

    // Replaced on the disk while a command runs.
    let release = files.path().join("release");
    let script = format!("echo begun; until [ -e {} ]; do sleep 0.1; done; echo ended", release.display());
    apply(&testbed, "during", "a", &script).await;
    until("the command runs", PATIENCE, || async {
        let path = "jsonpath={.status.run.counts.running}";
        let running = testbed.namespace.kubectl(&["get", "stask", "during", "-o", path]).await?;
        if running == "1" { Ok(()) } else { Err(running) }
    })
    .await;
    used.replace_with(&new);
    until("new connections get the new certificate", ROTATED_WITHIN, || async {
        let found = presented(port, "localhost", &new_ca).await?;
        if found == new.der() { Ok(()) } else { Err("another certificate".to_owned()) }
    })
    .await;
    presented(port, "localhost", &old_ca).await.expect_err("the old certificate is gone");
    // The agent that trusts the new CA alone now connects; nothing was restarted.
    testbed.reachable("b").await;
    fs::write(&release, "").unwrap();
    assert_eq!(output(&testbed, "during", "a").await, "begun\nended\n");
    assert_eq!(testbed.metric("sentinel_gateway_sessions_begun_total").await.unwrap(), 2.0);
    assert_eq!(
        testbed.metric("sentinel_gateway_sessions_ended_total").await.unwrap(),
        0.0,
        "a Session ended"
    );
    testbed.close().await;
}
