//! 40 canary values of Secrets through environment, standard input and output of real commands; then every store, disk, log and
//! process list is searched for them, in plain, base64, hexadecimal, URL and JSON forms. A control canary, which is not a Secret, is found
//! in each place that it can reach: the search works.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use mongodb::bson::{Document, doc};
use redis::AsyncCommands as _;
use sentinel_tests::programs::Program;
use sentinel_tests::testbed::Testbed;
use sentinel_tests::wait::until;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// How many canaries are variables; one more is standard input.
const IN_ENV: usize = 39;

/// What prints every variable in all forms, in pieces too, waits for a file, and prints the standard input.
const SCRIPT: &str = r#"env
for name in $(env | sed -n 's/^\(CANARY_[0-9]*\)=.*/\1/p'); do
  eval "value=\$$name"
  printf '%s' "$value" | base64 -w 0; echo
  printf 'x%s' "$value" | base64 -w 0; echo
  printf 'xy%s' "$value" | base64; echo
  printf '%s' "$value" | od -An -v -tx1 | tr -d ' \n'; echo
  printf '%s' "$value" | cut -c 1-9 | tr -d '\n'; printf '%s\n' "$value" | cut -c 10-
  printf '%s\n' "$value" >&2
done
cat
until [ -e "$RELEASE" ]; do sleep 0.1; done
echo ended"#;

/// A value with characters that every encoding changes, around what no encoding of a text does.
struct Canary {
    core: String,
    value: String,
}

impl Canary {
    fn new() -> Self {
        let core = uuid::Uuid::new_v4().simple().to_string();
        let value = format!("k/\"\\ +{core}?&é");
        Self { core, value }
    }

    /// What is searched for: the core is in the plain, URL and JSON forms.
    fn forms(&self) -> Vec<String> {
        let hex = |text: &str| -> String { text.bytes().map(|byte| format!("{byte:02x}")).collect() };
        let mut forms = vec![self.core.clone(), hex(&self.core), hex(&self.core).to_uppercase()];
        for before in 0..3 {
            let encoded = STANDARD.encode([&b"xy"[..before], self.core.as_bytes()].concat());
            // Without what depends on the bytes before and behind.
            forms.push(encoded[[0, 2, 3][before]..encoded.len() - 4].to_owned());
        }
        forms
    }
}

/// Searches for all canaries at once.
struct Search {
    patterns: tempfile::NamedTempFile,
    forms: Vec<String>,
    report: Vec<String>,
    hits: Vec<String>,
}

impl Search {
    fn for_all(canaries: &[Canary]) -> Self {
        let forms: Vec<String> = canaries.iter().flat_map(Canary::forms).collect();
        let patterns = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(patterns.path(), forms.join("\n")).unwrap();
        Self { patterns, forms, report: Vec::new(), hits: Vec::new() }
    }

    fn text(&mut self, place: &str, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        self.report.push(format!("{place}: {} bytes", bytes.len()));
        let found = self.forms.iter().filter(|form| text.contains(form.as_str()));
        self.hits.extend(found.map(|form| format!("{place}: {form}")));
    }

    /// All files below, without those directories.
    fn files(&mut self, place: &str, directory: &Path, without: &[&str]) {
        let mut grep = Command::new("grep");
        grep.args(["-rlaF", "-f"]).arg(self.patterns.path());
        grep.args(without.iter().map(|name| format!("--exclude-dir={name}")));
        let found = grep.arg(directory).output().unwrap();
        assert!(found.status.code().is_some_and(|code| code < 2), "grep: {found:?}");
        let all = Command::new("find").arg(directory).args(["-type", "f"]).output().unwrap().stdout;
        self.report.push(format!("{place}: {} files", all.iter().filter(|byte| **byte == b'\n').count()));
        self.hits
            .extend(String::from_utf8_lossy(&found.stdout).lines().map(|file| format!("{place}: {file}")));
    }
}

/// The places, as text, where something is searched for.
struct Places<'a> {
    testbed: &'a Testbed,
    parts: Value,
}

impl<'a> Places<'a> {
    fn of(testbed: &'a Testbed) -> Self {
        let file = std::env::var_os("SENTINEL_PARTS").expect("run through tests/parts/with-parts");
        let parts = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        Self { testbed, parts }
    }

