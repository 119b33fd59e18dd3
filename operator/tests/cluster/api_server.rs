//! Our definitions on a real API server: what it accepts, and the operator's adapter over it, at 10,000 Nodes too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use kube::runtime::watcher::Event;
use sentinel_operator::cluster::{Cluster, NodeCache, TaskKeeper, TaskStore};
use sentinel_operator::resource::status::{RunStatus, TaskStatus};
use sentinel_operator::resource::{Task, manifest};
use sentinel_protocol::ids::{NodeName, RunNumber, TaskRef};

use crate::bad_tasks;
use crate::kit::Piece;

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(files.len() >= 8);
    files
}

/// The same object must come out of a file in dev mode as out of an API server.
#[tokio::test]
async fn every_example_is_the_same_task_as_in_dev_mode() {
    let Some(piece) = Piece::new("examples").await else { return };
    for file in examples() {
        let text = std::fs::read_to_string(&file).unwrap();
        piece.apply(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for task in manifest::read(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())) {
            let name = task.metadata.name.clone().unwrap();
            let there =
                piece.cluster.get(TaskRef::new(piece.namespace.clone(), name).unwrap()).await.unwrap();
            assert_eq!(there.unwrap().spec, task.spec, "{}", file.display());
        }
    }
    piece.close().await;
}

#[test]
fn every_example_names_the_end_it_reaches() {
    for file in examples() {
        let text = std::fs::read_to_string(&file).unwrap();
        let tasks = manifest::read(&text).unwrap();
        let ends: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# Ends: ")).collect();
        assert_eq!(ends.len(), tasks.len(), "{}: one `# Ends:` line for each Task", file.display());
        for end in ends {
            let known = [
                "Complete",
                "Suspended",
                "Failed NodesFailed",
                "Failed NodesUnreachable",
                "Failed NoMatchingNodes",
            ];
            assert!(known.contains(&end), "{}: {end}", file.display());
        }
    }
}

/// The documentation of a field. An API server publishes it some seconds after it has the definition.
async fn explain(piece: &Piece, field: &str) -> String {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        match piece.kubectl(&["explain", field]) {
            Ok(text) => return text,
            Err(error) if Instant::now() >= deadline => panic!("{field}: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(250)).await,
        }
    }
}

#[tokio::test]
async fn kubectl_explains_every_field_and_shows_the_columns() {
    let Some(piece) = Piece::new("explain").await else { return };
    for (field, part) in [
        ("stask.spec", "a new Run"),
        ("stask.spec.run.command", "without a shell"),
        ("stask.spec.rollout.maxConcurrent", "25%"),
        ("stask.status.run.progress", "37/50"),
        ("targetslices.spec.nodes", "Names of nodes"),
    ] {
        let text = explain(&piece, field).await;
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(part), "{field}: {text}");
    }
    let all = piece.kubectl(&["explain", "stask.spec", "--recursive"]).unwrap();
    for field in
        ["nodeSelector", "matchExpressions", "successExitCodes", "maxBlock", "unreachable", "rerunToken"]
    {
        assert!(all.contains(field), "{field}: {all}");
    }
    piece.apply(&bad_tasks::manifest("t", "{targets: {all: true}, run: {command: [df, -h]}}")).unwrap();
    let table = piece.kubectl(&["get", "stask"]).unwrap();
    assert!(
        table.starts_with("NAME   PHASE   NODES   OK    FAILED   UNREACHABLE   RUNNING   WAITING   AGE"),
        "{table}"
    );
    let wide = piece.kubectl(&["get", "sentinel", "-o", "wide"]).unwrap();
    for column in ["UNREACHABLE", "REASON", "COMMAND", "PROGRESS", "RUN", "STARTED", "[\"df\",\"-h\"]"] {
        assert!(wide.contains(column), "{column}: {wide}");
    }
    piece.close().await;
}

#[tokio::test]
async fn a_task_can_be_selected_by_its_phase() {
    let Some(piece) = Piece::new("phase").await else { return };
    for (name, phase) in [("a", "Failed"), ("b", "Succeeded")] {
        piece.apply(&bad_tasks::manifest(name, "{targets: {all: true}, run: {command: [x]}}")).unwrap();
        let there = piece.cluster.get(TaskRef::new(piece.namespace.clone(), name).unwrap()).await;
        let status =
            TaskStatus { phase: Some(phase.into()), observed_generation: 1, ..TaskStatus::default() };
        piece.cluster.write_status(&there.unwrap().unwrap(), status).await.unwrap();
    }
    let failed =
        piece.kubectl(&["get", "stask", "--field-selector", "status.phase=Failed", "-o", "name"]).unwrap();
    assert_eq!(failed.trim(), "task.sentinelnode.dev/a");
    piece.close().await;
}

