//! The command line with `--server https://…`: a real operator behind TLS, below a path, as an ingress has it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, DeleteParams, PostParams};
use sentinel_tests::certificates::Ca;
use sentinel_tests::command_lines::Ran;
use sentinel_tests::ports::free_port;
use sentinel_tests::programs::{Program, binary};
use sentinel_tests::testbed::{Options, Testbed};
use sentinel_tests::wait::until;

const PATIENCE: Duration = Duration::from_secs(40);

/// Below which the operator has its API.
const PATH: &str = "/ops/sentinel";

/// An operator with TLS, an agent, and the token of an administrator.
struct Piece {
    testbed: Testbed,
    ca: Ca,
    url: String,
    token: PathBuf,
    _agent: Program,
    files: tempfile::TempDir,
}

impl Piece {
    async fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let ca = Ca::new(files.path(), "ca");
        // With a proxy that has a certificate, the API has TLS on loopback too.
        let flags = [
            "--api-auth=kubernetes".to_owned(),
            format!("--base-path={PATH}"),
            format!("--trusted-proxy-ca-file={}", ca.certificate.display()),
            "--trusted-proxy-names=none".to_owned(),
        ];
        let tls = Some(ca.issue(files.path(), "operator", "localhost"));
        let testbed =
            Testbed::with("https", Options { tls, flags: flags.to_vec(), ..Options::default() }).await;
        testbed.add_node("n1", &[]).await;
        let gateway = format!("wss://localhost:{}", testbed.gateway_port());
        let agent = testbed.start_agent_at("n1", &gateway, Some(&ca.certificate));
        let port = testbed.api.rsplit(':').next().unwrap();
        let url = format!("https://localhost:{port}{PATH}");
        let token = files.path().join("token");
        let piece = Self { testbed, ca, url, token, _agent: agent, files };
        piece.administrator().await;
        piece
    }

    /// Writes the token of an account with all rights.
    async fn administrator(&self) {
        let namespace = &self.testbed.namespace;
        namespace.kubectl(&["create", "serviceaccount", "admin"]).await.unwrap();
        let rbac = "rbac.authorization.k8s.io";
        let binding: ClusterRoleBinding = serde_json::from_value(serde_json::json!({
            "metadata": {"name": namespace.name},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "admin", "namespace": namespace.name}],
        }))
        .unwrap();
        Api::all(namespace.client.clone()).create(&PostParams::default(), &binding).await.unwrap();
        let token = namespace.kubectl(&["create", "token", "admin"]).await.unwrap();
        std::fs::write(&self.token, token).unwrap();
    }

    /// The program, without any of its settings.
    fn program(&self) -> Command {
        let mut command = Command::new(binary("sentinel"));
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SENTINEL_"))
        {
            command.env_remove(name);
        }
        for name in ["SSL_CERT_FILE", "SSL_CERT_DIR", "KUBECONFIG", "DISPLAY", "WAYLAND_DISPLAY"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).current_dir(self.files.path());
        command
    }

    /// The program with address and token.
    fn sentinel(&self) -> Command {
        self.at(&self.url)
    }

    /// The same with another address.
    fn at(&self, url: &str) -> Command {
        let mut command = self.program();
        command.args(["--server", url, "-n", &self.testbed.namespace.name, "--token-file"]);
        command.arg(&self.token);
        command
    }

    fn trusting(&self) -> Command {
        let mut command = self.sentinel();
        command.arg("--certificate-authority").arg(&self.ca.certificate);
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&self.trusting().args(arguments).output().unwrap())
    }

    async fn close(self) {
        let bindings: Api<ClusterRoleBinding> = Api::all(self.testbed.namespace.client.clone());
        bindings.delete(&self.testbed.namespace.name, &DeleteParams::default()).await.unwrap();
        self.testbed.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_works_over_tls() {
    let piece = Piece::new().await;
    until("the agent is connected", PATIENCE, || async {
        let nodes = piece.run(&["nodes"]);
        if nodes.out.contains("Ready") || nodes.out.contains("n1.") { Ok(()) } else { Err(nodes) }
    })
    .await;
    let node = piece.testbed.namespace.node_name("n1");
    let ran = piece.run(&["run", "--node", &node, "--name", "hello", "--", "echo", "over tls"]);
    ran.exited(0).has("over tls");
    piece.run(&["get", "tasks"]).exited(0).has("hello");
    piece.run(&["get", "task", "hello"]).exited(0).has("hello");
    piece.run(&["logs", "hello"]).exited(0).has("over tls");
    piece.run(&["logs", "-f", "hello"]).exited(0).has("over tls");
    piece.run(&["rerun", "hello"]).exited(0);
    piece.run(&["wait", "hello", "--timeout", "30s"]).exited(0);
    piece.run(&["check"]).exited(0).has(&format!("the operator answers at {}", piece.url));
    let report = piece.files.path().join("report.tar.gz");
    piece.run(&["report", "-f", report.to_str().unwrap()]).exited(0);
    assert!(std::fs::metadata(&report).unwrap().len() > 500);
    follows(&piece, &node);
    page(&piece).await;
    trust(&piece);
    piece.close().await;
}

/// Output arrives while the command runs, and the command it suggests has the flags that this server needs.
fn follows(piece: &Piece, node: &str) {
    let script = "echo first; while [ ! -e \"$0\" ]; do sleep 0.1; done; echo last";
    let release = piece.files.path().join("go");
    let detached = ["run", "--detach", "--node", node, "--name", "slow", "--", "sh", "-c", script];
    let begun = piece.run(&[&detached[..], &[release.to_str().unwrap()]].concat()).exited(0);
    begun.has(&format!("--certificate-authority {}", piece.ca.certificate.display()));
    let mut logs = piece.trusting().args(["logs", "-f", "slow"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(logs.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("first"));
    std::fs::write(release, "").unwrap();
    assert!(lines.any(|line| line.unwrap().contains("last")));
    assert!(logs.wait().unwrap().success());
}

/// The page is served on loopback, with the token of the command line for what it asks for.
async fn page(piece: &Piece) {
    let mut ui = piece.trusting().args(["ui", "--print"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(ui.stdout.take().unwrap()).lines();
    let link = lines.next().unwrap().unwrap();
    let (page, token) = link.split_once("#token=").unwrap();
    assert!(
        page.starts_with("http://127.0.0.1:")
            && !link.contains(&std::fs::read_to_string(&piece.token).unwrap())
    );
    let http = reqwest::Client::new();
    assert!(http.get(page).send().await.unwrap().text().await.unwrap().contains("<html"));
    let tasks = format!("{page}api/v1/tasks");
    let answer = http.get(&tasks).bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().contains("hello"));
    assert_eq!(http.get(&tasks).send().await.unwrap().status(), 401, "without the token of the page");
    ui.kill().unwrap();
    ui.wait().unwrap();
}

/// Which certificates are accepted, and what is printed of the others.
fn trust(piece: &Piece) {
    let get = ["get", "tasks"];
    let mut by_system = piece.sentinel();
    by_system.env("SSL_CERT_FILE", &piece.ca.certificate).args(get);
    Ran::of(&by_system.output().unwrap()).exited(0).has("hello");
    let other = Ca::new(piece.files.path(), "other");
    let mut untrusted = piece.sentinel();
    let untrusted = untrusted.env("SSL_CERT_FILE", &other.certificate).args(get).output().unwrap();
    let untrusted =
        Ran::of(&untrusted).exited(1).has("its certificate is not of an authority that is trusted here");
    untrusted.has("--certificate-authority FILE");

    let mut other_name = piece.at(&piece.url.replace("localhost", "127.0.0.1"));
    other_name.arg("--certificate-authority").arg(&piece.ca.certificate).args(get);
    let other_name = Ran::of(&other_name.output().unwrap()).exited(1);
    other_name.has("its certificate is not for the name 127.0.0.1");
    let mut without = piece.program();
    without.args(["--server", &piece.url, "--certificate-authority"]).arg(&piece.ca.certificate);
    Ran::of(&without.args(get).output().unwrap()).exited(1).has("kubectl create token");

    let mut plain = piece.program();
    plain.args(["--certificate-authority", "ca", "--server", "http://localhost:1"]).args(get);
    Ran::of(&plain.output().unwrap()).exited(2).has("is for a server with https://");
    let mut empty = piece.sentinel();
    empty.args(["--certificate-authority", "/dev/null"]).args(get);
    Ran::of(&empty.output().unwrap()).exited(2).has("it holds no certificate in PEM form");
    // A server that does not answer in TLS.
    let mut unencrypted = piece.at(&piece.testbed.metrics.replace("http://", "https://"));
    unencrypted.arg("--certificate-authority").arg(&piece.ca.certificate).args(get);
    let unencrypted = Ran::of(&unencrypted.output().unwrap()).exited(1);
    unencrypted.has("it does not answer in TLS; is it http://?");
}

/// In a network of its own with an address that is not loopback: there is a connection, and nothing is sent over it.
#[test]
fn a_token_is_never_sent_in_plain_text_beyond_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    Ca::new(folder.path(), "any");
    std::fs::write(folder.path().join("secret"), "a-token-of-another-user").unwrap();
    let script = format!(
        "ip link set lo up && ip address add 192.0.2.7/32 dev lo
         openssl s_server -accept 192.0.2.7:{port} -cert any.crt -key any.key -msg >server 2>&1 &
         for _ in $(seq 200); do grep -q ACCEPT server && break; sleep 0.05; done
         \"$0\" --server http://192.0.2.7:{port} --token-file secret get tasks; code=$?
         kill $!; wait; exit $code"
    );
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &script]).arg(binary("sentinel")).current_dir(folder.path());
    command
        .env_remove("SENTINEL_TOKEN_FILE")
        .env_remove("SENTINEL_CERTIFICATE_AUTHORITY")
        .env_remove("SENTINEL_SERVER");
    let refused = Ran::of(&command.stdin(Stdio::null()).output().unwrap()).exited(1);
    let _ = refused.has("a token is not sent in plain text to another machine; use https://");
    // OpenSSL names a request in plain text that it receives.
    let received = std::fs::read_to_string(folder.path().join("server")).unwrap();
    assert!(received.contains("ACCEPT") && !received.contains("http request"), "{received}");
}
