//! The operator binary: errors of a wrong configuration, and signals.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

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
fn refused(arguments: &[&str], parts: &[&str]) {
    let output = operator(arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    for part in parts {
        assert!(text.contains(part), "{arguments:?}: {part:?} is not in {text}");
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn a_wrong_configuration_exits_with_2_and_names_the_flag() {
    refused(&[], &["--mongodb-url-file is missing"]);
    refused(&["--storage", "paper"], &["embedded", "mongodb"]);
    refused(&["--storage", "embedded"], &["--data-dir is missing"]);
    refused(&["--base-path", "/api"], &["--base-path", "its first segment is a path of the operator itself"]);
    refused(&["--drain", "5"], &["--drain", "\"5\" is not a duration", "90s"]);
    refused(&["--agent-service-account", "x"], &["expected NAMESPACE/NAME"]);
    refused(
        &["--api-listen", "0.0.0.0:80", "--storage", "embedded", "--data-dir", "/x"],
        &["not a loopback address"],
    );
    refused(&["--tls-cert-file", "/x"], &["--tls-key-file"]);
    refused(&["--tls-ca-config-map", "ca"], &["--tls-ca-file"]);
    refused(&["--tls-ca-file", "/x", "--tls-ca-config-map", "ca"], &["--tls-cert-file"]);
    let proxy = ["--trusted-proxy-ca-file", "/x", "--trusted-proxy-names", "p"];
    refused(&proxy, &["--trusted-proxy-ca-file needs it", "--api-auth kubernetes"]);
    // Without a certificate of its own the operator sees none of the proxy.
    let for_people = [&proxy[..], &["--api-auth", "kubernetes", "--storage", "embedded", "--data-dir", "/x"]];
    refused(&for_people.concat(), &["--tls-secret or --tls-cert-file is missing"]);
    refused(&["--redis-tls-cert-file", "/x"], &["--redis-url-file", "--redis-tls-key-file"]);
    refused(&["--mongodb-tls-ca-file", "/x"], &["--mongodb-url-file"]);
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
fn without_a_cluster_it_names_the_flag_for_one() {
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
fn the_data_directory_is_private_to_its_user() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    // It exits without a cluster, after creating the directory.
    refused(&["--storage", "embedded", "--data-dir", data.to_str().unwrap()], &["Kubernetes cluster"]);
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn clients_of_the_api_server_are_made_in_one_place() {
    // That one sets User-Agent, and does not retry beneath the retries of its callers.
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    let mut made = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                made.extend(text.matches("ClientBuilder::try_from(").map(|_| path.clone()));
                for other in ["Client::try_from(", "Client::try_default("] {
                    assert!(!text.contains(other), "{other} in {}", path.display());
                }
            }
        }
    }
    assert!(matches!(made.as_slice(), [one] if one.ends_with("cluster/client.rs")), "{made:?}");
}

#[test]
fn help_has_examples_and_openapi_is_printed() {
    let help = operator(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout);
    assert!(help.status.success() && text.contains("Examples:") && text.contains("Exit codes:"), "{text}");
    let document = operator(&["openapi"]);
    let value: serde_json::Value = serde_json::from_slice(&document.stdout).unwrap();
    assert_eq!(value["openapi"], "3.1.0");
}

#[test]
fn under_nohup_sighup_stays_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = file(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n\
         clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}]\nusers: [{name: u, user: {}}]\n",
    );
    let any = "127.0.0.1:0";
    let mut command = Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_operator")).args(["--storage", "embedded", "--data-dir"]);
    command.arg(directory.path()).arg("--kubeconfig").arg(kubeconfig.path());
    command.args(["--gateway-listen", any, "--api-listen", any, "--metrics-listen", any]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let path = format!("/proc/{}/status", child.id());
    let has = |status: &str, mask: &str, signal: u32| {
        let line = status.lines().find_map(|line| line.strip_prefix(mask));
        line.is_some_and(|line| u64::from_str_radix(line.trim(), 16).unwrap() >> (signal - 1) & 1 == 1)
    };
    let deadline = Instant::now() + Duration::from_mins(1);
    // SIGQUIT is the last handler that it installs.
    let status = loop {
        let status = std::fs::read_to_string(&path).unwrap();
        let is_over = child.try_wait().unwrap().is_some() || Instant::now() > deadline;
        if is_over || has(&status, "SigCgt:", 3) {
            break status;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(has(&status, "SigCgt:", 15), "handlers were not installed: {log}");
    assert!(has(&status, "SigIgn:", 1) && !has(&status, "SigCgt:", 1), "{status}");
}
