//! Releases of the chart on real nodes: the images, both Helms, and the people who use what is installed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sentinel_api::aggregated::API_SERVICE;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use crate::cluster::repository;
use crate::command_lines::Ran;
use crate::parts::Parts;
use crate::programs::binary;
use crate::wait::until;

/// Long enough for pods on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// The namespace of every release here.
pub const NAMESPACE: &str = "sentinel-system";

/// The label of what belongs to a person of a test.
const PERSON: &str = "sentinel-test=person";

/// The aggregated API.
pub const OPS: &str = sentinel_api::aggregated::PREFIX;

/// A cluster with real nodes that have the images.
pub struct Cluster {
    /// The control plane and the stores.
    pub parts: Parts,
    /// Names of the nodes.
    pub nodes: Vec<String>,
    /// Where a pod reaches this machine, and so the stores.
    pub gateway: String,
    /// Kubeconfigs, values, logs.
    pub directory: TempDir,
}

/// A Helm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Helm {
    /// Helm 3.
    Three,
    /// Helm 4.
    Four,
}

impl Cluster {
    /// The set of `SENTINEL_PARTS`, with the images of this build on its nodes and nothing installed.
    ///
    /// # Panics
    /// When the set has no nodes.
    pub async fn find() -> Self {
        let set = std::env::var("SENTINEL_PARTS").expect("SENTINEL_PARTS: run `just test-nodes`");
        let set: Value = serde_json::from_str(&std::fs::read_to_string(set).expect("a set")).expect("JSON");
        let gateway = set["network"]["gateway"].as_str().expect("a set with nodes: run `just test-nodes`");
        let nodes = set["nodes"].as_array().into_iter().flatten();
        let nodes = nodes.filter_map(|node| node["name"].as_str().map(str::to_owned)).collect();
        load_images().await;
        let directory = tempfile::tempdir().expect("a directory");
        let cluster = Self { parts: Parts::find(), nodes, gateway: gateway.to_owned(), directory };
        cluster.sweep().await;
        cluster.namespace().await;
        cluster
    }

    /// Removes what a failed test has left. No operator runs that would let its Tasks go.
    async fn sweep(&self) {
        let tasks = self.parts.kubectl(&["get", "tasks.sentinelnode.dev", "-o", "name"]).await;
        for task in tasks.unwrap_or_default().lines() {
            let free = r#"{"metadata":{"finalizers":null}}"#;
            self.kubectl(&["patch", task, "--type=merge", "-p", free]).await;
            self.kubectl(&["delete", task, "--ignore-not-found"]).await;
        }
        for kind in ["serviceaccount", "rolebinding", "clusterrolebinding"] {
            let ours = ["delete", kind, "-l", PERSON, "--ignore-not-found"];
            self.kubectl(&ours).await;
        }
    }

    /// The namespace, anew, in which privileged pods are admitted.
    async fn namespace(&self) {
        // Of a release whose operator is gone; no namespace is deleted to its end while it cannot answer.
        self.kubectl(&["delete", "apiservice", API_SERVICE, "--ignore-not-found"]).await;
        let gone = ["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s"];
        self.kubectl(&gone).await;
        self.kubectl(&["create", "namespace", NAMESPACE]).await;
        let label = "pod-security.kubernetes.io/enforce=privileged";
        self.kubectl(&["label", "namespace", NAMESPACE, label]).await;
    }

    /// `kubectl`, which must succeed.
    pub async fn kubectl(&self, arguments: &[&str]) -> String {
        match self.parts.kubectl(arguments).await {
            Ok(printed) => printed,
            Err(printed) => panic!("kubectl {arguments:?}: {printed}"),
        }
    }

    /// `kubectl -n NAMESPACE`, which must succeed.
    pub async fn ours(&self, arguments: &[&str]) -> String {
        self.kubectl(&[&["-n", NAMESPACE], arguments].concat()).await
    }

    /// Helm, which must succeed; what it printed.
    pub async fn helm(&self, helm: Helm, arguments: &[&str]) -> String {
        let program =
            script_line("tests/parts/helm-path", &[if helm == Helm::Three { "3" } else { "4" }]).await;
        let output = Command::new(program.trim())
            .args(arguments)
            .args(["--namespace", NAMESPACE])
            .env("KUBECONFIG", &self.parts.kubeconfig)
            .env("HELM_CACHE_HOME", self.directory.path().join("helm-cache"))
            .env("HELM_CONFIG_HOME", self.directory.path().join("helm-config"))
            .env("HELM_DATA_HOME", self.directory.path().join("helm-data"))
            .output()
            .await
            .expect("helm starts");
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        if !output.status.success() {
            let state = self.state().await;
            panic!("{helm:?} {arguments:?}: {printed}\n{state}");
        }
        printed
    }

