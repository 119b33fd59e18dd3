//! Agents as pods of real nodes, with an operator on this machine.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::build::static_agent;
use super::escape::build_escape;
use crate::cluster::repository;
use crate::testbed::Testbed;
use crate::wait::until;

/// Long enough for a pod on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Programs that commands in the agents' image find, all of them busybox.
const PROGRAMS: [&str; 6] = ["sh", "cat", "hostname", "sleep", "echo", "true"];

/// A whole system with one agent pod on every real node.
pub struct Pods {
    /// Namespace, operator, stores.
    pub testbed: Testbed,
    /// Names of the nodes.
    pub nodes: Vec<String>,
}

impl Pods {
    /// Agents that are connected.
    ///
    /// # Panics
    /// When the set that `SENTINEL_PARTS` names has no nodes; the message explains how to get some.
    pub async fn deploy(test: &str) -> Self {
        let set = std::env::var("SENTINEL_PARTS").expect("SENTINEL_PARTS: run `just test-nodes`");
        let set: Value = serde_json::from_str(&std::fs::read_to_string(set).expect("a set")).expect("JSON");
        let gateway = set["network"]["gateway"].as_str().expect("a set with nodes: run `just test-nodes`");
        let nodes = set["nodes"].as_array().into_iter().flatten();
        let nodes = nodes.filter_map(|node| node["name"].as_str().map(str::to_owned)).collect();
        let testbed = Testbed::new(test).await;
        image(testbed.path()).await;
        let pods = Self { testbed, nodes };
        pods.sweep().await;
        let url = format!("--from-literal=operator-url=ws://{gateway}:{}", pods.testbed.gateway_port());
        pods.kubectl(&["create", "configmap", "node-agent", &url]).await;
        let manifest = repository().join("tests/manifests/agent.yaml");
        pods.kubectl(&["apply", "-f", &manifest.to_string_lossy()]).await;
        pods.rolled_out().await;
        for node in &pods.nodes {
            pods.reachable(node).await;
        }
        pods
    }

    /// `kubectl … -n <namespace>`, which must succeed.
    pub async fn kubectl(&self, arguments: &[&str]) -> String {
        match self.testbed.namespace.kubectl(arguments).await {
            Ok(printed) => printed,
            Err(printed) => panic!("kubectl {arguments:?}: {printed}"),
        }
    }

    /// Waits until the agent's pod of every node is the newest and ready.
    pub async fn rolled_out(&self) {
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        self.kubectl(&["rollout", "status", "daemonset/node-agent", &timeout]).await;
    }

    /// Waits until the agent of a node is connected.
    pub async fn reachable(&self, node: &str) {
        until(&format!("the agent of {node} is connected"), PATIENCE, || async {
            let node = self.testbed.get(&format!("/api/v1/nodes/{node}")).await?;
            if node["reachable"] == true { Ok(()) } else { Err(node.to_string()) }
        })
        .await;
    }

    /// The name of the agent's pod on a node.
    pub async fn pod(&self, node: &str) -> String {
        let field = format!("spec.nodeName={node}");
        let path = "jsonpath={.items[0].metadata.name}";
        self.kubectl(&["get", "pods", "-l", "app=node-agent", "--field-selector", &field, "-o", path]).await
    }

    /// Makes a Task for all nodes; returns its uid.
    pub async fn task(&self, name: &str, environment: &str, script: &str) -> String {
        let script = serde_json::json!({ "interpreter": "/bin/sh", "text": script });
        self.task_of(name, serde_json::json!({ "script": script, "environment": environment })).await
    }

    /// Makes a Task with this `spec.run` for all nodes; returns its uid.
    pub async fn task_of(&self, name: &str, run: Value) -> String {
        let task = serde_json::json!({
            "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": { "name": name },
            "spec": { "targets": { "all": true }, "run": run },
        });
        self.testbed.namespace.apply(&task.to_string()).await.expect("a valid Task");
        let path = "jsonpath={.metadata.uid}";
        self.kubectl(&["get", "tasks.sentinelnode.dev", name, "-o", path]).await
    }

