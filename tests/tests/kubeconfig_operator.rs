//! The command line with a kubeconfig, on a real API server that aggregates the API of a real operator: every verb, with the
//! rights of callers that have roles; streams, as they are written; the page of a cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, DeleteParams};
use sentinel_api::aggregated::{API_SERVICE, Access, GROUP, ROWS, Scope, TASK_GROUP, VERSION};
use sentinel_tests::certificates::Ca;
use sentinel_tests::command_lines::Ran;
use sentinel_tests::ports::free_port;
use sentinel_tests::programs::{Program, binary};
use sentinel_tests::testbed::{Options, Testbed};
use sentinel_tests::wait::until;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(40);

/// An operator behind the API server, an agent, and users with roles.
struct Fixture {
    testbed: Testbed,
    /// The namespace of the operator's Service.
    services: String,
    node: String,
    _agent: Program,
    _certificates: tempfile::TempDir,
}

impl Fixture {
    async fn new(test: &str) -> Self {
        let services = format!("{test}-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let certificates = tempfile::tempdir().unwrap();
        let ca = Ca::new(certificates.path(), "ca");
        let names = format!("localhost,DNS:sn-aggregated.{services}.svc");
        let certificate = ca.issue(certificates.path(), "operator", &names);
        let aggregated = format!("127.0.0.1:{}", free_port());
        let flags = vec!["--api-auth=kubernetes".to_owned(), format!("--aggregated-listen={aggregated}")];
        let options = Options { tls: Some(certificate), flags, ..Options::default() };
        let testbed = Testbed::with(test, options).await;
        testbed.add_node("n1", &[]).await;
        let gateway = format!("wss://localhost:{}", testbed.gateway_port());
        let agent = testbed.start_agent_at("n1", &gateway, Some(&ca.certificate));
        let node = testbed.namespace.node_name("n1");
        let ca = std::fs::read(&ca.certificate).unwrap();
        let fixture = Self { testbed, services, node, _agent: agent, _certificates: certificates };
        fixture.aggregate(&aggregated, &ca).await;
        fixture.roles().await;
        fixture
    }

    /// Has the API server pass requests of the group to the operator.
    async fn aggregate(&self, at: &str, ca: &[u8]) {
        let (address, port) = at.rsplit_once(':').unwrap();
        let port: u16 = port.parse().unwrap();
        let named = |name: &str| json!({"name": name, "namespace": self.services});
        let mut slice = named("sn-aggregated-1");
        slice["labels"] = json!({"kubernetes.io/service-name": "sn-aggregated"});
        // The address is given as a name: as an IPv4 address, one of loopback is refused.
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.services}},
            {"apiVersion": "v1", "kind": "Service", "metadata": named("sn-aggregated"),
                "spec": {"ports": [{"name": "https", "port": 443, "targetPort": port}]}},
            {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": slice, "addressType": "FQDN",
                "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}]},
            {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": API_SERVICE},
                "spec": {"group": GROUP, "version": VERSION, "groupPriorityMinimum": 1000, "versionPriority": 15,
                    "caBundle": base64::engine::general_purpose::STANDARD.encode(ca),
                    "service": {"namespace": self.services, "name": "sn-aggregated", "port": 443}}},
        ]});
        self.apply(&objects).await;
        let services: Api<APIService> = Api::all(self.testbed.namespace.client.clone());
        until("the APIService is available", PATIENCE, || async {
            let found = services.get(API_SERVICE).await.map_err(|error| error.to_string())?;
            let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
            let is_available = conditions.iter().any(|one| one.type_ == "Available" && one.status == "True");
            if is_available { Ok(()) } else { Err(format!("{conditions:?}")) }
        })
        .await;
    }

    /// `jane` may do everything in the namespace, `ida` all but read output, `joe` neither that nor write, and `eve` write only.
    async fn roles(&self) {
        let ours = &self.testbed.namespace.name;
        let rule = |access: &Access| json!({"apiGroups": [access.group], "resources": [access.path()], "verbs": [access.verb]});
        let rules = |wanted: &dyn Fn(&Access, Scope) -> bool| -> Vec<Value> {
            let all = ROWS.iter().flat_map(|row| row.access.iter().map(move |access| (access, row.scope)));
            all.filter(|(access, scope)| wanted(access, *scope)).map(|(access, _)| rule(access)).collect()
        };
        let is_read = |access: &Access| {
            ["get", "list", "watch"].contains(&access.verb) && access.subresource != Some("log")
        };
        let mut objects = Vec::new();
        let mut role = |name: &str, rules: Vec<Value>, users: &[&str], is_cluster: bool| {
            let name = format!("{ours}-{name}");
            let subjects: Vec<Value> = users
                .iter()
                .map(|user| json!({"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}))
                .collect();
            objects.push(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": name}, "rules": rules}));
            let mut metadata = json!({"name": name});
            if !is_cluster {
                metadata["namespace"] = json!(ours);
            }
            let kind = if is_cluster { "ClusterRoleBinding" } else { "RoleBinding" };
            objects.push(
                json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
                "subjects": subjects}),
            );
        };
        role("nodes", rules(&|_, scope| scope == Scope::Cluster), &["jane", "ida", "joe"], true);
        role("all", rules(&|_, scope| scope != Scope::Cluster), &["jane"], false);
        let is_log = |access: &Access| access.subresource == Some("log");
        role("runs", rules(&|access, scope| scope != Scope::Cluster && !is_log(access)), &["ida"], false);
        role("writes", rules(&|access, _| access.group == TASK_GROUP), &["eve"], false);
        role("reads", rules(&|access, scope| scope != Scope::Cluster && is_read(access)), &["joe"], false);
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects})).await;
    }

    async fn apply(&self, objects: &Value) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), objects.to_string()).unwrap();
        let path = file.path().to_string_lossy().into_owned();
        self.testbed.namespace.parts.kubectl(&["apply", "-f", &path]).await.unwrap();
    }

    fn command(&self, user: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("sentinel"));
        for name in ["SENTINEL_SERVER", "SENTINEL_TOKEN_FILE", "SENTINEL_NAMESPACE", "SENTINEL_PARTS"] {
            command.env_remove(name);
        }
        let namespace = &self.testbed.namespace;
        command.env("KUBECONFIG", &namespace.parts.kubeconfig).stdin(Stdio::null());
        command.args(["-n", &namespace.name, "--as", user]).args(arguments);
        command
    }

    fn run(&self, user: &str, arguments: &[&str]) -> Ran {
        Ran::of(&self.command(user, arguments).output().unwrap())
    }

    async fn close(self) {
        let client = self.testbed.namespace.client.clone();
        let gone = DeleteParams::default();
        Api::<APIService>::all(client.clone()).delete(API_SERVICE, &gone).await.unwrap();
        Api::<Namespace>::all(client.clone()).delete(&self.services, &gone).await.unwrap();
        for name in ["nodes", "all", "runs", "writes", "reads"] {
            let name = format!("{}-{name}", self.testbed.namespace.name);
            let _ = self.testbed.namespace.parts.kubectl(&["delete", "clusterrolebinding", &name]).await;
            self.testbed.namespace.parts.kubectl(&["delete", "clusterrole", &name]).await.unwrap();
        }
        self.testbed.close().await;
    }
}

