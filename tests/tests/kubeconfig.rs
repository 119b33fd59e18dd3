//! The command line with a kubeconfig, on a real API server: writes of Tasks, refusals, `check`, `report`, completion.
//!
//! No operator is installed here: what needs one must be refused with a message that names what is missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use sentinel_tests::cluster::TestNamespace;
use sentinel_tests::command_lines::Ran;
use sentinel_tests::programs::binary;
use serde_json::Value;

/// What no file of a report may hold.
const CANARY: &str = "canary7f3a91";

/// The program, as a user of this kubeconfig has it.
fn sentinel(kubeconfig: &Path) -> Command {
    let mut command = Command::new(binary("sentinel"));
    for name in ["SENTINEL_SERVER", "SENTINEL_TOKEN_FILE", "SENTINEL_NAMESPACE", "SENTINEL_PARTS"] {
        command.env_remove(name);
    }
    command.env("KUBECONFIG", kubeconfig).stdin(Stdio::null());
    command
}

fn run(test: &TestNamespace, arguments: &[&str]) -> Ran {
    let mut command = sentinel(&test.parts.kubeconfig);
    // A dev mode that runs on this machine must not be found.
    command.args(["--context", &context(test)]);
    Ran::of(&command.args(["-n", &test.name]).args(arguments).output().unwrap())
}

fn context(test: &TestNamespace) -> String {
    let config = kube::config::Kubeconfig::read_from(&test.parts.kubeconfig).unwrap();
    config.current_context.unwrap()
}