    /// Waits until the first Run of a Task has ended on a node; returns the Execution.
    pub async fn ended(&self, uid: &str, node: &str) -> Value {
        let path = format!("/api/v1/executions/{uid}/1/{node}");
        until(&format!("{uid} has ended on {node}"), PATIENCE, || async {
            let execution = self.testbed.get(&path).await?;
            if execution["outcome"].is_string() { Ok(execution) } else { Err(execution.to_string()) }
        })
        .await
    }

    /// The output of the first Run of a Task on a node.
    pub async fn log(&self, uid: &str, node: &str) -> String {
        let url = format!("{}/api/v1/executions/{uid}/1/{node}/log", self.testbed.api);
        self.testbed.http.get(url).send().await.expect("an answer").text().await.expect("a text")
    }

    /// Waits until the output of a Task on a node contains `what`.
    pub async fn output_contains(&self, uid: &str, node: &str, what: &str) {
        until(&format!("the output of {uid} on {node} contains {what:?}"), PATIENCE, || async {
            let log = self.log(uid, node).await;
            if log.contains(what) { Ok(()) } else { Err(log) }
        })
        .await;
    }

    /// Removes the agents and everything else of the test.
    pub async fn close(self) {
        self.sweep().await;
        self.testbed.close().await;
    }

    /// Removes agents and what they keep, those that a failed test left too: a node has room for one.
    async fn sweep(&self) {
        let all =
            ["delete", "daemonset", "-A", "-l", "app=node-agent", "--cascade=foreground", "--timeout=60s"];
        self.testbed.namespace.parts.kubectl(&all).await.expect("no agents");
        for node in &self.nodes {
            until("the node is clean", PATIENCE, || {
                node_exec(node, "rm -rf /var/lib/sentinel /var/recording")
            })
            .await;
        }
    }
}

/// Runs a shell text as a process of a node, outside every container.
///
/// # Errors
/// What it printed, when it failed.
pub async fn node_exec(node: &str, text: &str) -> Result<String, String> {
    script("node-exec", &[node, "sh", "-c", text]).await
}

/// Cuts a node off and ends all of its processes at once.
pub async fn node_kill(node: &str) {
    script("node-kill", &[node]).await.expect("the node is off");
}

/// Boots a node on the disk it had.
pub async fn node_boot(node: &str) {
    script("node-boot", &[node]).await.expect("the node is up");
}

/// The agents' image, on every node.
async fn image(scratch: &Path) {
    let root = scratch.join("image");
    for folder in ["bin", "etc", "tmp", "var", "run"] {
        std::fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").expect("a file");
    std::fs::write(root.join("etc/group"), "root:x:0:\n").expect("a file");
    let mode = |name: &str, mode| {
        std::fs::set_permissions(root.join(name), PermissionsExt::from_mode(mode)).expect("its mode");
    };
    // What a command finds that tries to escape.
    build_escape(&root.join("bin"));
    std::fs::copy(root.join("bin/escape"), root.join("setuid")).expect("a copy");
    mode("setuid", 0o4755);
    std::fs::create_dir(root.join("scratch")).expect("a folder");
    mode("scratch", 0o777);
    std::fs::write(root.join("etc/shadow"), "x\n").expect("a file");
    mode("etc/shadow", 0o600);
    for program in PROGRAMS {
        symlink("busybox", root.join("bin").join(program)).expect("a link");
    }
    let busybox = "set -euo pipefail; . \"$0/lib.sh\"; static_busybox";
    let parts = repository().join("tests/parts");
    let output = tokio::process::Command::new("bash").args(["-c", busybox]).arg(&parts).output().await;
    let busybox = String::from_utf8(output.expect("bash starts").stdout).expect("a path");
    let (root, agent) = (root.to_string_lossy().into_owned(), static_agent());
    let paths = ["sentinel-node-agent", &root, &agent.to_string_lossy(), busybox.trim()];
    script("node-image", &paths).await.expect("an image");
}

async fn script(name: &str, arguments: &[&str]) -> Result<String, String> {
    let path = repository().join("tests/parts").join(name);
    let output = tokio::process::Command::new(path).args(arguments).output().await.expect("bash starts");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    Err(format!("{name} {arguments:?}: {printed}{}", String::from_utf8_lossy(&output.stderr)))
}