/// A process that is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_works_with_the_rights_of_its_caller() {
    let fixture = Fixture::new("verbs").await;
    let node = fixture.node.as_str();
    until("the agent is connected", PATIENCE, || async {
        let ran = fixture.run("jane", &["nodes", "-o", "json"]);
        if ran.code == 0 && ran.out.contains("\"reachable\": true") {
            Ok(())
        } else {
            Err(ran.err + &ran.out)
        }
    })
    .await;
    reads_and_writes(&fixture, node);
    refusals(&fixture, node);
    nothing_runs_unseen(&fixture, node).await;
    streams(&fixture, node).await;
    page(&fixture).await;
    fixture.close().await;
}

fn reads_and_writes(fixture: &Fixture, node: &str) {
    let jane = |arguments: &[&str]| fixture.run("jane", arguments);
    jane(&["nodes"]).exited(0).has(node);
    jane(&["run", "--name", "hello", "--node", node, "--", "echo", "hello"]).exited(0).has("hello\n");
    jane(&["get", "tasks"]).exited(0).has("hello");
    jane(&["get", "task", "hello", "-o", "json"]).exited(0).has("\"Succeeded\"");
    jane(&["get", "runs"]).exited(0).has("hello");
    jane(&["get", "executions", "--task", "hello"]).exited(0).has(node);
    jane(&["get", "execution", &format!("hello/1/{node}")]).exited(0).has("Succeeded");
    jane(&["logs", "hello"]).exited(0).has("hello\n");
    jane(&["logs", &format!("hello/1/{node}")]).exited(0).has("hello\n");
    jane(&["logs", "hello", "--grep", "hel+o"]).exited(0).has("hello");
    jane(&["logs", "hello", "--fold"]).exited(0).has("hello");
    jane(&["rerun", "hello", "--follow"]).exited(0).has("hello");
    jane(&["wait", "hello"]).exited(0);
    let checked = jane(&["check", "--task", "--node", node, "-o", "json", "--", "echo", "checked"]);
    let found: Value = serde_json::from_str(&checked.out).unwrap();
    let of = |check: &str| -> Vec<&str> {
        let all = found["checks"].as_array().unwrap().iter().filter(|one| one["check"] == check);
        all.map(|one| one["result"].as_str().unwrap()).collect()
    };
    for check in ["api", "connections", "history", "task", "output"] {
        assert!(!of(check).is_empty() && of(check).iter().all(|result| *result == "ok"), "{check}: {found}");
    }
    jane(&["run", "--name", "long", "--node", node, "--detach", "--", "sleep", "600"]).exited(0);
    jane(&["cancel", "long", "--wait"]).exited(0);
    jane(&["delete", "long", "hello", "--wait"]).exited(0).has("task/hello deleted");
    let mut completion = fixture.command("jane", &[]);
    let words = ["--as", "jane", "-n", fixture.testbed.namespace.name.as_str(), "run", "--node", &node[..2]];
    completion = {
        let mut command = Command::new(completion.get_program());
        command
            .env("KUBECONFIG", &fixture.testbed.namespace.parts.kubeconfig)
            .env("SENTINEL_COMPLETE", "bash");
        command.env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_INDEX", words.len().to_string());
        command.arg("--").arg("sentinel").args(words);
        command
    };
    assert_eq!(Ran::of(&completion.output().unwrap()).exited(0).out, node);
}

