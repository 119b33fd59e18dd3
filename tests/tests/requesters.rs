//! Who asked: the admission webhook of a real operator, called by a real API server, for people whom that authenticates.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::path::Path;
use std::time::{Duration, Instant};

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

const PATIENCE: Duration = Duration::from_secs(40);

/// When a change concerns who asked, as the chart has it.
const CONDITIONS: &str = include_str!("../../charts/sentinel-node/files/admission-conditions.yaml");

const STAMP: &str = "sentinelnode.dev/requested-by";

/// An operator whose webhook the API server calls, an agent, and a namespace in which a group of people may do everything.
struct Piece {
    testbed: Testbed,
    port: u16,
    node: String,
    _agent: Program,
    _files: tempfile::TempDir,
}

impl Piece {
    async fn new(test: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let ca = Ca::new(files.path(), "ca");
        let (port, name) = (free_port(), format!("{test}-{}", std::process::id()));
        let flags = [
            format!("--admission-listen=127.0.0.1:{port}"),
            "--admission-secret=stamps".to_owned(),
            format!("--admission-webhook={name}"),
        ];
        let tls = Some(ca.issue(files.path(), "operator", "localhost"));
        let testbed = Testbed::with(test, Options { tls, flags: flags.to_vec(), ..Options::default() }).await;
        testbed.add_node("n1", &[]).await;
        let gateway = format!("wss://localhost:{}", testbed.gateway_port());
        let agent = testbed.start_agent_at("n1", &gateway, Some(&ca.certificate));
        testbed.reachable("n1").await;
        let node = testbed.namespace.node_name("n1");
        let piece = Self { testbed, port, node, _agent: agent, _files: files };
        piece.rights().await;
        piece.webhook(&name, &ca.certificate).await;
        piece
    }