    /// What there is of pods and events, and their logs, for a failed test.
    pub async fn state(&self) -> String {
        let mut state = String::new();
        for arguments in [
            &["get", "pods", "-o", "wide"][..],
            &["get", "events", "--sort-by=.lastTimestamp"],
            &[
                "logs",
                "-l",
                "app.kubernetes.io/name=sentinel-node",
                "--all-containers",
                "--prefix",
                "--tail=30",
            ],
            &[
                "logs",
                "-l",
                "app.kubernetes.io/name=sentinel-node",
                "--all-containers",
                "--prefix",
                "--tail=30",
                "-p",
            ],
        ] {
            let printed = self.parts.kubectl(&[&["-n", NAMESPACE], arguments].concat()).await;
            state.push_str(&printed.unwrap_or_else(|error| error));
        }
        state
    }

    /// The chart of this build.
    pub fn chart() -> String {
        repository().join("charts/sentinel-node").display().to_string()
    }

    /// The chart of the version before, whose images every node has then.
    pub async fn earlier_chart() -> String {
        let folder = script_line("tests/earlier-release", &[]).await;
        let folder = Path::new(folder.trim());
        let chart = folder.join("chart");
        let about = std::fs::read_to_string(chart.join("Chart.yaml")).expect("a chart");
        let version = about.lines().find_map(|line| line.strip_prefix("appVersion: ")).expect("a version");
        assert_ne!(version, env!("CARGO_PKG_VERSION"), "it is this version");
        load(folder, version).await;
        chart.display().to_string()
    }

    /// A JSON answer of the aggregated API, as an administrator.
    ///
    /// # Errors
    /// What kubectl printed.
    pub async fn ops(&self, path: &str) -> Result<Value, String> {
        let printed = self.parts.kubectl(&["get", "--raw", &format!("{OPS}{path}")]).await?;
        serde_json::from_str(&printed).map_err(|error| format!("{error}: {printed}"))
    }

    /// Waits until every node is reachable, by the aggregated API; the answer.
    pub async fn all_reachable(&self) -> Value {
        until("every node is reachable", PATIENCE, || async {
            let nodes = self.ops("/nodes").await?;
            let is_reachable = |name: &String| {
                nodes["items"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|node| node["name"] == **name && node["reachable"] == true)
            };
            if self.nodes.iter().all(is_reachable) { Ok(nodes) } else { Err(nodes.to_string()) }
        })
        .await
    }

    /// Makes a Task in the namespace `default`, and returns its uid.
    pub async fn task(&self, name: &str, environment: &str, command: &[&str]) -> String {
        let task = serde_json::json!({
            "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": {"name": name},
            "spec": {"targets": {"all": true}, "run": {"command": command, "environment": environment}},
        });
        let file = self.directory.path().join(format!("{name}.json"));
        std::fs::write(&file, task.to_string()).expect("a file");
        self.kubectl(&["apply", "-f", &file.to_string_lossy()]).await;
        let path = "jsonpath={.metadata.uid}";
        self.kubectl(&["get", "tasks.sentinelnode.dev", name, "-o", path]).await
    }

    /// Waits until a Task of the namespace `default` is complete.
    pub async fn complete(&self, name: &str) {
        let task = format!("tasks.sentinelnode.dev/{name}");
        self.kubectl(&["wait", "--for=condition=Complete", "--timeout=120s", &task]).await;
    }

    /// Deletes Tasks of the namespace `default`, and waits until their operator has let them go.
    pub async fn delete_tasks(&self, names: &[&str]) {
        for name in names {
            self.kubectl(&["delete", &format!("tasks.sentinelnode.dev/{name}"), "--timeout=60s"]).await;
        }
    }

    /// A kubeconfig of a new ServiceAccount of the namespace `default`, which is bound there to these roles of the chart.
    pub async fn person(&self, name: &str, roles: &[&str]) -> Person {
        self.kubectl(&["create", "serviceaccount", name]).await;
        for role in roles {
            let (binding, role) = (format!("{name}-{role}"), format!("--clusterrole=sentinel-node-{role}"));
            let account = format!("--serviceaccount=default:{name}");
            self.kubectl(&["create", "rolebinding", &binding, &role, &account]).await;
            self.kubectl(&["label", "rolebinding", &binding, PERSON]).await;
        }
        self.kubectl(&["label", "serviceaccount", name, PERSON]).await;
        let token = self.kubectl(&["create", "token", name]).await.trim().to_owned();
        let admin = std::fs::read_to_string(&self.parts.kubeconfig).expect("a kubeconfig");
        let clusters = admin.split("users:").next().expect("clusters");
        let user = clusters
            .lines()
            .find_map(|line| line.split("user: ").nth(1)?.split(['}', ',']).next().map(str::to_owned))
            .expect("a user");
        let kubeconfig = self.directory.path().join(format!("{name}.kubeconfig"));
        let text = format!("{clusters}users:\n- name: {user}\n  user: {{token: \"{token}\"}}\n");
        crate::testbed::secret(&kubeconfig, &text);
        Person { name: name.to_owned(), token, kubeconfig, kubectl: self.parts.bin.kubectl.clone() }
    }