/// What a caller may not do is answered by the API server, with the right and with the role that has it.
fn refusals(fixture: &Fixture, node: &str) {
    fixture.run("jane", &["run", "--name", "secret", "--node", node, "--", "echo", "hello"]).exited(0);
    let joe = |arguments: &[&str]| fixture.run("joe", arguments);
    joe(&["get", "task", "secret"]).exited(0).has("Succeeded");
    let logs = joe(&["logs", "secret"]).exited(1);
    let logs = logs.has("cannot get resource \"tasks/log\" in API group \"ops.sentinelnode.dev\"");
    assert!(!logs.out.contains("hello"), "{}", logs.out);
    logs.has("sentinel-node-log-reader");
    joe(&["rerun", "secret"])
        .exited(1)
        .has("cannot create resource \"tasks/rerun\"")
        .has("sentinel-node-task-runner");
    joe(&["run", "--node", node, "--", "true"]).exited(125).has("cannot create resource \"tasks\"");
    let all = joe(&["get", "tasks", "-A"]).exited(1);
    all.has("cannot list resource \"tasks\"").has("sentinel-node-task-viewer");
}

/// Who may not follow a Task creates none, and who may not read its output is informed while it runs.
async fn nothing_runs_unseen(fixture: &Fixture, node: &str) {
    let eve = fixture.run("eve", &["run", "--name", "unseen", "--node", node, "--", "true"]).exited(125);
    eve.has("cannot watch resource \"tasks\"").has("Nothing was started");
    // Of the rights of a role, those that are missing are named.
    let rights = fixture.run("eve", &["check"]);
    let rights = rights.has("of the rights to create, change, cancel, rerun and delete Tasks in namespace");
    rights.has("you lack: ").has("create tasks/rerun.ops.sentinelnode.dev");
    fixture.run("jane", &["get", "task", "unseen"]).exited(1).has("unseen");
    let typo = fixture.run("jane", &["run", "--name", "typo", "--node", "node-9", "--", "true"]).exited(125);
    typo.has("node-9").has("sentinel nodes");
    fixture.run("jane", &["get", "task", "typo"]).exited(1).has("typo");

    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("read");
    let script = format!("until [ -e {} ]; do sleep 0.05; done; exit 3", gate.display());
    let arguments = ["run", "--name", "unread", "--node", node, "--", "sh", "-c", &script];
    let mut command = fixture.command("ida", &arguments);
    let mut child = Running(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(
        lines.any(|line| line.contains("you may not read the output of")),
        "that is stated before the end"
    );
    assert!(lines.next().unwrap().contains("sentinel-node-log-reader"));
    std::fs::write(&gate, "").unwrap();
    assert!(lines.any(|line| line.contains("Failed")));
    assert_eq!(child.0.wait().unwrap().code(), Some(3), "the exit code is that of the command");
    fixture.run("ida", &["logs", "-f", "unread"]).exited(1).has("sentinel-node-log-reader");
}

/// A line is shown while the command that wrote it still runs.
async fn streams(fixture: &Fixture, node: &str) {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let script = format!("echo first; until [ -e {} ]; do sleep 0.05; done; echo last", gate.display());
    let started = ["run", "--name", "gated", "--node", node, "--detach", "--", "sh", "-c", &script];
    fixture.run("jane", &started).exited(0);
    let mut command = fixture.command("jane", &["logs", "-f", "gated"]);
    let mut child = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().ends_with("first"));
    std::fs::write(&gate, "").unwrap();
    assert!(lines.next().unwrap().unwrap().ends_with("last"));
    assert!(lines.next().is_none());
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}