    async fn rights(&self) {
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

    fn webhooks(&self) -> Api<MutatingWebhookConfiguration> {
        Api::all(self.testbed.namespace.client.clone())
    }

    fn name(&self) -> String {
        let flag =
            self.testbed.options.flags.iter().find_map(|flag| flag.strip_prefix("--admission-webhook="));
        flag.unwrap().to_owned()
    }

    /// The configuration without a path; waits until the operator has written it, and the API server calls it.
    async fn webhook(&self, name: &str, ca: &Path) {
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
    async fn set(&self, change: Value) {
        let mut webhook = change;
        webhook["name"] = json!("tasks.sentinelnode.dev");
        let patch = Patch::Strategic(json!({"webhooks": [webhook]}));
        self.webhooks().patch(&self.name(), &PatchParams::default(), &patch).await.unwrap();
    }

    /// `kubectl` as one of the staff.
    async fn kubectl(&self, who: &str, arguments: &[&str]) -> Result<String, String> {
        let mut all = arguments.to_vec();
        all.extend(["--as", who, "--as-group", "staff", "--as-uid", "uid-of-them"]);
        self.testbed.namespace.kubectl(&all).await
    }

    fn task(&self, changes: &Value) -> Value {
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
    async fn sent(&self, verb: &str, who: &str, changes: &Value, flags: &[&str]) -> Result<Value, String> {
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

    async fn create(&self, who: &str, changes: Value) -> Result<Value, String> {
        self.sent("create", who, &changes, &[]).await
    }

    async fn get(&self, name: &str) -> Result<Value, String> {
        let printed =
            self.testbed.namespace.kubectl(&["get", "tasks.sentinelnode.dev", name, "-o", "json"]).await?;
        serde_json::from_str(&printed).map_err(|error| error.to_string())
    }

    /// The status of a Task's Run once it is over.
    async fn ended(&self, name: &str, run: u64) -> Value {
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
    async fn notes(&self, name: &str, reason: &str) -> Result<String, String> {
        let selector = format!("regarding.name={name},reason={reason}");
        let path = "jsonpath={.items[*].note}";
        self.testbed
            .namespace
            .kubectl(&["get", "events.events.k8s.io", "--field-selector", &selector, "-o", path])
            .await
    }

    async fn noted(&self, name: &str, reason: &str, text: &str) {
        until(&format!("an event {reason} of {name} has {text:?}"), PATIENCE, || async {
            let notes = self.notes(name, reason).await?;
            if notes.contains(text) { Ok(()) } else { Err(notes) }
        })
        .await;
    }

    /// How many Runs have begun with this answer to who asked.
    async fn counted(&self, requester: &str) -> u64 {
        let answer = self.testbed.http.get(format!("{}/metrics", self.testbed.metrics)).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let line = format!("sentinel_run_requesters_total{{requester=\"{requester}\"}} ");
        let count =
            text.lines().find_map(|text| text.strip_prefix(&line)).unwrap_or_else(|| panic!("{text}"));
        count.parse().unwrap()
    }

    async fn close(self) {
        self.webhooks().delete(&self.name(), &DeleteParams::default()).await.unwrap();
        self.testbed.close().await;
    }
}

fn author(run: &Value) -> &Value {
    &run["requestedBy"]["author"]["user"]
}

fn stamp(task: &Value) -> Value {
    serde_json::from_str(task["metadata"]["annotations"][STAMP].as_str().unwrap_or("null")).unwrap()
}

/// Whether any file below a directory has this text.
fn has_text(directory: &Path, text: &str) -> bool {
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

/// T69: the stamp equals the authenticated user of the last change.
#[tokio::test(flavor = "multi_thread")]
async fn the_stamp_is_of_the_authenticated_user_of_the_last_change() {
    let piece = Piece::new("requesters").await;
    let forged = json!({"author": {"user": "root"}}).to_string();
    let made = piece
        .create("alice", json!({"metadata": {"name": "job", "annotations": {STAMP: forged}}}))
        .await
        .unwrap();
    assert_eq!(stamp(&made)["author"]["user"], "alice", "what the user wrote is replaced");
    assert_eq!(stamp(&made)["author"]["uid"], "uid-of-them");
    let run = piece.ended("job", 1).await;
    assert_eq!(author(&run), "alice");
    assert!(run["requestedBy"]["author"]["groups"].as_array().unwrap().contains(&json!("staff")));
    piece.noted("job", "RunStarted", "as alice asked").await;

    // Edited and removed by another: undone, and no change of the author.
    for change in [format!("{STAMP}={forged}"), format!("{STAMP}-"), format!("{STAMP}-signature-")] {
        piece
            .kubectl("bob", &["annotate", "tasks.sentinelnode.dev", "job", "--overwrite", &change])
            .await
            .unwrap();
        let task = piece.get("job").await.unwrap();
        assert_eq!(task["metadata"]["annotations"], made["metadata"]["annotations"], "after {change}");
    }
    // Server-side apply by bob takes the ownership of the annotation, and changes the spec.
    let applied = json!({"metadata": {"name": "job", "annotations": {STAMP: forged}}, "spec": {"run": {"command": ["echo", "2"]}}});
    let flags = ["--server-side", "--force-conflicts", "--field-manager=bobs"];
    let dry =
        piece.sent("apply", "bob", &applied, &[&flags[..], &["--dry-run=server"]].concat()).await.unwrap();
    assert_eq!(
        (stamp(&dry)["author"]["user"].as_str(), stamp(&dry)["creator"]["user"].as_str()),
        (Some("bob"), Some("alice"))
    );
    assert_eq!(
        piece.get("job").await.unwrap()["metadata"]["annotations"],
        made["metadata"]["annotations"],
        "a dry run stores nothing"
    );
    piece.sent("apply", "bob", &applied, &flags).await.unwrap();
    let run = piece.ended("job", 2).await;
    assert_eq!((author(&run), &run["requestedBy"]["creator"]["user"]), (&json!("bob"), &json!("alice")));

    // Carol asks for the same again: the spec stays bob's.
    let rerun = "sentinelnode.dev/rerun=again";
    piece.kubectl("carol", &["annotate", "tasks.sentinelnode.dev", "job", rerun]).await.unwrap();
    let run = piece.ended("job", 3).await;
    assert_eq!((author(&run), &run["requestedBy"]["rerun"]["user"]), (&json!("bob"), &json!("carol")));
    until("History has who asked", PATIENCE, || async {
        let runs = piece.testbed.get("/api/v1/runs?task=job").await?;
        let of = |number: u64| {
            runs["items"].as_array().and_then(|all| all.iter().find(|run| run["run"] == number)).cloned()
        };
        let names = (of(2).unwrap_or_default(), of(3).unwrap_or_default());
        let found = (&names.0["requestedBy"]["author"]["user"], &names.1["requestedBy"]["rerun"]["user"]);
        if found == (&json!("bob"), &json!("carol")) { Ok(()) } else { Err(runs.to_string()) }
    })
    .await;
    assert_eq!(piece.counted("Known").await, 3);

    // A name that the API server makes.
    let generated = piece.create("alice", json!({"metadata": {"generateName": "made-"}})).await.unwrap();
    let name = generated["metadata"]["name"].as_str().unwrap();
    assert_eq!(author(&piece.ended(name, 1).await), "alice");
    piece.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cancels_is_named_and_a_request_without_a_person_is_unknown() {
    let piece = Piece::new("cancels").await;
    let sleeps =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"run": {"command": ["sleep", "300"]}}});
    for name in ["by-kubectl", "by-api"] {
        piece.create("alice", sleeps(name)).await.unwrap();
        until(&format!("{name} runs"), PATIENCE, || async {
            let task = piece.get(name).await?;
            if task["status"]["run"]["counts"]["running"] == 1 {
                Ok(())
            } else {
                Err(task["status"].to_string())
            }
        })
        .await;
    }
    let journal = piece.testbed.path().join("n1.state");
    assert!(has_text(&journal, "uid-of-them"), "the agent's journal has who asked");
    let cancel = "sentinelnode.dev/cancel=1";
    piece.kubectl("carol", &["annotate", "tasks.sentinelnode.dev", "by-kubectl", cancel]).await.unwrap();
    let run = piece.ended("by-kubectl", 1).await;
    assert_eq!((author(&run), &run["cancelledBy"]["user"]), (&json!("alice"), &json!("carol")));
    piece.noted("by-kubectl", "RunCancelled", "as carol asked").await;
    // The API of this operator has no authentication.
    let path = format!("{}/api/v1/tasks/{}/by-api/cancel", piece.testbed.api, piece.testbed.namespace.name);
    let answer = piece.testbed.http.post(path).header(sentinel_api::OWN_HEADER, "1").send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    let run = piece.ended("by-api", 1).await;
    assert_eq!((author(&run), &run["cancelledBy"]), (&json!("alice"), &Value::Null));
    piece.noted("by-api", "RunCancelled", "unknown").await;
    piece.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_webhook_nothing_is_written_or_it_is_unknown_who_asked() {
    let mut piece = Piece::new("webhook-down").await;
    let made = piece.create("alice", json!({"metadata": {"name": "before"}})).await.unwrap();
    piece.ended("before", 1).await;
    let operator = piece.testbed.operator.take().unwrap();
    operator.stop(Duration::from_secs(30)).await;

    let refused = piece.create("alice", json!({"metadata": {"name": "job"}})).await.unwrap_err();
    assert!(refused.contains("failed calling webhook \"tasks.sentinelnode.dev\""), "{refused}");
    // A label does not wait for the operator.
    piece.kubectl("bob", &["label", "tasks.sentinelnode.dev", "before", "team=ops"]).await.unwrap();

    piece.set(json!({"failurePolicy": "Ignore", "timeoutSeconds": 2})).await;
    let name = |name: &str| json!({"metadata": {"name": name}});
    until("the API server continues without the webhook", PATIENCE, || async {
        piece.create("alice", name("job")).await.map(|_| ())
    })
    .await;
    // Mallory claims to be alice, with a stamp that is alice's, of another Task.
    let annotations = &made["metadata"]["annotations"];
    let claimed = json!({"metadata": {"name": "claimed", "annotations": annotations}});
    piece.create("mallory", claimed).await.unwrap();
    let spec = json!({"metadata": {"name": "before"}, "spec": {"run": {"command": ["id"]}}});
    piece.sent("apply", "mallory", &spec, &["--server-side", "--force-conflicts"]).await.unwrap();

    piece.testbed.start_operator().await;
    for (task, run, why) in
        [("job", 1, "NotStamped"), ("claimed", 1, "Signature"), ("before", 2, "SpecChanged")]
    {
        let run = piece.ended(task, run).await;
        assert_eq!((&run["requestedBy"]["unknown"], author(&run)), (&json!(why), &Value::Null), "{task}");
        piece.noted(task, "RequesterUnknown", "it is unknown who asked for it").await;
        assert_eq!(piece.counted(why).await, 1);
    }
    let runs = piece.testbed.get("/api/v1/runs?task=claimed").await.unwrap();
    assert!(runs["items"][0].get("requestedBy").is_none(), "{runs}");

    // One that takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}/", silent.local_addr().unwrap().port());
    let operator = piece.testbed.operator.take().unwrap();
    operator.stop(Duration::from_secs(30)).await;
    piece.set(json!({"failurePolicy": "Fail", "timeoutSeconds": 1, "clientConfig": {"url": url}})).await;
    until("the API server waits for it, and then refuses", PATIENCE, || async {
        let begun = Instant::now();
        match piece.create("alice", json!({"metadata": {"generateName": "late-"}})).await {
            Err(error) if error.contains("deadline exceeded") || error.contains("Timeout") => {
                assert!(begun.elapsed() < Duration::from_secs(20));
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    piece.close().await;
}