    /// Lets a person reach the operator by a forwarded port, as docs/cli.md describes it.
    pub async fn may_forward(&self, person: &Person) {
        let account = format!("--serviceaccount=default:{}", person.name);
        self.kubectl(&["create", "clusterrolebinding", &person.name, "--clusterrole=view", &account]).await;
        self.kubectl(&["label", "clusterrolebinding", &person.name, PERSON]).await;
        let right = ["--verb=get,create", "--resource=pods/portforward"];
        self.ours(&[&["create", "role", &person.name][..], &right].concat()).await;
        let role = format!("--role={}", person.name);
        self.ours(&["create", "rolebinding", &person.name, &role, &account]).await;
    }

    /// Removes a person.
    pub async fn forget(&self, person: &Person, roles: &[&str]) {
        self.kubectl(&["delete", "serviceaccount", &person.name]).await;
        for role in roles {
            self.kubectl(&["delete", "rolebinding", &format!("{}-{role}", person.name)]).await;
        }
        self.kubectl(&["delete", "clusterrolebinding", &person.name, "--ignore-not-found"]).await;
        self.ours(&["delete", "role,rolebinding", &person.name, "--ignore-not-found"]).await;
    }

    /// What the release has left in the cluster, by its label, and cluster-wide by its name; empty when nothing.
    pub async fn left(&self) -> String {
        let kinds = self.kubectl(&["api-resources", "--verbs=list", "-o", "name"]).await;
        let kinds: Vec<&str> = kinds
            .lines()
            // Events expire; of the deprecated ones kubectl warns.
            .filter(|kind| {
                let left_out = ["events", "events.events.k8s.io", "componentstatuses", "endpoints"];
                !kind.ends_with("ops.sentinelnode.dev") && !left_out.contains(kind)
            })
            .collect();
        let label = "app.kubernetes.io/instance=sentinel-node";
        self.kubectl(&["get", &kinds.join(","), "-A", "-l", label, "--ignore-not-found", "-o", "name"]).await
    }
}

/// A user with a kubeconfig of their own.
#[derive(Debug)]
pub struct Person {
    /// The ServiceAccount.
    pub name: String,
    /// Its token.
    pub token: String,
    /// The kubeconfig.
    pub kubeconfig: PathBuf,
    kubectl: PathBuf,
}

impl Person {
    /// kubectl as this person.
    ///
    /// # Errors
    /// What it printed, when it failed.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .output()
            .await
            .expect("kubectl starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Our own command line, with this person's kubeconfig.
    pub async fn sentinel(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(binary("sentinel"));
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments).env_remove("SENTINEL_SERVER");
        Ran::of(&command.output().await.expect("sentinel starts"))
    }

    /// kubectl as this person, whose output is read while it is written.
    ///
    /// # Panics
    /// When it does not start.
    pub fn following(&self, arguments: &[&str]) -> Following {
        let child = Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("kubectl starts");
        Following { child, text: String::new() }
    }
}

/// A program whose output is read while it is written.
pub struct Following {
    child: Child,
    text: String,
}

impl Following {
    /// Waits until it has written this, and returns all that it has written.
    ///
    /// # Panics
    /// When it ends before, or it takes too long.
    pub async fn shows(&mut self, what: &str) -> &str {
        let stdout = self.child.stdout.as_mut().expect("a pipe");
        let mut buffer = [0; 4096];
        let reading = async {
            while !self.text.contains(what) {
                let count = stdout.read(&mut buffer).await.expect("readable");
                assert!(count > 0, "it ended without {what:?}: {}", self.text);
                self.text.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        };
        let is_late = tokio::time::timeout(PATIENCE, reading).await.is_err();
        assert!(!is_late, "not within {PATIENCE:?}: {what:?} in {}", self.text);
        &self.text
    }
}

/// Puts the images of `target/images` on every node, once.
async fn load_images() {
    static LOADED: OnceCell<()> = OnceCell::const_new();
    let folder = repository().join("target/images");
    assert!(folder.exists(), "{} is missing: run `just images --profile dev`", folder.display());
    LOADED.get_or_init(|| load(&folder, env!("CARGO_PKG_VERSION"))).await;
}

/// Puts the images of this version, which are in this folder, on every node.
async fn load(folder: &Path, version: &str) {
    for (image, tag) in [
        ("sentinel-operator", version.to_owned()),
        ("sentinel-node-agent", version.to_owned()),
        ("sentinel-node-agent-tools", format!("{version}-tools")),
    ] {
        let archive = folder.join(format!("{image}.tar"));
        let name = format!("{}:{tag}", image.trim_end_matches("-tools"));
        script_line("tests/parts/node-image", &[&name, &archive.to_string_lossy()]).await;
    }
}

/// A script of this repository, which must succeed; what it printed.
async fn script_line(script: &str, arguments: &[&str]) -> String {
    let output = Command::new(repository().join(script)).args(arguments).output().await.expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script} {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}
