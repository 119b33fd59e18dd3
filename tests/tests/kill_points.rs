//! Every kill point between an intent and its action: the process that reaches it is killed, and nothing is lost or run
//! twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, PostParams};
use sentinel_node_agent::kill_point::{FOLDER, KillPoint as OnNode};
use sentinel_operator::kill_point::KillPoint as InOperator;
use sentinel_operator::resource::Task;
use sentinel_tests::chaos::check::executions;
use sentinel_tests::chaos::harness::System;
use sentinel_tests::chaos::load_generator::LoadGenerator;
use sentinel_tests::chaos::recording::{self, Recorded};
use sentinel_tests::chaos::rng::Rng;
use sentinel_tests::journal;
use sentinel_tests::programs::binary;
use sentinel_tests::wait::until;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);

/// Outcomes that are allowed when a process was killed there. None: as the command ended.
fn allowed(point: OnNode) -> &'static [&'static str] {
    match point {
        // It is unknown whether it was started.
        OnNode::SupervisorAnnounced => &["Lost"],
        // It was started, and may have died of its closed output before it was ended.
        OnNode::SupervisorSpawned => &["Lost", "Interrupted"],
        // Its exit code went with the supervisor.
        OnNode::SupervisorSawExit => &["Lost"],
        _ => &[],
    }
}

struct Points<'a> {
    system: &'a System,
    load: LoadGenerator,
}

