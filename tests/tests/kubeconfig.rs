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

/// What is installed in the cluster is the same for all tests.
static INSTALLED: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

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
    let _installed = INSTALLED.lock().await;
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
    let _installed = INSTALLED.lock().await;
    let test = TestNamespace::new("uninstalled").await;
    let listed = run(&test, &["get", "tasks"]).exited(1);
    let listed =
        listed.has("does not serve the API of Sentinel Node (APIService v1alpha1.ops.sentinelnode.dev)");
    listed.has("it is not installed").has("sentinel check --pre");
    run(&test, &["--as", "jane", "get", "tasks"]).exited(1).has("does not serve the API");
    // A Task could be created but not followed, and a retry of the command would run it twice.
    let started = run(&test, &["run", "--all", "--", "true"]).exited(125);
    started.has("it is not installed").has("Nothing was started");
    assert_eq!(test.kubectl(&["get", "tasks.sentinelnode.dev", "-o", "name"]).await.unwrap(), "");
    run(&test, &["run", "--all", "--detach", "--name", "detached", "--", "true"]).exited(0).has("Created.");
    let mut unknown = sentinel(&test.parts.kubeconfig);
    let unknown = Ran::of(&unknown.args(["--context", "elsewhere", "nodes"]).output().unwrap()).exited(2);
    unknown.has("no context elsewhere").has(&format!("It has: {}", context(&test)));
    let mut absent = sentinel(Path::new("/nowhere"));
    let absent = Ran::of(&absent.args(["--as", "jane", "nodes"]).output().unwrap()).exited(1);
    absent.has("failed to read the kubeconfig /nowhere: No such file").has("--kubeconfig FILE");
    let mut wrong = kube::config::Kubeconfig::read_from(&test.parts.kubeconfig).unwrap();
    for user in &mut wrong.auth_infos {
        user.auth_info = serde_json::from_value(serde_json::json!({"token": "wrong"})).unwrap();
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), serde_json::to_string(&wrong).unwrap()).unwrap();
    for arguments in [&["nodes"][..], &["delete", "web"], &["run", "--all", "--", "true"]] {
        let mut refused = sentinel(file.path());
        let refused = refused.args(["--context", &context(&test)]).args(arguments).output().unwrap();
        let refused = Ran::of(&refused).has("does not accept your credentials").has("kubectl auth whoami");
        assert!(!refused.err.contains("dev mode"), "{refused:?}");
    }
    test.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_what_is_fit_and_what_is_missing() {
    let _installed = INSTALLED.lock().await;
    let test = TestNamespace::new("check").await;
    let folder = tempfile::tempdir().unwrap();
    let before = run(&test, &["check", "--pre", "--install-namespace", &test.name, "-o", "json"]);
    let before = result(&before);
    assert_eq!(of(&before, "kubernetes")[0].0, "ok", "{before}");
    assert_eq!(of(&before, "clock")[0].0, "ok", "{before}");
    assert_eq!(of(&before, "rights")[0].0, "ok", "{before}");
    assert_eq!(of(&before, "pod-security")[0].0, "warn", "{before}");
    // As `kubectl apply` made them: `helm install` refuses them.
    for (verdict, message) in of(&before, "crds") {
        assert_eq!(verdict, "warn", "{message}");
        assert!(message.contains("belongs to no Helm release"), "{message}");
    }
    assert_eq!(of(&before, "storage")[0].0, "warn", "{before}");
    let label = "pod-security.kubernetes.io/enforce";
    test.parts.kubectl(&["label", "namespace", &test.name, &format!("{label}=restricted")]).await.unwrap();
    let restricted =
        run(&test, &["check", "--pre", "--install-namespace", &test.name, "-o", "json"]).exited(1);
    assert_eq!(of(&result(&restricted), "pod-security")[0].0, "fail", "{}", restricted.out);
    given_to_helm_and_a_default_class(&test).await;

    let after = run(&test, &["check", "--install-namespace", &test.name, "-o", "json"]).exited(1);
    let after = result(&after);
    let left = of(&after, "tasks");
    assert!(left.is_empty() || left[0].1.contains("without an operator"), "{after}");
    test.apply(&std::fs::read_to_string(manifest(folder.path(), "left", "{command: [\"true\"]}")).unwrap())
        .await
        .unwrap();
    for flags in [&["check"][..], &["check", "--pre"]] {
        let found = result(&run(&test, &[flags, &["-o", "json"]].concat()));
        assert_eq!(of(&found, "tasks")[0].0, "warn", "{found}");
    }
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
    let jane =
        jane.has("you may not install into namespace").has("no right to create customresourcedefinitions");
    assert!(
        jane.has("the nodes cannot be listed: that is forbidden to you").out.find("cannot list").is_none()
    );
    test.close().await;
}

