//! An operator whose webhook a real API server calls, and people whom that authenticates. A folder, so that it is not a test of its own.
#![allow(dead_code, unreachable_pub, reason = "shared by test files that each use a part")]

pub mod liar;

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use sentinel_tests::certificates::Ca;
use sentinel_tests::ports::free_port;
use sentinel_tests::programs::Program;
use sentinel_tests::testbed::{Options, Testbed};
use sentinel_tests::wait::until;
use serde_json::{Value, json};

pub const PATIENCE: Duration = Duration::from_secs(40);

/// When a change concerns who asked, as the chart has it.
const CONDITIONS: &str = include_str!("../../../charts/sentinel-node/files/admission-conditions.yaml");

pub const STAMP: &str = "sentinelnode.dev/requested-by";

/// An operator whose webhook the API server calls, an agent, and a namespace in which a group of people may do everything.
pub struct Piece {
    pub testbed: Testbed,
    /// The authority of the operator's certificate.
    pub ca: PathBuf,
    port: u16,
    node: String,
    _agent: Program,
    _files: tempfile::TempDir,
}

impl Piece {
    pub async fn new(test: &str) -> Self {
        let piece = Self::with(test, &[]).await;
        piece.testbed.reachable("n1").await;
        piece
    }

    /// With further flags of the operator.
    pub async fn with(test: &str, further: &[String]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let ca = Ca::new(files.path(), "ca");
        let (port, name) = (free_port(), format!("{test}-{}", std::process::id()));
        let mut flags = vec![
            format!("--admission-listen=127.0.0.1:{port}"),
            "--admission-secret=stamps".to_owned(),
            format!("--admission-webhook={name}"),
        ];
        flags.extend_from_slice(further);
        let tls = Some(ca.issue(files.path(), "operator", "localhost"));
        let testbed = Testbed::with(test, Options { tls, flags, ..Options::default() }).await;
        testbed.add_node("n1", &[]).await;
        let gateway = format!("wss://localhost:{}", testbed.gateway_port());
        let agent = testbed.start_agent_at("n1", &gateway, Some(&ca.certificate));
        let node = testbed.namespace.node_name("n1");
        let piece = Self { testbed, ca: ca.certificate.clone(), port, node, _agent: agent, _files: files };
        piece.rights().await;
        piece.webhook(&name, &ca.certificate).await;
        piece
    }