#[tokio::test]
async fn a_target_slice_cannot_be_changed() {
    let Some(piece) = Piece::new("slice").await else { return };
    let slice = "apiVersion: sentinelnode.dev/v1alpha1\nkind: TargetSlice\nmetadata: {name: s}\nspec: {run: 1, index: 0, nodes: [a]}\n";
    piece.apply(slice).unwrap();
    let refused = piece.apply(&slice.replace("[a]", "[b]")).unwrap_err();
    assert!(refused.contains("spec of a TargetSlice cannot be changed"), "{refused}");
    piece.close().await;
}

#[tokio::test]
async fn the_largest_status_is_accepted() {
    let Some(piece) = Piece::new("large").await else { return };
    piece.apply(&bad_tasks::manifest("t", "{targets: {all: true}, run: {command: [x]}}")).unwrap();
    let name = TaskRef::new(piece.namespace.clone(), "t").unwrap();
    let task = piece.cluster.get(name).await.unwrap().unwrap();
    let long = "n".repeat(63) + "." + &"m".repeat(63) + "." + &"o".repeat(63) + "." + &"p".repeat(57);
    let nodes = (0..100)
        .map(|n| sentinel_operator::resource::status::NodeStatus {
            node: format!("{n:03}.{long}"),
            state: "StartFailed".into(),
            message: "x".repeat(1024),
            ..Default::default()
        })
        .collect();
    let run = RunStatus {
        number: 7,
        target_count: 100,
        targets: (0..100).map(|n| format!("{n:03}.{long}")).collect(),
        ..RunStatus::default()
    };
    let status = TaskStatus { nodes, run: Some(run), ..TaskStatus::default() };
    let written = piece.cluster.write_status(&task, status).await.unwrap();
    let bytes = serde_json::to_vec(&written).unwrap().len();
    assert!(bytes < 256 << 10, "{bytes} bytes");
    piece.close().await;
}

#[tokio::test]
async fn ten_thousand_targets_fit_into_a_small_task() {
    let Some(piece) = Piece::new("many").await else { return };
    let names: Vec<String> = (0..10_000).map(|n| format!("n{n:05}.{}", piece.namespace)).collect();
    piece.nodes(&names).await;
    let (cache, mut writer) = NodeCache::new();
    let mut stream = piece.cluster.watch_nodes();
    let began = Instant::now();
    loop {
        let event = tokio::time::timeout(Duration::from_mins(1), stream.next()).await.unwrap().unwrap();
        let done = matches!(event, Event::InitDone);
        if writer.apply(event) && done {
            break;
        }
    }
    eprintln!("10,000 Nodes listed in {:?}", began.elapsed());
    let ours = |facts: &BTreeMap<String, String>| facts.get("sentinel-test") == Some(&piece.namespace);
    let nodes = cache.nodes();
    let targets: Vec<NodeName> =
        nodes.iter().filter(|(_, facts)| ours(&facts.labels)).map(|(name, _)| name.clone()).collect();
    assert_eq!(targets.len(), 10_000);
    piece.apply(&bad_tasks::manifest("t", "{targets: {all: true}, run: {command: [x]}}")).unwrap();
    let name = TaskRef::new(piece.namespace.clone(), "t").unwrap();
    let task = piece.cluster.get(name.clone()).await.unwrap().unwrap();
    let began = Instant::now();
    let frozen = piece.cluster.persist_targets(&task, RunNumber(1), &targets).await.unwrap();
    eprintln!("10,000 targets frozen in {:?}", began.elapsed());
    assert_eq!((frozen.slices, frozen.targets.len()), (1, 0));
    let run = RunStatus {
        number: 1,
        target_count: 10_000,
        target_slices: i64::from(frozen.slices),
        targets_digest: frozen.digest,
        ..RunStatus::default()
    };
    let status = TaskStatus { run: Some(run), ..TaskStatus::default() };
    let written = piece.cluster.write_status(&task, status).await.unwrap();
    assert!(serde_json::to_vec(&written).unwrap().len() < 256 << 10);
    assert_eq!(piece.cluster.load_targets(&written).await.unwrap(), targets);
    owned_by(&piece, &written).await;
    piece.close().await;
}

/// The slices are garbage collected with their owner, the Task.
async fn owned_by(piece: &Piece, task: &Task) {
    let api: kube::Api<sentinel_operator::resource::TargetSlice> =
        kube::Api::namespaced(piece.client.clone(), &piece.namespace);
    let slices = api.list(&kube::api::ListParams::default()).await.unwrap().items;
    assert_eq!(slices.len(), 1);
    for slice in slices {
        let owner = &slice.metadata.owner_references.unwrap()[0];
        assert_eq!(Some(&owner.uid), task.metadata.uid.as_ref());
    }
}
