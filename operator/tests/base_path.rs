//! An operator behind an ingress: page and API below its base path, and at the root.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An operator process that ends with the test.
struct Operator {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Operator {
    /// Starts one over embedded stores, whose cluster does not answer.
    fn start(base_path: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = directory.path().join("kubeconfig");
        std::fs::write(
            &kubeconfig,
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n\
             clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}]\nusers: [{name: u, user: {}}]\n",
        )
        .unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_operator"));
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SENTINEL_"))
        {
            command.env_remove(name);
        }
        command.env("SENTINEL_BASE_PATH", base_path);
        command.args(["--storage", "embedded", "--data-dir"]).arg(directory.path().join("data"));
        command.args(["--gateway-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
        command.arg("--api-listen").arg(format!("127.0.0.1:{port}")).arg("--kubeconfig").arg(&kubeconfig);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let operator = Self { child: command.spawn().unwrap(), port, _directory: directory };
        let deadline = Instant::now() + Duration::from_mins(1);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the operator does not listen within a minute");
            std::thread::sleep(Duration::from_millis(20));
        }
        operator
    }

    /// The status and the text of an answer.
    fn get(&self, path: &str, headers: &str) -> (String, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let host = format!("Host: 127.0.0.1:{}\r\nConnection: close\r\n{headers}", self.port);
        write!(stream, "GET {path} HTTP/1.1\r\n{host}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer.split(' ').nth(1).unwrap().to_owned(), answer)
    }
}

#[test]
fn page_and_api_are_below_the_base_path_and_at_the_root() {
    let operator = Operator::start("/ops/sentinel/");
    for path in ["/ops/sentinel", "/ops/sentinel/", "/ops/sentinel/tasks?phase=Failed"] {
        let (status, page) = operator.get(path, "");
        assert_eq!(status, "200", "{path}: {page}");
        assert!(page.contains("<base href=\"/ops/sentinel/\">"), "{path}: {page}");
        let asset = page.split('"').find(|part| part.starts_with("assets/main.")).unwrap();
        assert_eq!(operator.get(&format!("/ops/sentinel/{asset}"), "").0, "200");
        assert_eq!(operator.get(&format!("/{asset}"), "").0, "200");
    }
    let (_, page) = operator.get("/tasks", "");
    assert!(page.contains("<base href=\"/\">"), "{page}");
    let (_, page) = operator.get("/tasks", "X-Forwarded-Prefix: /ops/sentinel\r\n");
    assert!(page.contains("<base href=\"/ops/sentinel/\">"), "{page}");
    for path in ["/ops/sentinel/api/v1/openapi.json", "/api/v1/openapi.json", "/ops/sentinel/healthz"] {
        assert_eq!(operator.get(path, "").0, "200", "{path}");
    }
    for path in ["/ops", "/ops/sentinels/tasks", "/ops/sentinel/ops/sentinel/tasks"] {
        assert_eq!(operator.get(path, "").0, "404", "{path}");
    }
}
