//! What the HTTP API may use of the rest of the operator. A handler that held a `Cluster` could write a status, which is
//! the controller's alone: it gets a `TaskStore`.

#![allow(clippy::unwrap_used, reason = "it is a test")]

use std::path::{Path, PathBuf};

/// Modules of the operator that `http` may use; a new one is a decision.
const MODULES: &[&str] = &[
    "audit",
    "clock",
    "cluster",
    "controller",
    "digest",
    "gateway",
    "health",
    "history",
    "http",
    "identity",
    "logs",
    "metrics",
    "records",
    "resource",
    "server",
];

/// What it may use of `cluster`: the seam for users, the changes that it can try, and its errors.
const OF_CLUSTER: &[&str] = &["Change", "ClusterError", "StoresByCaller", "TaskStore"];

/// Names of what only the controller may do, and of the drivers behind the seams.
const FORBIDDEN: &[&str] = &[
    "TaskKeeper",
    "dyn Cluster",
    "write_status",
    "set_finalizer",
    "kube::Client",
    "kube::Api",
    "mongodb",
    "redis",
    "rusqlite",
];

#[test]
fn http_reaches_tasks_by_the_task_store_only() {
    let files = sources();
    assert!(files.len() > 15, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let code: String =
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        for name in FORBIDDEN {
            assert!(!code.contains(name), "{} uses {name}", file.display());
        }
        for path in imports(&code) {
            let mut steps = path.split("::");
            let module = steps.next().unwrap();
            assert!(MODULES.contains(&module), "{} uses crate::{path}", file.display());
            let item = steps.next().unwrap_or_default();
            let is_allowed = match module {
                "cluster" => OF_CLUSTER.contains(&item),
                // The controller's inside is its own.
                "controller" => item.starts_with(char::is_uppercase),
                _ => true,
            };
            assert!(is_allowed, "{} uses crate::{path}", file.display());
        }
    }
}

/// What follows `crate::` in the code, with each name in braces as a path of its own.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + start.len()..];
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
        let path = rest[..end].trim_end_matches(':');
        match rest[end..].strip_prefix('{').and_then(|inner| inner.split('}').next()) {
            Some(names) => found.extend(names.split(',').map(|name| format!("{path}::{}", name.trim()))),
            None => found.push(path.to_owned()),
        }
    }
    found
}

#[test]
fn imports_are_found_in_every_form() {
    let code = "use crate::cluster::{ClusterError, TaskStore};\nlet x = crate::config::parse(1);\npub(crate) fn a() {}";
    assert_eq!(imports(code), ["cluster::ClusterError", "cluster::TaskStore", "config::parse"]);
}

fn sources() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}
