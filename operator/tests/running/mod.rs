//! An operator process over embedded stores, whose cluster does not answer, and scrapes of its metrics: all are registered
//! at the start.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An operator process that ends with the test.
pub(crate) struct Running {
    process: Child,
    pub(crate) metrics: SocketAddr,
    pub(crate) api: SocketAddr,
    pub(crate) gateway: SocketAddr,
    directory: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Running {
    /// Starts it with these flags too, and waits until it answers.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_in(flags, &[])
    }

    /// The same with these variables too.
    pub(crate) fn start_in(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = directory.path().join("kubeconfig");
        std::fs::write(
            &kubeconfig,
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n\
             clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}]\nusers: [{name: u, user: {}}]\n",
        )
        .unwrap();
        // All three at once, so that they differ.
        let free: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<SocketAddr> = free.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let [metrics, api, gateway] = ports[..] else { panic!("three ports") };
        drop(free);
        let mut command = Command::new(env!("CARGO_BIN_EXE_operator"));
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SENTINEL_"))
        {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied());
        command.args(["--storage", "embedded", "--data-dir"]).arg(directory.path().join("data"));
        command.arg("--gateway-listen").arg(gateway.to_string()).arg("--api-listen").arg(api.to_string());
        command.arg("--metrics-listen").arg(metrics.to_string()).arg("--kubeconfig").arg(&kubeconfig);
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        command.args(flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut running = Self { process: command.spawn().unwrap(), metrics, api, gateway, directory };
        let deadline = Instant::now() + Duration::from_mins(1);
        while get(metrics, "/metrics", "").is_none() {
            let exited = running.process.try_wait().unwrap();
            assert!(exited.is_none(), "the operator has exited: {}", running.log());
            assert!(Instant::now() < deadline, "no metrics within a minute: {}", running.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Its metrics, with this `Accept`.
    pub(crate) fn metrics(&self, accept: &str) -> String {
        get(self.metrics, "/metrics", &format!("Accept: {accept}\r\n")).unwrap().1
    }
}

/// Head and body of an answer with status 200.
pub(crate) fn get(at: SocketAddr, path: &str, headers: &str) -> Option<(String, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\n{headers}Connection: close\r\n\r\n");
    let answer = exchange(at, request.as_bytes())?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| (head.to_owned(), body.to_owned()))
}

/// Sends bytes and reads until the end; `None` when that fails.
pub(crate) fn exchange(at: SocketAddr, bytes: &[u8]) -> Option<String> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(bytes).ok()?;
    let mut answer = Vec::new();
    // What arrived before a reset counts.
    let _ = stream.read_to_end(&mut answer);
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// The labels of a sample such as `name{a="b",c="d"} 1`.
pub(crate) fn labels(sample: &str) -> Vec<(String, String)> {
    let Some((_, rest)) = sample.split_once('{') else { return Vec::new() };
    let inside = rest.rsplit_once('}').map_or("", |(inside, _)| inside);
    let pairs = inside.split("\",").filter_map(|pair| pair.split_once("=\""));
    pairs.map(|(label, value)| (label.to_owned(), value.trim_end_matches('"').to_owned())).collect()
}

/// A path in the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