fn manifest(folder: &Path, name: &str, run: &str) -> String {
    let path = folder.join(format!("{name}.yaml"));
    let text = format!(
        "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}}}\nspec: {{targets: {{all: true}}, run: {run}}}\n"
    );
    std::fs::write(&path, text).unwrap();
    path.to_string_lossy().into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_written_as_objects_with_the_rights_of_the_caller() {
    let test = TestNamespace::new("kubeconfig").await;
    let folder = tempfile::tempdir().unwrap();
    let file = manifest(folder.path(), "web", "{command: [\"true\"]}");
    run(&test, &["apply", "--dry-run=server", &file]).exited(0).has("created (server dry run)");
    assert!(
        test.kubectl(&["get", "tasks.sentinelnode.dev", "web"]).await.is_err(),
        "a dry run stores nothing"
    );
    run(&test, &["apply", &file]).exited(0).has("task/web created");
    run(&test, &["apply", &file]).exited(0).has("task/web unchanged");
    let shown = run(&test, &["apply", "-o", "json", &file]).exited(0);
    let task: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(
        (task["metadata"]["name"].as_str(), task["metadata"].get("managedFields")),
        (Some("web"), None)
    );
    let managers = ["get", "tasks.sentinelnode.dev", "web", "--show-managed-fields", "-o"];
    let managers =
        test.kubectl(&[&managers[..], &["jsonpath={.metadata.managedFields[*].manager}"]].concat()).await;
    assert_eq!(managers.unwrap(), "sentinel");

    // A field that another manager has is a conflict, as with kubectl.
    let other = manifest(folder.path(), "web", "{command: [\"false\"]}");
    test.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &other]).await.unwrap();
    let changed = manifest(folder.path(), "web", "{command: [\"uptime\"]}");
    run(&test, &["apply", &changed]).exited(1).has("--force-conflicts");
    run(&test, &["apply", "--force-conflicts", &changed]).exited(0).has("task/web configured");

    // The same sentences about an invalid Task as from an operator, and nothing is sent.
    let invalid = manifest(folder.path(), "bad", "{command: []}");
    run(&test, &["apply", &invalid]).exited(2).has("spec.run");
    // A caller without rights gets the words of the API server, and the role that has the right.
    let refused = run(&test, &["--as", "jane", "apply", &file]).exited(1);
    let refused =
        refused.has("User \"jane\" cannot patch resource \"tasks\" in API group \"sentinelnode.dev\"");
    refused.has("sentinel-node-task-runner");
    run(&test, &["delete", "web"]).exited(0).has("deletion requested");
    run(&test, &["delete", "web"]).exited(1).has("\"web\" not found");
    test.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_an_installation_is_named_as_one() {
    let test = TestNamespace::new("uninstalled").await;
    let listed = run(&test, &["get", "tasks"]).exited(1);
    let listed =
        listed.has("does not serve the API of Sentinel Node (APIService v1alpha1.ops.sentinelnode.dev)");
    listed.has("it is not installed").has("sentinel check --pre");
    run(&test, &["--as", "jane", "get", "tasks"]).exited(1).has("does not serve the API");
    // Tasks can be created; but no one could be followed, and who repeats the command line would run it twice.
    let started = run(&test, &["run", "--all", "--", "true"]).exited(125);
    started.has("it is not installed").has("Nothing was started");
    assert_eq!(test.kubectl(&["get", "tasks.sentinelnode.dev", "-o", "name"]).await.unwrap(), "");
    run(&test, &["run", "--all", "--detach", "--name", "detached", "--", "true"]).exited(0).has("Created.");
    let mut unknown = sentinel(&test.parts.kubeconfig);
    let unknown = Ran::of(&unknown.args(["--context", "elsewhere", "nodes"]).output().unwrap()).exited(2);
    unknown.has("no context elsewhere").has(&format!("It has: {}", context(&test)));
    let mut absent = sentinel(Path::new("/nowhere"));
    let absent = Ran::of(&absent.args(["--as", "jane", "nodes"]).output().unwrap()).exited(1);
    absent.has("failed to read the kubeconfig /nowhere").has("--kubeconfig FILE");
    test.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_what_is_fit_and_what_is_missing() {
    let test = TestNamespace::new("check").await;
    let result = |ran: &Ran| -> Value { serde_json::from_str(&ran.out).unwrap() };
    let of = |all: &Value, check: &str| -> Vec<(String, String)> {
        let all = all["checks"].as_array().unwrap();
        let ours = all.iter().filter(|one| one["check"] == check);
        ours.map(|one| {
            (one["result"].as_str().unwrap().to_owned(), one["message"].as_str().unwrap().to_owned())
        })
        .collect()
    };
    let before = run(&test, &["check", "--pre", "--install-namespace", &test.name, "-o", "json"]);
    let before = result(&before);
    assert_eq!(of(&before, "kubernetes")[0].0, "ok", "{before}");
    assert_eq!(of(&before, "clock")[0].0, "ok", "{before}");
    assert_eq!(of(&before, "rights")[0].0, "ok", "{before}");
    assert_eq!(of(&before, "pod-security")[0].0, "warn", "{before}");
    // Those of this release: what the API server adds is not a difference.
    for (verdict, message) in of(&before, "crds") {
        assert_eq!(verdict, "ok", "{message}");
    }
    let label = "pod-security.kubernetes.io/enforce";
    test.parts.kubectl(&["label", "namespace", &test.name, &format!("{label}=restricted")]).await.unwrap();
    let restricted =
        run(&test, &["check", "--pre", "--install-namespace", &test.name, "-o", "json"]).exited(1);
    assert_eq!(of(&result(&restricted), "pod-security")[0].0, "fail", "{}", restricted.out);

    let after = run(&test, &["check", "--install-namespace", &test.name, "-o", "json"]).exited(1);
    let after = result(&after);
    for missing in ["apiservice", "operator", "agents", "api"] {
        assert_eq!(of(&after, missing)[0].0, "fail", "{missing}: {after}");
    }
    for one in after["checks"].as_array().unwrap() {
        assert!(
            one["result"] == "ok" || one["advice"].as_str().is_some_and(|advice| !advice.is_empty()),
            "{one}"
        );
    }
    let jane = run(&test, &["--as", "jane", "check", "--pre", "--install-namespace", &test.name]).exited(1);
    jane.has("you may not install into namespace").has("no right to create customresourcedefinitions");
    test.close().await;
}

/// The files of an archive, by name.
fn files(archive: &[u8]) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(entry.path().unwrap().to_string_lossy().into_owned(), text);
    }
    files
}