    /// Every key of etcd with its value, but the Secrets themselves.
    async fn etcd(&self) -> Vec<u8> {
        let all = self.parts["processes"].as_array().unwrap();
        let port = &all.iter().find(|process| process["name"] == "etcd").unwrap()["port"];
        let range = json!({"key": STANDARD.encode([0]), "range_end": STANDARD.encode([0])});
        let url = format!("http://127.0.0.1:{port}/v3/kv/range");
        let answer: Value =
            self.testbed.http.post(url).json(&range).send().await.unwrap().json().await.unwrap();
        let bytes = |value: &Value| STANDARD.decode(value.as_str().unwrap_or_default()).unwrap();
        let pairs =
            answer["kvs"].as_array().unwrap().iter().map(|pair| (bytes(&pair["key"]), bytes(&pair["value"])));
        let others = pairs.filter(|(key, _)| !key.starts_with(b"/registry/secrets/"));
        others.flat_map(|(key, value)| [key, value].concat()).collect()
    }

    /// Every document of the test's database.
    async fn history(&self) -> Vec<u8> {
        let client = mongodb::Client::with_uri_str(&self.testbed.namespace.parts.mongodb_uri).await.unwrap();
        let database = client.database(&self.testbed.database);
        let mut text = Vec::new();
        for name in database.list_collection_names().await.unwrap() {
            let mut cursor = database.collection::<Document>(&name).find(doc! {}).await.unwrap();
            while cursor.advance().await.unwrap() {
                // The bytes of binary fields too.
                text.extend_from_slice(cursor.current().as_bytes());
            }
        }
        text
    }

    /// Every key of Redis with its value.
    async fn redis(&self) -> Vec<u8> {
        let client = redis::Client::open(self.testbed.namespace.parts.redis_url.as_str()).unwrap();
        let mut redis = client.get_multiplexed_async_connection().await.unwrap();
        let keys: Vec<String> = redis.keys("*").await.unwrap();
        let mut text = Vec::new();
        for key in keys {
            let value: Vec<u8> = redis.get(&key).await.unwrap_or_default();
            text.extend([key.into_bytes(), value].concat());
        }
        text
    }

    /// The log of an Execution, and all that the API has of it.
    async fn api(&self, uid: &str, node: &str) -> String {
        let mut text = String::new();
        for path in [
            format!("/api/v1/executions/{uid}/1/{node}/log"),
            format!("/api/v1/executions/{uid}/1/{node}"),
            format!("/api/v1/runs/{uid}/1"),
        ] {
            let url = format!("{}{path}", self.testbed.api);
            text += &self.testbed.http.get(url).send().await.unwrap().text().await.unwrap();
        }
        text
    }

    async fn metrics(&self) -> String {
        let url = format!("{}/metrics", self.testbed.metrics);
        self.testbed.http.get(url).send().await.unwrap().text().await.unwrap()
    }

    /// The command lines of all processes.
    fn command_lines() -> Vec<u8> {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok()).flatten().collect()
    }
}

async fn create_secret(testbed: &Testbed, canaries: &[Canary]) {
    let data: BTreeMap<String, ByteString> = canaries
        .iter()
        .enumerate()
        .map(|(at, canary)| (format!("c{at}"), ByteString(canary.value.clone().into_bytes())))
        .collect();
    let mut secret = Secret { data: Some(data), ..Secret::default() };
    secret.metadata.name = Some("canaries".into());
    let api: Api<Secret> = Api::namespaced(testbed.namespace.client.clone(), &testbed.namespace.name);
    api.create(&PostParams::default(), &secret).await.unwrap();
}

/// A Task with all canaries, and the control canary as what it is not: a value in the spec.
async fn apply(testbed: &Testbed, name: &str, control: &str, release: &Path) {
    let reference = |at: usize| json!({"secretKeyRef": {"name": "canaries", "key": format!("c{at}")}});
    let mut env: Vec<Value> =
        (0..IN_ENV).map(|at| json!({"name": format!("CANARY_{at}"), "valueFrom": reference(at)})).collect();
    env.push(json!({"name": "CONTROL", "value": control}));
    env.push(json!({"name": "RELEASE", "value": release}));
    let task = json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": {"name": name},
        "spec": {
            "targets": {"nodeNames": [testbed.namespace.node_name("a")]},
            "run": {"command": ["sh", "-c", SCRIPT, control], "env": env, "stdinFrom": reference(IN_ENV)},
        },
    });
    testbed.namespace.apply(&task.to_string()).await.unwrap();
}