/// What a check printed as JSON.
fn result(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// Result and message of each of its lines about this.
fn of(all: &Value, check: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let ours = all["checks"].as_array().unwrap().iter().filter(|one| one["check"] == check);
    ours.map(|one| (text(&one["result"]), text(&one["message"]))).collect()
}

/// As a release leaves the definitions, and with agents that observe: no advice that breaks or weakens anything.
async fn given_to_helm_and_a_default_class(test: &TestNamespace) {
    let class = "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: usual, annotations: \
                 {storageclass.kubernetes.io/is-default-class: 'true'}}, provisioner: none}";
    test.apply(class).await.unwrap();
    let crds = ["tasks.sentinelnode.dev", "targetslices.sentinelnode.dev"];
    let space = format!("meta.helm.sh/release-namespace={}", test.name);
    for crd in crds {
        test.kubectl(&["label", "--overwrite", "crd", crd, "app.kubernetes.io/managed-by=Helm"])
            .await
            .unwrap();
        let annotate = ["annotate", "--overwrite", "crd", crd, "meta.helm.sh/release-name=sn", &space];
        test.kubectl(&annotate).await.unwrap();
    }
    let fit = ["check", "--pre", "--install-namespace", &test.name, "--profile", "observe", "-o", "json"];
    let fit = result(&run(test, &fit).exited(0));
    for check in ["crds", "storage", "pod-security"] {
        assert!(of(&fit, check).iter().all(|(verdict, _)| verdict == "ok"), "{check}: {fit}");
    }
    test.kubectl(&["delete", "storageclass", "usual"]).await.unwrap();
    for crd in crds {
        test.kubectl(&["label", "crd", crd, "app.kubernetes.io/managed-by-"]).await.unwrap();
        let gone = ["meta.helm.sh/release-name-", "meta.helm.sh/release-namespace-"];
        test.kubectl(&[&["annotate", "crd", crd][..], &gone].concat()).await.unwrap();
    }
}

/// The objects of an installation of the profile `observe` without the aggregated API.
fn observing(name: &str) -> String {
    let labels = |component: &str| {
        format!("app.kubernetes.io/name: sentinel-node, app.kubernetes.io/component: {component}")
    };
    let (operator, agent) = (labels("operator"), labels("agent"));
    let pods = |flag: &str| {
        format!(
            "selector: {{matchLabels: {{a: b}}}}, template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: x, image: none, args: [{flag}]}}]}}}}"
        )
    };
    let (replicas, sets) = (pods("--storage=embedded"), pods("--profile=observe"));
    format!(
        "
apiVersion: v1
kind: List
items:
- {{apiVersion: v1, kind: Service, metadata: {{name: {name}-api, labels: {{{operator}}}}}, spec: {{ports: [{{port: 443}}]}}}}
- {{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}-operator, labels: {{{operator}}}}}, spec: {{replicas: 2, {replicas}}}}}
- {{apiVersion: apps/v1, kind: DaemonSet, metadata: {{name: {name}-agent, labels: {{{agent}}}}}, spec: {{{sets}}}}}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn check_takes_an_installation_as_its_values_have_it() {
    let _installed = INSTALLED.lock().await;
    let test = TestNamespace::new("installed").await;
    test.apply(&observing("sn")).await.unwrap();
    let label = "pod-security.kubernetes.io/enforce=restricted";
    test.parts.kubectl(&["label", "namespace", &test.name, label]).await.unwrap();
    let status = |value: &str| format!("--patch={{\"status\": {value}}}");
    let patch = |value: String| {
        let test = &test;
        async move {
            let words = ["patch", "deployment", "sn-operator", "--subresource=status", "--type=merge"];
            test.kubectl(&[&words[..], &[value.as_str()]].concat()).await.unwrap();
        }
    };
    // Two replicas of before an upgrade are ready, and the new one is not.
    let replicas =
        "\"observedGeneration\": 1, \"replicas\": 3, \"readyReplicas\": 2, \"availableReplicas\": 2";
    patch(status(&format!("{{{replicas}, \"updatedReplicas\": 1}}"))).await;
    let check = || result(&run(&test, &["check", "-o", "json"]));
    let found = check();
    let line = |found: &Value, check: &str| of(found, check)[0].clone();
    assert_eq!(line(&found, "pod-security").0, "ok", "{found}");
    let (verdict, message) = line(&found, "apiservice");
    assert!(verdict == "ok" && message.contains("forwarded port"), "{found}");
    let (verdict, message) = line(&found, "operator");
    assert!(verdict == "warn" && message.contains("1 of 2 have the latest settings"), "{found}");
    assert!(of(&found, "rights").iter().any(|(_, message)| message.contains("forward a port")), "{found}");
    let stuck =
        "[{\"type\": \"Progressing\", \"status\": \"False\", \"reason\": \"ProgressDeadlineExceeded\"}]";
    patch(status(&format!("{{{replicas}, \"updatedReplicas\": 1, \"conditions\": {stuck}}}"))).await;
    assert_eq!(line(&check(), "operator").0, "fail");
    patch(status(
        "{\"observedGeneration\": 1, \"replicas\": 2, \"readyReplicas\": 2, \"availableReplicas\": 2, \"updatedReplicas\": 2, \"conditions\": []}",
    ))
    .await;
    assert_eq!(line(&check(), "operator").0, "ok");
    run(&test, &["get", "tasks"]).exited(1).has("its operator has no pod in namespace");

    two_installations(&test).await;
    test.kubectl(&["delete", "service", "sn-api"]).await.unwrap();
    test.close().await;
}