/// The page is served with the caller's credentials, to the holder of its token only.
async fn page(fixture: &Fixture) {
    let mut command = fixture.command("jane", &["ui", "--print"]);
    let mut child = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut link = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut link).unwrap();
    let (page, token) = link.trim().split_once("#token=").unwrap();
    let http = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
    let status = |answer: Result<reqwest::Response, reqwest::Error>| answer.unwrap().status().as_u16();
    let html = http.get(page).send().await.unwrap().text().await.unwrap();
    assert!(html.contains("<base href=\"/\">"), "{html}");
    let namespace = &fixture.testbed.namespace.name;
    let tasks = format!("{page}api/v1/tasks?namespace={namespace}");
    assert_eq!(status(http.get(&tasks).send().await), 401);
    assert_eq!(status(http.get(&tasks).bearer_auth(token).header("host", "evil.test").send().await), 421);
    let foreign = http.get(&tasks).bearer_auth(token).header("origin", "http://evil.test");
    assert_eq!(status(foreign.send().await), 403);
    let listed: Value = http.get(&tasks).bearer_auth(token).send().await.unwrap().json().await.unwrap();
    let uid =
        listed["items"].as_array().unwrap().iter().find(|task| task["metadata"]["name"] == "secret").unwrap()
            ["metadata"]["uid"]
            .as_str()
            .unwrap()
            .to_owned();
    // The page names a Task by its uid; the way to its output goes by its name.
    let log = format!("{page}api/v1/runs/{uid}/1/log");
    let log = http.get(&log).bearer_auth(token).send().await.unwrap().text().await.unwrap();
    assert!(log.contains("hello"), "{log}");
    let events = format!("{page}api/v1/events?namespace={namespace}");
    let events = http.get(&events).bearer_auth(token).send().await.unwrap();
    assert_eq!(events.headers()["content-type"].to_str().unwrap(), "text/event-stream");
    let created = http.post(format!("{page}api/v1/tasks?dryRun=All")).bearer_auth(token).json(&json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task",
        "metadata": {"name": "from-page", "namespace": namespace},
        "spec": {"targets": {"nodeNames": [fixture.node]}, "run": {"command": ["true"]}},
    }));
    assert_eq!(status(created.send().await), 201);
}