/// From the gateway to the agent: the operator once sent nothing where all was missing, which the agent takes for an operator without
/// the values.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_without_secrets_that_may_all_be_missing() {
    let testbed = Testbed::new("optional").await;
    let agent = testbed.agent("a", &[]).await;
    let missing = json!({"secretKeyRef": {"name": "nothere", "key": "k", "optional": true}});
    let task = json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": {"name": "optional"},
        "spec": {
            "targets": {"nodeNames": [testbed.namespace.node_name("a")]},
            "run": {
                "command": ["sh", "-c", "[ -z \"${PASSWORD+set}\" ] && [ -z \"$(cat)\" ]"],
                "env": [{"name": "PASSWORD", "valueFrom": missing.clone()}],
                "stdinFrom": missing,
            },
        },
    });
    testbed.namespace.apply(&task.to_string()).await.unwrap();
    let wait = ["wait", "--for=condition=Complete", "--timeout=60s", "tasks.sentinelnode.dev", "optional"];
    testbed.namespace.kubectl(&wait).await.unwrap();
    drop(agent);
    testbed.close().await;
}

async fn wait_until_running(testbed: &Testbed, name: &str) -> String {
    until("the command runs", PATIENCE, || async {
        let path = "jsonpath={.status.run.counts.running}";
        let running = testbed.namespace.kubectl(&["get", "stask", name, "-o", path]).await?;
        if running == "1" { Ok(()) } else { Err(running) }
    })
    .await;
    testbed.namespace.kubectl(&["get", "stask", name, "-o", "jsonpath={.metadata.uid}"]).await.unwrap()
}

/// What a crash would write: neither agent nor supervisors make a core dump.
fn assert_no_core_dumps(agent: &Program) {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", agent.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
}

#[tokio::test(flavor = "multi_thread")]
async fn canary_secrets_are_in_no_store_log_or_command_line() {
    let testbed = Testbed::new("canaries").await;
    let canaries: Vec<Canary> = (0..=IN_ENV).map(|_| Canary::new()).collect();
    let control = Canary::new();
    create_secret(&testbed, &canaries).await;
    let agent = testbed.agent("a", &[]).await;
    assert_no_core_dumps(&agent);
    let release = testbed.path().join("release");
    apply(&testbed, "leaky", &control.core, &release).await;
    let uid = wait_until_running(&testbed, "leaky").await;

    let mut search = Search::for_all(&canaries);
    let mut known = Search::for_all(std::slice::from_ref(&control));
    let places = Places::of(&testbed);
    let lines = Places::command_lines();
    search.text("command lines", &lines);
    known.text("command lines", &lines);
    search.files("agent and logs, while it runs", testbed.path(), &[]);
    known.files("agent and logs, while it runs", testbed.path(), &[]);
    std::fs::write(&release, "").unwrap();
    let wait = ["wait", "--for=condition=Complete", "--timeout=60s", "tasks.sentinelnode.dev", "leaky"];
    testbed.namespace.kubectl(&wait).await.unwrap();
    let node = testbed.namespace.node_name("a");
    let shown = until("the output is archived", PATIENCE, || async {
        let shown = places.api(&uid, &node).await;
        if shown.contains("ended") { Ok(shown) } else { Err(shown) }
    })
    .await;

    search.text("log and API", shown.as_bytes());
    known.text("log and API", shown.as_bytes());
    // Six forms of each variable on two streams, and standard input.
    let marks = shown.matches("***").count();
    assert!(marks > IN_ENV * 7, "{marks} marks in:\n{shown}");
    assert!(shown.contains("a secret was masked in the output"), "{shown}");
    let etcd = places.etcd().await;
    search.text("etcd, without Secrets", &etcd);
    known.text("etcd, without Secrets", &etcd);
    let history = places.history().await;
    search.text("History", &history);
    search.text("Redis", &places.redis().await);
    search.text("metrics", places.metrics().await.as_bytes());
    let events = testbed.namespace.kubectl(&["get", "events.events.k8s.io", "-o", "json"]).await.unwrap();
    search.text("events", events.as_bytes());
    search.files("agent and logs, at the end", testbed.path(), &[]);
    let set = places.parts["directory"].as_str().unwrap().to_owned();
    // etcd has the Secrets themselves.
    search.files("files of API server, Redis and PostgreSQL", Path::new(&set), &["etcd"]);

    println!("searched for {} forms of {} canaries in:", search.forms.len(), canaries.len());
    search.report.iter().for_each(|place| println!("  {place}"));
    assert_eq!(search.hits, Vec::<String>::new());
    for place in ["command lines", "agent and logs, while it runs", "log and API", "etcd, without Secrets"] {
        assert!(known.hits.iter().any(|hit| hit.starts_with(place)), "the control is not found in {place}");
    }
    drop(agent);
    testbed.close().await;
}
