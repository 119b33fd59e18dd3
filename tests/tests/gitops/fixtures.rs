//! The files in Argo CD's layout, which it could take as they are: its tests hold, and their data is what the operator writes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sentinel_tests::cluster::repository;
use sentinel_tests::gitops::{argocd_cm, argocd_folder, ask};
use serde_json::{Value, json};

use crate::kit::Cluster;
use crate::states::question;

/// With this variable set, the data is written anew from the cluster instead of compared with it.
const WRITE: &str = "SENTINEL_WRITE_TESTDATA";

fn file(state: &str) -> PathBuf {
    argocd_folder().join("testdata").join(format!("{state}.yaml"))
}

fn yaml(path: &std::path::Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the tools read of a Task, without what differs each time.
fn essence(task: &Value) -> Value {
    let conditions = task["status"]["conditions"].as_array().into_iter().flatten();
    // Whether History has all of it yet is a matter of moments.
    let conditions = conditions.filter(|condition| condition["type"] != "Archived");
    let conditions: Vec<_> = conditions.map(|c| json!([c["type"], c["status"], c["reason"]])).collect();
    let (metadata, status) = (&task["metadata"], &task["status"]);
    json!({
        "conditions": conditions,
        "phase": status["phase"],
        "generations": [metadata["generation"], status["observedGeneration"]],
        "deleting": metadata["deletionTimestamp"].is_string(),
        "requests": metadata["annotations"],
        "handled": status["handled"],
        "run": [status["run"]["number"], status["run"]["stopping"], status["run"]["finishedAt"].is_string()],
    })
}

/// The committed data is what the operator wrote just now.
pub fn compare(cluster: &Cluster, states: &BTreeMap<&'static str, Value>) {
    if std::env::var_os(WRITE).is_some() {
        for (state, task) in states {
            std::fs::write(file(state), serde_saphyr::to_string(&tidied(cluster, task)).unwrap()).unwrap();
        }
    }
    for (state, task) in states {
        let committed = yaml(&file(state));
        assert_eq!(
            essence(&committed),
            essence(task),
            "{state}: the operator writes something else now; if that is right, run this test with {WRITE}=1"
        );
    }
    let files = std::fs::read_dir(argocd_folder().join("testdata")).unwrap().count();
    assert_eq!(files, states.len(), "a file in testdata belongs to no state");
}

/// Without managed fields, long values, and names of this test's namespace and folder.
fn tidied(cluster: &Cluster, task: &Value) -> Value {
    let mut task = task.clone();
    task["metadata"].as_object_mut().unwrap().remove("managedFields");
    if let Some(command) = task["spec"]["run"]["command"].as_array_mut() {
        for argument in command {
            if argument.as_str().unwrap().len() > 1000 {
                *argument = json!("a very long argument");
            }
        }
    }
    let gates = cluster.gates().display().to_string();
    let text = task.to_string().replace(&gates, "/run/gates").replace(cluster.namespace(), "ops");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_tests_in_argo_cds_format_hold() {
    let folder = argocd_folder();
    let tests = yaml(&folder.join("health_test.yaml"));
    let tests = tests["tests"].as_array().unwrap();
    let task = |test: &Value| yaml(&folder.join(test["inputPath"].as_str().unwrap()));
    let inputs: Vec<Value> = tests.iter().map(|test| question(&task(test))).collect();
    for (test, answer) in tests.iter().zip(ask("health", &inputs).await) {
        assert_eq!(answer["argo"], test["healthStatus"], "{}", test["inputPath"]);
    }
    let files = std::fs::read_dir(folder.join("testdata")).unwrap().count();
    assert_eq!(tests.len(), files, "each state has one test");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_action_tests_in_argo_cds_format_hold() {
    let folder = argocd_folder().join("actions");
    let tests = yaml(&folder.join("action_test.yaml"));
    let ask_about = |test: &Value| {
        let task = yaml(&folder.join(test["inputPath"].as_str().unwrap()));
        json!({"object": task, "configMap": argocd_cm(), "action": test["action"].as_str().unwrap_or_default()})
    };
    let discoveries = tests["discoveryTests"].as_array().unwrap();
    let inputs: Vec<Value> = discoveries.iter().map(ask_about).collect();
    for (test, answer) in discoveries.iter().zip(ask("argo-action", &inputs).await) {
        assert_eq!(answer["offered"], test["result"], "{}", test["inputPath"]);
    }
    let actions = tests["actionTests"].as_array().unwrap();
    let inputs: Vec<Value> = actions.iter().map(ask_about).collect();
    for ((test, input), answer) in actions.iter().zip(&inputs).zip(ask("argo-action", &inputs).await) {
        let (before, after) = (&input["object"], &answer["object"]);
        let expected = yaml(&folder.join(test["expectedOutputPath"].as_str().unwrap()));
        assert_eq!(*after, expected, "{}", test["action"]);
        assert_ne!(before, after, "{} changes nothing", test["action"]);
    }
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.join("action.lua").exists() {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(actions.iter().any(|test| test["action"] == name), "{name} has no test");
        }
    }
}

#[test]
fn the_config_map_has_the_scripts() {
    let output =
        std::process::Command::new(repository().join("scripts/argocd-customizations")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let committed = std::fs::read_to_string(argocd_cm()).unwrap();
    assert_eq!(committed, String::from_utf8_lossy(&output.stdout), "run `just generate`");
}