/// Objects of an installation, and Tasks, with the secret wherever one may be.
fn secretive_objects() -> String {
    let labels = "app.kubernetes.io/name: sentinel-node, app.kubernetes.io/component: operator";
    format!(
        r#"
apiVersion: v1
kind: List
items:
- apiVersion: sentinelnode.dev/v1alpha1
  kind: Task
  metadata: {{name: secretive, annotations: {{note: {CANARY}}}}}
  spec:
    targets: {{all: true}}
    run: {{command: [deploy, "--key={CANARY}", {CANARY}], stdin: {CANARY}, env: [{{name: PLAIN, value: {CANARY}}}]}}
- apiVersion: sentinelnode.dev/v1alpha1
  kind: Task
  metadata: {{name: scripted}}
  spec: {{targets: {{all: true}}, run: {{script: {{text: "echo {CANARY}"}}}}}}
- apiVersion: v1
  kind: Secret
  metadata: {{name: operator-tls, labels: {{{labels}}}}}
  stringData: {{tls.key: {CANARY}}}
- apiVersion: v1
  kind: ConfigMap
  metadata: {{name: operator-config, labels: {{{labels}}}}}
  data: {{config: {CANARY}, ca.crt: a certificate}}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {{name: x-operator, labels: {{{labels}}}}}
  spec:
    replicas: 1
    selector: {{matchLabels: {{a: b}}}}
    template:
      metadata: {{labels: {{a: b, {labels}}}, annotations: {{checksum: {CANARY}}}}}
      spec:
        containers:
        - name: operator
          image: none
          args: ["--mongodb-uri=mongodb://user:{CANARY}@db/", "--redis-url=redis://:{CANARY}@redis/", "--token={CANARY}", "--password", "{CANARY}x"]
          env: [{{name: PLAIN, value: {CANARY}}}]
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_has_the_objects_and_none_of_the_secrets() {
    let test = TestNamespace::new("report").await;
    test.apply(&secretive_objects()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.tar.gz");
    let ran =
        run(&test, &["report", "--install-namespace", &test.name, "-f", &file.to_string_lossy()]).exited(0);
    ran.has("MANIFEST.md");
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let files = files(&std::fs::read(&file).unwrap());
    let named =
        |name: &str| files.get(&format!("sentinel-report/{name}")).unwrap_or_else(|| panic!("{name}"));
    for (name, text) in &files {
        assert!(!text.contains(CANARY), "{name} has the secret:\n{text}");
    }
    let task: Value = serde_json::from_str(named(&format!("tasks/{}/secretive.json", test.name))).unwrap();
    assert_eq!(task["spec"]["run"]["command"][0], "deploy");
    assert_eq!(task["spec"]["run"]["env"][0]["name"], "PLAIN");
    let deployments: Value = serde_json::from_str(named("objects/deployments.json")).unwrap();
    let container = &deployments[0]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["args"][0], "--mongodb-uri=mongodb://[redacted]@db/", "{container}");
    let maps: Value = serde_json::from_str(named("objects/configmaps.json")).unwrap();
    assert_eq!(maps[0]["data"]["ca.crt"], "a certificate");
    let manifest = named("MANIFEST.md");
    for part in [
        "standard input",
        "value of an environment variable",
        "argument of a command",
        "Tasks by the operator",
    ] {
        assert!(manifest.contains(part), "{part}: {manifest}");
    }
    test.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_and_contexts_of_the_cluster_are_completed() {
    let test = TestNamespace::new("completed").await;
    let offered = |words: &[&str]| {
        let mut command = sentinel(&test.parts.kubeconfig);
        command.env("SENTINEL_COMPLETE", "bash").env("_CLAP_IFS", "\n");
        command.env("_CLAP_COMPLETE_INDEX", words.len().to_string()).arg("--").arg("sentinel").args(words);
        let ran = Ran::of(&command.output().unwrap()).exited(0);
        assert_eq!(ran.err, "", "{words:?}");
        ran.out
    };
    let context = context(&test);
    assert_eq!(offered(&["--context", &context[..1]]), context);
    let prefix = test.name.rsplit_once('-').unwrap().0;
    let namespaces = offered(&["--context", &context, "get", "tasks", "-n", prefix]);
    assert!(namespaces.lines().any(|line| line == test.name), "{namespaces}");
    assert_eq!(offered(&["--context", &context, "logs", "web"]), "", "no operator has a Task");
    test.close().await;
}
