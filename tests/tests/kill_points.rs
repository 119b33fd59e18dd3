//! Every named place between an intent and its deed: whoever passes there is killed, and nothing is lost or run twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sentinel_node_agent::kill_point::{FOLDER, KillPoint as OnNode};
use sentinel_operator::kill_point::KillPoint as InOperator;
use sentinel_tests::chaos::book::{self, Testimony};
use sentinel_tests::chaos::check::executions;
use sentinel_tests::chaos::dice::Dice;
use sentinel_tests::chaos::harness::System;
use sentinel_tests::chaos::load::Load;
use sentinel_tests::programs::binary;
use sentinel_tests::wait::until;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);

/// How an Attempt may be told to have ended when somebody was killed there. None: as the command ended.
fn told(point: OnNode) -> &'static [&'static str] {
    match point {
        // Nobody can know whether it was started.
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
    load: Load,
}

impl Points<'_> {
    /// Runs one Task with the place armed. Gives the Execution and what its witness wrote down.
    async fn pass(&mut self, name: &str, armed: &Path) -> (Value, Testimony) {
        fs::create_dir_all(armed.parent().unwrap()).unwrap();
        fs::write(armed, "").unwrap();
        let task = name.to_lowercase();
        let node = &self.system.fleet.nodes[0].name;
        let spec = json!({
            "targets": {"nodeNames": [node]},
            "run": {"command": [binary("witness"), self.system.book(), "100"]},
        });
        self.load.submit(&task, spec).await.expect("the API server takes it");
        until(&format!("{name} was passed"), PATIENCE, || async {
            if armed.exists() { Err("nobody came by") } else { Ok(()) }
        })
        .await;
        let execution = until(&format!("the Task of {name} is over and archived"), PATIENCE, || async {
            let all = executions(&self.system.fleet).await?;
            let found = all.into_values().find(|found| found["task"] == task);
            let found = found.ok_or_else(|| "there is no execution".to_owned())?;
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
        let testimony = book::read(&self.system.book()).remove(&attempt).unwrap_or_default();
        until(&format!("the agent has forgotten the Task of {name}"), PATIENCE, || async {
            let left = fs::read_dir(self.system.fleet.nodes[0].state.join("attempts")).unwrap().count();
            if left == 0 { Ok(()) } else { Err(left) }
        })
        .await;
        (execution, testimony)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_at_a_named_place_loses_nothing_and_runs_nothing_twice() {
    let system = System::start("points", 1).await;
    let piece = &system.fleet.piece;
    let nodes = system.fleet.nodes.iter().map(|node| node.name.clone()).collect();
    let load = Load::new(piece.client.clone(), &piece.namespace, nodes, &system.book(), 100, Dice::new(1));
    let mut points = Points { system: &system, load };
    let state: PathBuf = system.fleet.nodes[0].state.clone();
    let mut wrong = Vec::new();

    let in_operator = InOperator::ALL.map(|point| (point.name(), system.directory.join(FOLDER), &[][..]));
    let on_node = OnNode::ALL.map(|point| (point.name(), state.join(FOLDER), told(point)));
    for (name, folder, told) in in_operator.into_iter().chain(on_node) {
        let (execution, testimony) = points.pass(&name, &folder.join(&name)).await;
        let outcome = execution["outcome"].as_str().unwrap_or_default();
        let known = execution["exitCode"] == json!(testimony.exits.first()) && testimony.exits.len() == 1;
        let right = if told.is_empty() { known } else { told.contains(&outcome) };
        println!("{name}: {outcome}, {} starts", testimony.starts.len());
        if !right || testimony.starts.len() > 1 {
            wrong.push(format!("{name}: {execution} and {testimony:?}"));
        }
    }
    let clean = wrong.is_empty();
    system.end(clean).await;
    assert!(clean, "{wrong:#?}");
}