/// The one that serves the API group is checked, whatever its name, and the other is named.
async fn two_installations(first: &TestNamespace) {
    let second = TestNamespace::new("second").await;
    second.apply(&observing("zz")).await.unwrap();
    let service = format!(
        "{{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {{name: v1alpha1.ops.sentinelnode.dev}}, spec: \
         {{group: ops.sentinelnode.dev, version: v1alpha1, groupPriorityMinimum: 1, versionPriority: 1, \
         service: {{namespace: {}, name: zz-aggregated}}}}}}",
        second.name
    );
    second.apply(&service).await.unwrap();
    let found = result(&run(first, &["check", "-o", "json"]).exited(1));
    let (_, message) = of(&found, "installation")[0].clone();
    assert!(message.starts_with(&format!("{}/zz is checked", second.name)), "{message}");
    assert!(message.contains(&format!("{}/sn", first.name)), "{message}");
    let other = ["check", "--install-namespace", &first.name, "-o", "json"];
    let (verdict, message) = of(&result(&run(first, &other)), "apiservice")[0].clone();
    assert!(verdict == "warn" && message.contains(&second.name), "{message}");
    second.kubectl(&["delete", "apiservice", "v1alpha1.ops.sentinelnode.dev"]).await.unwrap();
    second.kubectl(&["delete", "service", "zz-api"]).await.unwrap();
    second.close().await;
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
