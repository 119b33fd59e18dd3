//! What a real API server refuses when a Task is applied, beside what dev mode refuses: the same, but for a list.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use sentinel_operator::resource::{crd, schema};
use serde_json::{Value, json};

use crate::bad_tasks::{self, AtApply};
use crate::battery;
use crate::kit::Piece;

/// A dry-run creation of this Task; the API server's message when it refuses.
async fn offered(client: &kube::Client, namespace: &str, task: &Value) -> Result<(), String> {
    let path = format!(
        "/apis/sentinelnode.dev/v1alpha1/namespaces/{namespace}/tasks?dryRun=All&fieldValidation=Strict"
    );
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(task.to_string().into_bytes())
        .unwrap();
    match client.request::<Value>(request).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => Err(status.message.clone()),
        Err(error) => panic!("{error}: {}", battery::short(task)),
    }
}

fn value(bad: &bad_tasks::Bad) -> Value {
    serde_saphyr::from_str(&bad_tasks::manifest(bad.name, &bad.spec)).unwrap()
}

#[tokio::test]
async fn an_api_server_refuses_every_describable_bad_task() {
    let Some(piece) = Piece::new("bad").await else { return };
    let mut wrong = Vec::new();
    for bad in bad_tasks::all() {
        match (offered(&piece.client, &piece.namespace, &value(&bad)).await, bad.at_apply) {
            (Ok(()), AtApply::Taken { .. }) => {}
            (Ok(()), AtApply::Refused(_)) => wrong.push(format!("{}: accepted", bad.name)),
            (Err(message), AtApply::Taken { because }) => {
                let message: String = message.chars().take(600).collect();
                wrong.push(format!("{}: refused although {because}: {message}", bad.name));
            }
            (Err(message), AtApply::Refused(theirs)) if !message.contains(theirs) => {
                let message: String = message.chars().take(600).collect();
                wrong.push(format!("{}: {message}\n    wanted: {theirs}", bad.name));
            }
            (Err(message), AtApply::Refused(_)) => {
                // The only pattern of the definition, for a byte that is not written by accident.
                let pattern = message.contains("should match '") && bad.name != "nul-in-command";
                if pattern || message.contains("rule evaluation error") || message.contains("no such key") {
                    wrong.push(format!("{}: not for people: {message}", bad.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    piece.close().await;
}

/// A rule that no bad Task breaks may be one that can never be broken.
#[tokio::test]
async fn every_message_of_the_definition_is_returned_once() {
    let Some(piece) = Piece::new("sentences").await else { return };
    let mut unseen = sentences();
    for bad in bad_tasks::all() {
        if let Err(message) = offered(&piece.client, &piece.namespace, &value(&bad)).await {
            unseen.retain(|sentence| !message.contains(sentence.as_str()));
        }
    }
    assert!(unseen.is_empty(), "no bad Task has the answer: {unseen:#?}");
    piece.close().await;
}

fn sentences() -> BTreeSet<String> {
    fn walk(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                for rule in
                    object.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten()
                {
                    found.insert(rule["message"].as_str().expect("a sentence").to_owned());
                }
                object.values().for_each(|value| walk(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| walk(value, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    walk(&serde_json::to_value(crd::task_crd().unwrap()).unwrap(), &mut found);
    assert!(found.len() > 30, "{}", found.len());
    found
}

/// All that dev mode accepts, and every sixth of the others, to spare the API server.
#[tokio::test]
async fn dev_mode_and_an_api_server_refuse_the_same() {
    let Some(piece) = Piece::new("same").await else { return };
    let judged = battery::all().into_iter().enumerate().filter_map(|(index, odd)| {
        let ours = schema::admit(odd.task.clone()).map(|_| ());
        (ours.is_ok() || index % 6 == 0).then_some((odd, ours))
    });
    let judged: Vec<_> = judged.collect();
    let (client, namespace) = (&piece.client, &piece.namespace);
    let answers = futures_util::stream::iter(judged).map(|(odd, ours)| async move {
        let theirs = offered(client, namespace, &odd.task).await;
        (odd.what, ours, theirs)
    });
    let answers: Vec<_> = answers.buffer_unordered(8).collect().await;
    let count = answers.len();
    let taken = answers.iter().filter(|(_, _, theirs)| theirs.is_ok()).count();
    assert!(taken > 1000 && taken < count - 1000, "{taken} of {count}");
    let mut wrong = Vec::new();
    for (what, ours, theirs) in answers {
        match (ours, theirs) {
            (Ok(()), Err(theirs)) => wrong.push(format!("{what}: only the API server: {theirs}")),
            // The bytes of a command, which the API server cannot count.
            (Err(ours), Ok(())) if ours[0].allowed.contains("put more into spec.run.script") => {}
            (Err(ours), Ok(())) => wrong.push(format!("{what}: only dev mode: {}", ours[0])),
            _ => {}
        }
    }
    wrong.sort();
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    piece.close().await;
}

#[tokio::test]
async fn both_refuse_the_same_labels_and_annotations() {
    let Some(piece) = Piece::new("labels").await else { return };
    let keys = ["a", "", "a b", "a/b", "a/b/c", "A/b", "example.com/a", "Example.com/a", "-a", "a-", "é"];
    let long = "x".repeat(64);
    let values = ["", "a", "a b", "-a", "é", "a.b", long.as_str()];
    let mut wrong = Vec::new();
    for field in ["labels", "annotations"] {
        for (key, value) in keys.iter().map(|key| (*key, "a")).chain(values.iter().map(|value| ("a", *value)))
        {
            let task = json!({"apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task",
                "metadata": {"name": "t", field: BTreeMap::from([(key, value)])},
                "spec": {"targets": {"all": true}, "run": {"command": ["true"]}}});
            let theirs = offered(&piece.client, &piece.namespace, &task).await;
            let ours = schema::admit(task).map(|_| ());
            if ours.is_ok() != theirs.is_ok() {
                wrong.push(format!("{field} {key:?}={value:?}: ours {ours:?}, theirs {theirs:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    piece.close().await;
}

/// The definition of Tasks under names of this test's own, so that it can be changed while others use theirs.
fn definition(group: &str) -> Value {
    let mut definition = serde_json::to_value(crd::task_crd().unwrap()).unwrap();
    definition["metadata"]["name"] = json!(format!("oldtasks.{group}"));
    definition["spec"]["group"] = json!(group);
    definition["spec"]["names"] = json!({"kind": "OldTask", "plural": "oldtasks", "singular": "oldtask"});
    definition
}

/// The same without any rule that came with a later version of the definition.
fn lax(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for rule in ["x-kubernetes-validations", "pattern", "maxLength", "maximum", "minimum"] {
                object.remove(rule);
            }
            object.values_mut().for_each(lax);
        }
        Value::Array(items) => items.iter_mut().for_each(lax),
        _ => {}
    }
}

async fn define(client: &kube::Client, definition: &Value) {
    let name = definition["metadata"]["name"].as_str().unwrap();
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let params = PatchParams::apply("sentinel-tests").force();
    api.patch(name, &params, &Patch::Apply(definition)).await.unwrap();
    let established = kube::runtime::conditions::is_crd_established();
    let waited = kube::runtime::wait::await_condition(api, name, established);
    tokio::time::timeout(std::time::Duration::from_secs(20), waited).await.unwrap().unwrap();
}

/// Waits until the API server uses the definition: it refuses what only that one refuses.
async fn refused_at_last(piece: &Piece, yaml: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while piece.create_nothing(yaml).is_ok() {
        assert!(std::time::Instant::now() < deadline, "the new definition is not in force");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_task_older_than_a_rule_stays_editable() {
    let Some(piece) = Piece::new("ratchet").await else { return };
    let group = format!("{}.example", piece.namespace);
    let mut before = definition(&group);
    lax(&mut before["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]);
    define(&piece.client, &before).await;
    let task = |name: &str, user: &str, suspend: bool| {
        format!(
            "apiVersion: {group}/v1alpha1\nkind: OldTask\nmetadata: {{name: {name}}}\nspec: {{targets: {{all: true}}, suspend: {suspend}, \
             run: {{command: [x], user: \"{user}\"}}}}\n"
        )
    };
    piece.apply(&task("old", "no body", false)).unwrap();
    define(&piece.client, &definition(&group)).await;
    refused_at_last(&piece, &task("new", "no body", false)).await;
    piece.apply(&task("old", "no body", true)).unwrap();
    let refused = piece.apply(&task("old", "some body", true)).unwrap_err();
    assert!(refused.contains("spec.run.user must be a name"), "{refused}");
    piece.apply(&task("old", "nobody", false)).unwrap();
    let name = format!("oldtasks.{group}");
    Api::<CustomResourceDefinition>::all(piece.client.clone())
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    piece.close().await;
}
