//! Servers of a test's own, with TLS, client certificates and users; and the files of an operator's credentials.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sentinel_operator::credentials::{
    ClientFiles, CredentialFiles, Credentials, Reconnect, Reload, ReloadMetrics, Store,
};
use sentinel_operator::metrics::Registry;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::certificates::{Ca, ServerCertificate};
use crate::stores::eventually;
use crate::stores::parts::Parts;

/// Two authorities, and certificates of each for `localhost`.
pub(crate) struct Pki {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) old: Authority,
    pub(crate) new: Authority,
}

pub(crate) struct Authority {
    pub(crate) ca: Ca,
    pub(crate) server: ServerCertificate,
    pub(crate) client: ServerCertificate,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = |name: &str| {
            let ca = Ca::new(folder.path(), name);
            let issue = |of: &str| ca.issue(folder.path(), &format!("{name}-{of}"), "localhost");
            Authority { server: issue("server"), client: issue("client"), ca }
        };
        Self { old: authority("old"), new: authority("new"), folder }
    }

    /// A file with the certificates of both authorities.
    pub(crate) fn both(&self) -> PathBuf {
        let path = self.folder.path().join("both.crt");
        std::fs::write(&path, concatenated(&[&self.old.ca.certificate, &self.new.ca.certificate])).unwrap();
        path
    }
}

pub(crate) fn concatenated(paths: &[&Path]) -> String {
    paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// A server that the test owns.
pub(crate) struct Server {
    pub(crate) port: u16,
    command: Command,
    process: Option<Child>,
}

impl Server {
    /// `FerretDB` on the `PostgreSQL` of the set, with TLS alone; clients must have a certificate of `clients`.
    pub(crate) fn ferretdb(
        parts: &Parts,
        folder: &Path,
        certificate: &ServerCertificate,
        clients: &Path,
    ) -> Option<Self> {
        let postgres = parts.port("postgres")?;
        let port = free_port();
        let mut command = Command::new(parts.bin.get("ferretdb")?);
        command
            .arg("--listen-addr=")
            .arg(format!("--listen-tls=127.0.0.1:{port}"))
            .arg(format!("--listen-tls-cert-file={}", certificate.certificate.display()))
            .arg(format!("--listen-tls-key-file={}", certificate.key.display()))
            .arg(format!("--listen-tls-ca-file={}", clients.display()))
            .arg(format!("--postgresql-url=postgres://postgres@127.0.0.1:{postgres}/postgres"))
            .arg(format!("--state-dir={}", folder.display()))
            .args(["--telemetry=disable", "--log-level=error", "--debug-addr=-"]);
        Some(Self::start(port, command))
    }

    /// Redis with TLS at `port`, and without at `plain`.
    pub(crate) fn redis(
        parts: &Parts,
        folder: &Path,
        certificate: &ServerCertificate,
        clients: &Path,
        plain: u16,
    ) -> Option<Self> {
        let port = free_port();
        let mut command = Command::new(parts.bin.get("redis-server")?);
        command.args(["--bind", "127.0.0.1", "--save", "", "--port", &plain.to_string()]);
        command.args(["--tls-port", &port.to_string(), "--dir"]).arg(folder);
        command.arg("--tls-cert-file").arg(&certificate.certificate);
        command.arg("--tls-key-file").arg(&certificate.key);
        command.arg("--tls-ca-cert-file").arg(clients);
        Some(Self::start(port, command))
    }

    fn start(port: u16, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut server = Self { port, command, process: None };
        server.restart();
        server
    }

    /// Kills it, and starts it again.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let mut process = self.command.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(process.try_wait().unwrap().is_none(), "{:?} has exited", self.command);
            assert!(Instant::now() < deadline, "{:?} does not listen", self.command);
            std::thread::sleep(Duration::from_millis(10));
        }
        self.process = Some(process);
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The files of an operator's credentials, which the test replaces.
pub(crate) struct Mounted {
    folder: tempfile::TempDir,
    pub(crate) files: CredentialFiles,
}

impl Mounted {
    pub(crate) fn new(store: Store, url: &str, ca: &Path, client: &ServerCertificate) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        // MongoDB has both in one file.
        let key = if store == Store::Mongodb { "client.crt" } else { "client.key" };
        let client_files = ClientFiles { certificate: path("client.crt"), key: path(key) };
        let files =
            CredentialFiles { store, url: path("url"), ca: Some(path("ca.crt")), client: Some(client_files) };
        let mounted = Self { folder, files };
        mounted.set_url(url);
        mounted.set_ca(ca);
        mounted.set_client(client);
        mounted
    }

    pub(crate) fn read(&self) -> Credentials {
        self.files.read().unwrap()
    }

    pub(crate) fn set_url(&self, url: &str) {
        self.put("url", url);
    }

    pub(crate) fn set_ca(&self, ca: &Path) {
        self.put("ca.crt", &concatenated(&[ca]));
    }

    /// As a person does it, one file after the other: certificate and key do not belong together in between.
    pub(crate) fn set_client(&self, client: &ServerCertificate) {
        if self.files.store == Store::Mongodb {
            self.put("client.crt", &concatenated(&[&client.certificate, &client.key]));
        } else {
            self.put("client.crt", &concatenated(&[&client.certificate]));
            self.put("client.key", &concatenated(&[&client.key]));
        }
    }

    fn put(&self, name: &str, text: &str) {
        let fresh = self.folder.path().join("new");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, self.folder.path().join(name)).unwrap();
    }
}

/// Credentials that are read again many times a second.
pub(crate) struct Reloading {
    store: Store,
    registry: Registry,
    _stop: DropGuard,
}

impl Reloading {
    pub(crate) fn start(store: Arc<dyn Reconnect>, mounted: &Mounted) -> Self {
        let registry = Registry::new();
        let name = mounted.files.store;
        let reload = Reload::new(name, store, mounted.read(), ReloadMetrics::new(&registry));
        let stop = CancellationToken::new();
        tokio::spawn(reload.run(Duration::from_millis(50), stop.clone()));
        Self { store: name, registry, _stop: stop.drop_guard() }
    }

    /// How often an attempt had this result.
    pub(crate) fn attempts(&self, result: &str) -> u64 {
        let name = self.store.label();
        let has = |line: &str, part: String| line.contains(&part);
        let text = self.registry.render();
        let line = text.lines().find(|line| {
            line.starts_with("sentinel_store_credentials_reloads_total{")
                && has(line, format!("store=\"{name}\""))
                && has(line, format!("result=\"{result}\""))
        });
        line.unwrap_or_else(|| panic!("{name} {result} in {text}"))
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    }

    /// When the certificate in use expires.
    pub(crate) fn expiry(&self, certificate: &str) -> i64 {
        let start =
            format!("sentinel_certificate_not_after_timestamp_seconds{{certificate=\"{certificate}\"}} ");
        let text = self.registry.render();
        let value = text.lines().find_map(|line| line.strip_prefix(&start));
        value.unwrap_or_else(|| panic!("no {start} in {text}")).parse().unwrap()
    }

    pub(crate) fn is_stale(&self) -> bool {
        let line = format!("sentinel_store_credentials_stale{{store=\"{}\"}} 1", self.store.label());
        self.registry.render().lines().any(|other| other == line)
    }

    /// Makes a change, and waits until it is in use.
    pub(crate) async fn after(&self, change: impl Future<Output = ()>) {
        let before = self.attempts("Reloaded");
        change.await;
        eventually("changed credentials are in use", || self.attempts("Reloaded") > before).await;
    }
}