    pub async fn rights(&self) {
        let namespace = &self.testbed.namespace;
        let group = "rbac.authorization.k8s.io";
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": {"name": "staff"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "Group", "apiGroup": group, "name": "staff"}],
        }))
        .unwrap();
        let bindings = Api::namespaced(namespace.client.clone(), &namespace.name);
        bindings.create(&PostParams::default(), &binding).await.unwrap();
    }

    pub fn webhooks(&self) -> Api<MutatingWebhookConfiguration> {
        Api::all(self.testbed.namespace.client.clone())
    }

    pub fn name(&self) -> String {
        let flag =
            self.testbed.options.flags.iter().find_map(|flag| flag.strip_prefix("--admission-webhook="));
        flag.unwrap().to_owned()
    }

    /// The configuration without a path; waits until the operator has written it, and the API server calls it.
    pub async fn webhook(&self, name: &str, ca: &Path) {
        let whoami =
            self.testbed.namespace.kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
        let operator = whoami.await.unwrap();
        let mut conditions: Vec<Value> = serde_saphyr::from_str(CONDITIONS).unwrap();
        conditions.insert(0, json!({
            "name": "not-the-operator", "expression": format!("request.userInfo.username != '{operator}'"),
        }));
        let bundle = base64::engine::general_purpose::STANDARD.encode(std::fs::read(ca).unwrap());
        let configuration: MutatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": {"name": name},
            "webhooks": [{
                "name": "tasks.sentinelnode.dev",
                "clientConfig": {"url": format!("https://localhost:{}", self.port), "caBundle": bundle},
                "rules": [{"apiGroups": ["sentinelnode.dev"], "apiVersions": ["*"], "resources": ["tasks"],
                    "operations": ["CREATE", "UPDATE"], "scope": "Namespaced"}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.testbed.namespace.name}},
                "matchConditions": conditions, "failurePolicy": "Fail", "sideEffects": "None",
                "reinvocationPolicy": "IfNeeded", "timeoutSeconds": 5, "admissionReviewVersions": ["v1"],
            }],
        }))
        .unwrap();
        self.webhooks().create(&PostParams::default(), &configuration).await.unwrap();
        until("the operator writes the path, and the API server calls it", PATIENCE, || async {
            let changes = json!({"metadata": {"name": "probe"}});
            let probe = self.sent("create", "alice", &changes, &["--dry-run=server"]).await?;
            if probe["metadata"]["annotations"][STAMP].is_string() { Ok(()) } else { Err(probe.to_string()) }
        })
        .await;
    }

    /// Changes the configuration, and waits until the API server acts on it.
    pub async fn set(&self, change: Value) {
        let mut webhook = change;
        webhook["name"] = json!("tasks.sentinelnode.dev");
        let patch = Patch::Strategic(json!({"webhooks": [webhook]}));
        self.webhooks().patch(&self.name(), &PatchParams::default(), &patch).await.unwrap();
    }

    /// `kubectl` as one of the staff.
    pub async fn kubectl(&self, who: &str, arguments: &[&str]) -> Result<String, String> {
        let mut all = arguments.to_vec();
        all.extend(["--as", who, "--as-group", "staff", "--as-uid", "uid-of-them"]);
        self.testbed.namespace.kubectl(&all).await
    }

    pub fn task(&self, changes: &Value) -> Value {
        let mut task = json!({
            "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": {},
            "spec": {"targets": {"nodeNames": [self.node]}, "run": {"command": ["echo", "hello"]}},
        });
        for (key, value) in changes.as_object().unwrap() {
            for (field, value) in value.as_object().unwrap() {
                task[key][field] = value.clone();
            }
        }
        task
    }

    /// Creates a Task as a person.
    pub async fn sent(
        &self,
        verb: &str,
        who: &str,
        changes: &Value,
        flags: &[&str],
    ) -> Result<Value, String> {
        let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        std::fs::write(file.path(), self.task(changes).to_string()).unwrap();
        let path = file.path().display().to_string();
        let arguments = [&[verb, "-f", &path, "-o", "json"], flags].concat();
        let printed = self.kubectl(who, &arguments).await?;
        // Warnings follow it.
        let mut objects =
            serde_json::Deserializer::from_str(&printed[printed.find('{').unwrap_or_default()..]).into_iter();
        objects.next().unwrap_or(Ok(Value::Null)).map_err(|error| format!("{error}: {printed}"))
    }

    pub async fn create(&self, who: &str, changes: Value) -> Result<Value, String> {
        self.sent("create", who, &changes, &[]).await
    }

    pub async fn get(&self, name: &str) -> Result<Value, String> {
        let printed =
            self.testbed.namespace.kubectl(&["get", "tasks.sentinelnode.dev", name, "-o", "json"]).await?;
        serde_json::from_str(&printed).map_err(|error| error.to_string())
    }

    /// The status of a Task's Run once it is over.
    pub async fn ended(&self, name: &str, run: u64) -> Value {
        until(&format!("run {run} of {name} ends"), PATIENCE, || async {
            let task = self.get(name).await?;
            let status = &task["status"]["run"];
            if status["number"] == run && status["verdict"].is_string() {
                Ok(())
            } else {
                Err(status.to_string())
            }
        })
        .await;
        self.get(name).await.unwrap()["status"]["run"].clone()
    }

    /// Notes of the cluster events of a Task with this reason.
    pub async fn notes(&self, name: &str, reason: &str) -> Result<String, String> {
        let selector = format!("regarding.name={name},reason={reason}");
        let path = "jsonpath={.items[*].note}";
        self.testbed
            .namespace
            .kubectl(&["get", "events.events.k8s.io", "--field-selector", &selector, "-o", path])
            .await
    }

    pub async fn noted(&self, name: &str, reason: &str, text: &str) {
        until(&format!("an event {reason} of {name} has {text:?}"), PATIENCE, || async {
            let notes = self.notes(name, reason).await?;
            if notes.contains(text) { Ok(()) } else { Err(notes) }
        })
        .await;
    }

    /// How many Runs have begun with this answer to who asked.
    pub async fn counted(&self, requester: &str) -> u64 {
        let answer = self.testbed.http.get(format!("{}/metrics", self.testbed.metrics)).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let line = format!("sentinel_run_requesters_total{{requester=\"{requester}\"}} ");
        let count =
            text.lines().find_map(|text| text.strip_prefix(&line)).unwrap_or_else(|| panic!("{text}"));
        count.parse().unwrap()
    }

    pub async fn close(self) {
        self.webhooks().delete(&self.name(), &DeleteParams::default()).await.unwrap();
        self.testbed.close().await;
    }
}

pub fn author(run: &Value) -> &Value {
    &run["requestedBy"]["author"]["user"]
}

pub fn stamp(task: &Value) -> Value {
    serde_json::from_str(task["metadata"]["annotations"][STAMP].as_str().unwrap_or("null")).unwrap()
}

/// Whether any file below a directory has this text.
pub fn has_text(directory: &Path, text: &str) -> bool {
    std::fs::read_dir(directory).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            return has_text(&path, text);
        }
        let bytes = if kind.is_file() { std::fs::read(&path).unwrap_or_default() } else { Vec::new() };
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}
