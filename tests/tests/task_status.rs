//! Every status that a real API server ever shows is true: kstatus's rules, `kubectl wait`, and the spec beside it in
//! the same object agree on each version of each Task.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

#[path = "../../core/tests/kstatus/mod.rs"]
mod kstatus;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use kstatus::{Kstatus, Shown};
use kube::api::{Api, WatchEvent, WatchParams};
use sentinel_operator::resource::Task;
use sentinel_tests::testbed::Testbed;
use sentinel_tests::wait::until;
use serde_json::Value;

/// Every version of every Task of the namespace, as the API server showed it.
#[derive(Clone, Default)]
struct Versions(Arc<Mutex<Vec<Value>>>);

impl Versions {
    async fn record(testbed: &Testbed) -> (Self, tokio::task::JoinHandle<()>) {
        let api: Api<Task> = Api::namespaced(testbed.namespace.client.clone(), &testbed.namespace.name);
        let version = api.list(&kube::api::ListParams::default()).await.unwrap();
        let version = version.metadata.resource_version.unwrap();
        let versions = Self::default();
        let sink = versions.clone();
        let recorder = tokio::spawn(async move {
            let parameters = WatchParams::default().timeout(290);
            let mut events = api.watch(&parameters, &version).await.unwrap().boxed();
            while let Some(event) = events.next().await {
                if let WatchEvent::Added(task) | WatchEvent::Modified(task) = event.unwrap() {
                    sink.0.lock().unwrap().push(serde_json::to_value(task).unwrap());
                }
            }
        });
        (versions, recorder)
    }

    fn of(&self, name: &str) -> Vec<Value> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|task| task["metadata"]["name"] == name).cloned().collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn shown(task: &Value) -> Shown<'_> {
    let conditions = task["status"]["conditions"].as_array().into_iter().flatten();
    Shown {
        conditions: conditions.map(|c| (text(&c["type"]), text(&c["status"]))).collect(),
        generation: task["metadata"]["generation"].as_i64().unwrap(),
        observed_generation: task["status"]["observedGeneration"].as_i64().unwrap_or(-1),
        deleting: task["metadata"]["deletionTimestamp"].is_string(),
    }
}

/// What is wrong with what the object claims. Its own spec determines how its Run must end: the command is `… exit N`.
fn lie(before: Option<&Value>, task: &Value) -> Option<String> {
    let shown = shown(task);
    let status = &task["status"];
    if shown.conditions.is_empty() {
        return (shown.kstatus() != Kstatus::InProgress).then(|| "no conditions, and not in progress".into());
    }
    let claim = match shown.claim() {
        Ok(claim) => claim,
        Err(wrong) => return Some(wrong),
    };
    let run = &status["run"];
    let counts = run["counts"].as_object().into_iter().flatten();
    let sum: i64 = counts.filter_map(|(_, count)| count.as_i64()).sum();
    if run.is_object() && Some(sum) != run["targetCount"].as_i64() {
        return Some(format!("the counts add up to {sum}"));
    }
    let success = claim?;
    if shown.generation == shown.observed_generation {
        let command = text(&task["spec"]["run"]["command"][2]);
        let wanted = command.ends_with("exit 0");
        if success != wanted || run["finishedAt"].is_null() {
            return Some(format!("claims {success} for {command:?}"));
        }
    }
    // The write of an annotation shows the status of before; a write of the status must know the annotation.
    let written = before.is_none_or(|before| before["status"] != *status);
    let asked = &task["metadata"]["annotations"]["sentinelnode.dev/rerun"];
    if written && *asked != status["handled"]["rerun"] {
        return Some(format!("claims {success} with the rerun {asked} not begun"));
    }
    None
}

fn yaml(name: &str, gate: &std::path::Path, code: u8) -> String {
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done; exit {code}", gate.display());
    format!(
        "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}}}\nspec:\n  targets: {{all: true}}\n  run: {{command: [sh, -c, {script:?}]}}\n"
    )
}

async fn phase(testbed: &Testbed, name: &str) -> String {
    let path = "jsonpath={.status.phase}";
    testbed.namespace.kubectl(&["get", "stask", name, "-o", path]).await.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_task_version_claims_end_of_unfinished_run() {
    let testbed = Testbed::new("truth").await;
    let _agent = testbed.agent("a", &[]).await;
    let gates = tempfile::tempdir().unwrap();
    let (versions, recorder) = Versions::record(&testbed).await;
    let kubectl = |arguments: Vec<String>| {
        let namespace = &testbed.namespace;
        async move { namespace.kubectl(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let strings = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();

    for (n, (first, second)) in [(0, 1), (1, 0)].into_iter().cycle().take(15).enumerate() {
        let name = format!("edited-{n}");
        let gate = gates.path().join(&name);
        testbed.namespace.apply(&yaml(&name, &gate, first)).await.unwrap();
        until("it runs", Duration::from_secs(30), || async {
            let phase = phase(&testbed, &name).await;
            if phase == "Running" { Ok(()) } else { Err(phase) }
        })
        .await;
        testbed.namespace.apply(&yaml(&name, &gate, second)).await.unwrap();
        std::fs::write(&gate, "").unwrap();
        let (end, other) = if second == 0 { ("Complete", "Failed") } else { ("Failed", "Complete") };
        let wait = |condition: &str, limit: &str| {
            kubectl(strings(&["wait", &format!("--for=condition={condition}"), limit, "stask", &name]))
        };
        // A wait for the other condition must never succeed; the one for the right condition must.
        let (right, wrong) = tokio::join!(wait(end, "--timeout=40s"), wait(other, "--timeout=3s"));
        right.unwrap_or_else(|printed| panic!("{name} did not become {end}: {printed}"));
        assert!(wrong.is_err(), "kubectl wait took {name} for {other}");
    }

    let name = "again";
    let gate = gates.path().join(name);
    std::fs::write(&gate, "").unwrap();
    testbed.namespace.apply(&yaml(name, &gate, 0)).await.unwrap();
    for n in 1..=5 {
        kubectl(strings(&["wait", "--for=condition=Complete", "--timeout=40s", "stask", name]))
            .await
            .unwrap();
        let token = format!("sentinelnode.dev/rerun=t{n}");
        kubectl(strings(&["annotate", "--overwrite", "stask", name, &token])).await.unwrap();
        let run = format!("--for=jsonpath={{.status.run.number}}={}", n + 1);
        kubectl(strings(&["wait", &run, "--timeout=40s", "stask", name])).await.unwrap();
    }
    kubectl(strings(&["wait", "--for=condition=Complete", "--timeout=40s", "stask", name])).await.unwrap();
    recorder.abort();

    let mut seen = 0;
    let names: Vec<String> = (0..15).map(|n| format!("edited-{n}")).chain([name.to_owned()]).collect();
    for name in names {
        let versions = versions.of(&name);
        let mut before = None;
        for version in &versions {
            if let Some(lie) = lie(before, version) {
                panic!("{name}: {lie}: {version}");
            }
            before = Some(version);
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} versions were seen");
    println!("{seen} versions of 16 Tasks, each true");
    testbed.close().await;
}
