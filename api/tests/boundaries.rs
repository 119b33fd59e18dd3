//! What a client of the API links: no database driver, no Kubernetes client, no server.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test, which asks cargo")]

use std::process::Command;

/// Crates that a client must not link, by name or by prefix.
const FORBIDDEN: [&str; 9] = [
    "kube",
    "k8s-openapi",
    "mongodb",
    "bson",
    "redis",
    "rusqlite",
    "warp",
    "sentinel-operator",
    "tungstenite",
];

#[test]
fn client_links_no_driver_and_no_server() {
    let tree = linked("sentinel-api", &["--features", "client"]);
    assert!(tree.lines().any(|line| line.starts_with("hyper ")), "the feature `client` is not on: {tree}");
    assert_eq!(found(&tree, &FORBIDDEN), Vec::<&str>::new());
}

/// Dev mode is the operator with embedded stores. The first build that people make has nothing that it does not use.
#[test]
fn command_line_links_no_database_driver() {
    let tree = linked("sentinel", &[]);
    assert!(tree.lines().any(|line| line.starts_with("sentinel-operator ")), "{tree}");
    let unused = ["mongodb", "bson", "redis", "hickory", "opentelemetry", "prost", "webpki-roots"];
    assert_eq!(found(&tree, &unused), Vec::<&str>::new());
    let operator = linked("sentinel-operator", &[]);
    assert!(!found(&operator, &["mongodb"]).is_empty(), "the operator has no driver: {operator}");
}

fn found<'a>(tree: &'a str, names: &[&str]) -> Vec<&'a str> {
    tree.lines().filter(|line| names.iter().any(|name| line.starts_with(name))).collect()
}

/// What a package links when it is built alone, a line for each crate.
fn linked(package: &str, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--package", package])
        .args(arguments)
        .args(["--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
