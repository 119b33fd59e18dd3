//! The operator's own binary: what it says to a wrong configuration, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::Write as _;
use std::process::{Command, Output};

fn operator(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_operator"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SENTINEL_") {
            command.env_remove(name);
        }
    }
    command.env("KUBECONFIG", "/no/such/kubeconfig").env("HOME", "/no/such/home");
    command.env_remove("KUBERNETES_SERVICE_HOST").args(arguments).output().unwrap()
}

#[track_caller]
fn refused(arguments: &[&str], words: &[&str]) {
    let output = operator(arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{arguments:?}: {word:?} is not in {text}");
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn a_wrong_configuration_ends_it_with_code_2_and_the_flag_in_question() {
    refused(&[], &["--mongodb-url-file is missing"]);
    refused(&["--storage", "paper"], &["embedded", "mongodb"]);
    refused(&["--storage", "embedded"], &["--data-dir is missing"]);
    refused(&["--drain", "5"], &["--drain", "\"5\" is not a span of time", "90s"]);
    refused(&["--agent-service-account", "x"], &["expected NAMESPACE/NAME"]);
    refused(
        &["--api-listen", "0.0.0.0:80", "--storage", "embedded", "--data-dir", "/x"],
        &["not a loopback address"],
    );
    refused(&["--gateway-tls-cert-file", "/x"], &["--gateway-tls-key-file"]);
    refused(&["--frobnicate"], &["--frobnicate"]);
    let url = file("http://mongo:secret@db/");
    let url = url.path().to_str().unwrap();
    refused(&["--mongodb-url-file", url], &["does not hold a mongodb://", "its scheme is http://"]);
    refused(
        &["--redis-url-file", url, "--storage", "embedded", "--data-dir", "/x"],
        &["does not hold a redis://"],
    );
    let output = operator(&["--mongodb-url-file", url]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("secret"));
}

#[test]
fn without_a_cluster_it_says_how_to_name_one() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    refused(
        &["--storage", "embedded", "--data-dir", data],
        &["failed to find a Kubernetes cluster", "--kubeconfig"],
    );
    refused(
        &["--storage", "embedded", "--data-dir", data, "--kubeconfig", "/no/such/file"],
        &["/no/such/file"],
    );
}

#[test]
fn help_has_examples_and_the_document_can_be_printed() {
    let help = operator(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout);
    assert!(help.status.success() && text.contains("Examples:") && text.contains("Exit codes:"), "{text}");
    let document = operator(&["openapi"]);
    let value: serde_json::Value = serde_json::from_slice(&document.stdout).unwrap();
    assert_eq!(value["openapi"], "3.1.0");
}
