//! Tasks of these tests, and what is read of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sentinel_tests::parts::Parts;
use sentinel_tests::programs::Program;
use sentinel_tests::testbed::Testbed;
use sentinel_tests::wait::until;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

pub static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// An operator, the agent of node `a`, and gates that commands wait for.
pub struct Cluster {
    pub testbed: Testbed,
    _agent: Program,
    gates: TempDir,
    _guard: MutexGuard<'static, ()>,
}

impl Cluster {
    pub async fn new(test: &str) -> Self {
        let guard = ONE_AT_A_TIME.lock().await;
        let testbed = Testbed::new(test).await;
        let agent = testbed.agent("a", &[]).await;
        Self { testbed, _agent: agent, gates: tempfile::tempdir().unwrap(), _guard: guard }
    }

    pub fn namespace(&self) -> &str {
        &self.testbed.namespace.name
    }

    pub fn kubeconfig(&self) -> String {
        self.testbed.namespace.parts.kubeconfig.display().to_string()
    }

    pub fn gates(&self) -> &Path {
        self.gates.path()
    }

    fn gate(&self, name: &str) -> PathBuf {
        self.gates.path().join(name)
    }

    pub fn open(&self, name: &str) {
        std::fs::write(self.gate(name), "").unwrap();
    }

    /// A Task for node `a` whose command is this shell script.
    pub fn task(&self, name: &str, script: &str) -> Value {
        json!({
            "apiVersion": "sentinelnode.dev/v1alpha1",
            "kind": "Task",
            "metadata": {"name": name, "namespace": self.namespace()},
            "spec": {
                "targets": {"nodeNames": [self.testbed.namespace.node_name("a")]},
                "run": {"command": ["sh", "-c", script], "sandbox": "Privileged"},
                "timeouts": {"run": "2m"},
            },
        })
    }

    /// A Task whose command exits with this code once its gate is open, whatever signal it gets before.
    pub fn gated(&self, name: &str, code: u8) -> Value {
        let gate = self.gate(name);
        let script =
            format!("trap '' TERM; while [ ! -e {} ]; do sleep 0.05; done; exit {code}", gate.display());
        self.task(name, &script)
    }

    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        self.testbed.namespace.kubectl(arguments).await
    }

    /// The answer of the API server to a write, from before the operator sees it.
    pub async fn written(&self, arguments: &[&str], object: Option<&Value>) -> Value {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut all = arguments.to_vec();
        if let Some(object) = object {
            std::fs::write(file.path(), object.to_string()).unwrap();
            all.extend(["-f", file.path().to_str().unwrap()]);
        }
        all.extend(["-o", "json"]);
        let text = self.kubectl(&all).await.unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    pub async fn create(&self, task: &Value) -> Value {
        self.written(&["create"], Some(task)).await
    }

    pub async fn get(&self, name: &str) -> Value {
        self.written(&["get", "tasks.sentinelnode.dev", name], None).await
    }

    /// Waits as people do, by `kubectl wait`; returns the Task.
    pub async fn wait(&self, name: &str, condition: &str) -> Value {
        let condition = format!("--for=condition={condition}");
        let waited =
            self.kubectl(&["wait", &condition, "--timeout=60s", "tasks.sentinelnode.dev", name]).await;
        let task = self.get(name).await;
        waited.unwrap_or_else(|printed| panic!("{name}: {printed}: {task}"));
        task
    }

    /// Waits until a condition has this reason; returns the Task.
    pub async fn until_reason(&self, name: &str, reason: &str) -> Value {
        self.until_task(name, reason, |task| condition(task, "Ready")["reason"] == reason).await
    }

    /// Waits until the Task exists and this holds; returns the Task.
    pub async fn until_task(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        until(&format!("{name}: {what}"), Duration::from_secs(60), || async {
            let get = ["get", "--ignore-not-found", "tasks.sentinelnode.dev", name, "-o", "json"];
            let text = self.kubectl(&get).await?;
            let task = serde_json::from_str(&text).map_err(|error| format!("{error}: {text:?}"))?;
            if holds(&task) { Ok(task) } else { Err(text) }
        })
        .await
    }

    pub async fn close(self) {
        self.testbed.close().await;
    }
}

/// Applies the definitions in a folder, and waits until the API server serves them.
pub async fn define(parts: &Parts, folder: &Path) {
    let folder = folder.display().to_string();
    parts.kubectl(&["apply", "--server-side", "-f", &folder]).await.unwrap();
    until("the definitions are established", Duration::from_secs(30), || async {
        // It fails at once where a definition has no conditions yet.
        parts.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "-f", &folder]).await
    })
    .await;
}

/// A condition of a Task; null without it.
pub fn condition<'a>(task: &'a Value, kind: &str) -> &'a Value {
    let conditions = task["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

/// The resource version as the number that it is in etcd: one order for all objects.
pub fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}