impl Points<'_> {
    /// Runs one Task with the kill point armed. Returns the Execution and what its recorder wrote.
    async fn pass(&mut self, name: &str, armed: &Path) -> (Value, Recorded) {
        fs::create_dir_all(armed.parent().unwrap()).unwrap();
        fs::write(armed, "").unwrap();
        let task = name.to_lowercase();
        let node = &self.system.fleet.nodes[0].name;
        let spec = json!({
            "targets": {"nodeNames": [node]},
            "run": {"command": [binary("recorder"), self.system.recording(), "100"], "sandbox": "Privileged"},
        });
        self.load.submit(&task, spec).await.expect("the API server takes it");
        until(&format!("{name} was reached"), PATIENCE, || async {
            if armed.exists() { Err("not reached") } else { Ok(()) }
        })
        .await;
        let execution = until(&format!("the Task of {name} is over and archived"), PATIENCE, || async {
            let all = executions(&self.system.fleet).await?;
            let found = all.into_values().find(|found| found["task"] == task);
            let found = found.ok_or_else(|| "no execution".to_owned())?;
            let tasks = self.load.tasks().await;
            let mine = tasks.iter().find(|found| found.metadata.name.as_deref() == Some(&task)).unwrap();
            let status = mine.status.clone().unwrap_or_default();
            let archived = status.conditions.iter().any(|c| c.type_ == "Archived" && c.status == "True");
            let over = status.run.as_ref().is_some_and(|run| run.finished_at.is_some());
            let recorded = found["outcome"].is_string();
            if over && archived && recorded { Ok(found) } else { Err(format!("{found} {status:?}")) }
        })
        .await;
        let attempt = format!("{}/1", execution["id"].as_str().unwrap());
        let recorded = recording::read(&self.system.recording()).remove(&attempt).unwrap_or_default();
        until(&format!("the agent has forgotten the Task of {name}"), PATIENCE, || async {
            let left = journal::attempts(&self.system.fleet.nodes[0].state);
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
        (execution, recorded)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_points_lose_nothing_and_run_nothing_twice() {
    let system = System::start("points", 1).await;
    let namespace = &system.fleet.namespace;
    let nodes = system.fleet.nodes.iter().map(|node| node.name.clone()).collect();
    let load = LoadGenerator::new(
        namespace.client.clone(),
        &namespace.name,
        nodes,
        &system.recording(),
        100,
        Rng::new(1),
    );
    let mut points = Points { system: &system, load };
    let state: PathBuf = system.fleet.nodes[0].state.clone();
    let mut wrong = Vec::new();

    let in_operator =
        InOperator::OF_A_RUN.map(|point| (point.name(), system.directory.join(FOLDER), &[][..]));
    let on_node = OnNode::ALL.map(|point| (point.name(), state.join(FOLDER), allowed(point)));
    for (name, folder, allowed) in in_operator.into_iter().chain(on_node) {
        let (execution, recorded) = points.pass(&name, &folder.join(&name)).await;
        let outcome = execution["outcome"].as_str().unwrap_or_default();
        let known = execution["exitCode"] == json!(recorded.exits.first()) && recorded.exits.len() == 1;
        let right = if allowed.is_empty() { known } else { allowed.contains(&outcome) };
        println!("{name}: {outcome}, {} starts", recorded.starts.len());
        if !right || recorded.starts.len() > 1 {
            wrong.push(format!("{name}: {execution} and {recorded:?}"));
        }
    }
    let clean = wrong.is_empty();
    system.end(clean).await;
    assert!(clean, "{wrong:#?}");
}

/// A Task is deleted and made again, and the operator is killed in between: once before it releases the Task, once after
/// History has answered. The command has run once.
#[tokio::test(flavor = "multi_thread")]
async fn kill_points_of_a_recreation_run_nothing_twice() {
    let system = System::start("recreation", 1).await;
    let namespace = &system.fleet.namespace;
    let api: Api<Task> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let spec = json!({
        "targets": {"nodeNames": [system.fleet.nodes[0].name]},
        "run": {"command": [binary("recorder"), system.recording(), "100"], "sandbox": "Privileged"},
        "onRecreate": "OncePerSpec",
    });
    let task: Task = serde_json::from_value(json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": {"name": "once"}, "spec": spec,
    }))
    .unwrap();
    let arm = |point: InOperator| {
        let armed = system.directory.join(FOLDER).join(point.name());
        fs::create_dir_all(armed.parent().unwrap()).unwrap();
        fs::write(&armed, "").unwrap();
        armed
    };
    let until_reached = async |armed: PathBuf| {
        until(&format!("{} was reached", armed.display()), PATIENCE, || async {
            if armed.exists() { Err("not reached") } else { Ok(()) }
        })
        .await;
    };
    let until_over = async |reason: &str| {
        until(&format!("the Task is over with {reason}"), PATIENCE, || async {
            let task = api.get("once").await.map_err(|error| error.to_string())?;
            let conditions = task.status.map(|status| status.conditions).unwrap_or_default();
            let is_over =
                |c: &Condition| ["Complete", "Failed"].contains(&&*c.type_) && c.reason.contains(reason);
            if conditions.iter().any(is_over) { Ok(()) } else { Err(format!("{conditions:?}")) }
        })
        .await;
    };
    api.create(&PostParams::default(), &task).await.unwrap();
    until_over("").await;
    let [released, answered] = InOperator::OF_A_RECREATION;
    let armed = arm(released);
    api.delete("once", &DeleteParams::default()).await.unwrap();
    until_reached(armed).await;
    until("the Task is gone", PATIENCE, || async {
        match api.get_opt("once").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let armed = arm(answered);
    api.create(&PostParams::default(), &task).await.unwrap();
    until_reached(armed).await;
    until_over("AlreadyExecuted").await;
    let recorded = recording::read(&system.recording());
    let starts: usize = recorded.values().map(|attempt| attempt.starts.len()).sum();
    let clean = starts == 1;
    system.end(clean).await;
    assert!(clean, "{recorded:?}");
}

/// The operator is killed between the first `Start` and the finalizer, and the Task is deleted: it goes at once, and its
/// command is cancelled, archived and forgotten all the same. If History had not stored that the Run began, no part of the system
/// knows any more what the result is of, and it stays on its node.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_deleted_between_start_and_finalizer_leaves_no_command() {
    let system = System::start("unheld", 1).await;
    let namespace = &system.fleet.namespace;
    let api: Api<Task> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let task: Task = serde_json::from_value(json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": {"name": "unheld"}, "spec": {
            "targets": {"nodeNames": [system.fleet.nodes[0].name]}, "run": {"command": ["sleep", "3600"]},
        },
    }))
    .unwrap();
    let armed = system.directory.join(FOLDER).join(InOperator::StartHanded.name());
    fs::create_dir_all(armed.parent().unwrap()).unwrap();
    fs::write(&armed, "").unwrap();
    api.create(&PostParams::default(), &task).await.unwrap();
    until("the kill point was reached", PATIENCE, || async {
        if armed.exists() { Err("not reached") } else { Ok(()) }
    })
    .await;
    api.delete("unheld", &DeleteParams::default()).await.unwrap();
    until("the Task is gone", PATIENCE, || async {
        match api.get_opt("unheld").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let state = &system.fleet.nodes[0].state;
    until("its command has ended, and is forgotten if History has its Run", PATIENCE, || async {
        let left = journal::attempts(state);
        let has_ended = |name: &String| state.join("attempts").join(name).join("exit").exists();
        let runs = system.fleet.get("/api/v1/runs?task=unheld").await?;
        let is_known = runs["items"].as_array().is_some_and(|items| !items.is_empty());
        let is_settled = left.is_empty() || (left.iter().all(has_ended) && !is_known);
        if is_settled { Ok(()) } else { Err(format!("{left:?}, and {runs}")) }
    })
    .await;
    system.end(true).await;
}
