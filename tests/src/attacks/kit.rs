//! What the attacks share: the victim, a sampler of its memory, and the table of results.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::memory::rss;
use crate::ports::free_port;
use crate::programs::Program;
use crate::wait::until;

/// One MiB.
pub const MIB: u64 = 1 << 20;

/// How long a victim may take to start.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// How long an answer may take, on a machine that has other work too.
pub const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// How often memory is read.
const SAMPLE_EVERY: Duration = Duration::from_millis(5);

/// How much of an attack is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Enough to fail when the defence is gone; seconds.
    Short,
    /// As much as the finding that it repeats.
    Full,
}

impl Size {
    /// A number of the short form, or of the full one.
    pub fn pick(self, short: usize, full: usize) -> usize {
        match self {
            Self::Short => short,
            Self::Full => full,
        }
    }
}

/// What became of an attack.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its name.
    pub attack: &'static str,
    /// What was tried, for people.
    pub tried: String,
    /// How many of the tries were taken.
    pub accepted: usize,
    /// How many were refused.
    pub refused: usize,
    /// Most tries that may be taken.
    pub may_accept: usize,
    /// Memory of the victim.
    pub memory: Memory,
    /// By how much its resident memory may grow, bytes.
    pub bound: u64,
    /// What else went wrong.
    pub faults: Vec<String>,
}

/// Resident memory of a victim, bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Before the attack.
    pub before: u64,
    /// The maximum during the attack.
    pub peak: u64,
    /// When it was over.
    pub after: u64,
}

impl Row {
    /// An attack that could not be carried out, for example because its victim did not start.
    pub fn not_done(attack: &'static str, error: &anyhow::Error) -> Self {
        Self {
            attack,
            tried: "could not be carried out".to_owned(),
            accepted: 0,
            refused: 0,
            may_accept: 0,
            memory: Memory::default(),
            bound: 0,
            faults: vec![format!("{error:#}")],
        }
    }

    /// Whether the victim kept within what was stated.
    pub fn is_held(&self) -> bool {
        self.faults.is_empty()
            && self.accepted <= self.may_accept
            && self.memory.peak.saturating_sub(self.memory.before) <= self.bound
    }
}

/// What became of all attacks.
#[derive(Debug, Default)]
pub struct Report {
    /// One for each.
    pub rows: Vec<Row>,
}

impl Report {
    /// Whether every bound held.
    pub fn is_held(&self) -> bool {
        self.rows.iter().all(Row::is_held)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / MIB as f64);
        let mut lines = vec![
            ["ATTACK", "ACCEPTED", "REFUSED", "BEFORE", "PEAK", "AFTER", "BOUND", "VERDICT", "TRIED"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for row in &self.rows {
            let verdict = if row.is_held() { "held" } else { "BROKEN" };
            lines.push(vec![
                row.attack.to_owned(),
                format!("{} (≤ {})", row.accepted, row.may_accept),
                row.refused.to_string(),
                mib(row.memory.before),
                mib(row.memory.peak),
                mib(row.memory.after),
                format!("+{}", mib(row.bound)),
                verdict.to_owned(),
                row.tried.clone(),
            ]);
        }
        let widths: Vec<usize> = (0..9)
            .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
            .collect();
        for line in &lines {
            let cells: Vec<String> =
                line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        writeln!(f, "Memory is resident, in MiB.")?;
        for row in &self.rows {
            for fault in &row.faults {
                writeln!(f, "{}: {fault}", row.attack)?;
            }
        }
        Ok(())
    }
}

/// Reads the memory of a process until it is asked for the result.
pub struct Sampler {
    pid: u32,
    before: u64,
    peak: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Begins.
    pub fn start(pid: u32) -> Self {
        let before = rss(pid);
        let (peak, over) = (Arc::new(AtomicU64::new(before)), Arc::new(AtomicBool::new(false)));
        let (seen, stop) = (peak.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                seen.fetch_max(rss(pid), Ordering::Relaxed);
                std::thread::sleep(SAMPLE_EVERY);
            }
        });
        Self { pid, before, peak, over, thread: Some(thread) }
    }

    /// Ends, and returns what was measured.
    pub fn finish(mut self) -> Memory {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        Memory { before: self.before, peak: self.peak.load(Ordering::Relaxed), after: rss(self.pid) }
    }
}

/// A victim: a real process.
pub struct Victim {
    /// Its process.
    pub program: Program,
    /// Address of the HTTP API.
    pub api: SocketAddr,
    /// Address of metrics and probes, where it has one of its own.
    pub metrics: Option<SocketAddr>,
    /// Address for agents, where it is known.
    pub gateway: Option<SocketAddr>,
    /// What opens the API; `None` where nothing is asked for.
    pub token: Option<String>,
    /// The API's socket, where it has one.
    pub socket: Option<PathBuf>,
    directory: TempDir,
}

impl Victim {
    /// `sentinel dev` on a free port, with its state in a directory of its own.
    pub async fn dev(arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let state = directory.path().join("state").display().to_string();
        let mut all = vec!["dev", "--listen", "127.0.0.1:0", "--state", &state];
        all.extend(arguments);
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        let program = Program::start("sentinel", "dev", directory.path(), &all);
        let text = until("dev mode prints its addresses", STARTS_WITHIN, || async {
            let log = program.log();
            if log.contains("Try, in another terminal:") { Ok(log) } else { Err(log) }
        })
        .await;
        let named = |label: &str| {
            let line = text.lines().find_map(|line| line.trim_start().strip_prefix(label));
            line.and_then(|rest| rest.split_whitespace().next()).map(str::to_owned)
        };
        let api = named("API ").context("dev mode names its API")?;
        let api = api.trim_start_matches("http://").trim_end_matches("/api/v1").parse()?;
        let token = named("Token ").map(std::fs::read_to_string).transpose()?;
        let token = token.map(|text| text.trim().to_owned());
        let socket = named("Socket ").map(PathBuf::from);
        Ok(Self { program, api, metrics: None, gateway: None, token, socket, directory })
    }

    /// An operator of a cluster that does not answer: all of its listeners are up, its History is in a directory, and
    /// it leads.
    pub async fn operator(arguments: &[&str]) -> Result<Self> {
        Self::operator_of("http://127.0.0.1:9", arguments).await
    }

    /// The same, with a cluster that has its API server at this URL.
    pub async fn operator_of(api_server: &str, arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name).display().to_string();
        let kubeconfig = path("kubeconfig");
        std::fs::write(&kubeconfig, KUBECONFIG.replace("SERVER", api_server))?;
        let [api, metrics, gateway] = [0; 3].map(|_| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let (listen_api, listen_metrics, listen_gateway) =
            (api.to_string(), metrics.to_string(), gateway.to_string());
        let data = path("data");
        let mut all = vec![
            "--storage",
            "embedded",
            "--data-dir",
            &data,
            "--kubeconfig",
            &kubeconfig,
            "--no-leader-election",
            "--api-listen",
            &listen_api,
            "--metrics-listen",
            &listen_metrics,
            "--gateway-listen",
            &listen_gateway,
            "--log",
            "error",
        ];
        all.extend(arguments);
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        let program = Program::start("operator", "operator", directory.path(), &all);
        let (metrics, gateway) = (Some(metrics), Some(gateway));
        let victim = Self { program, api, metrics, gateway, token: None, socket: None, directory };
        until("the operator lives", STARTS_WITHIN, || async {
            victim.is_alive().await.then_some(()).ok_or_else(|| victim.program.log())
        })
        .await;
        Ok(victim)
    }

    /// Where the attack may keep files.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Begins to read its memory.
    pub fn watch(&self) -> Sampler {
        Sampler::start(self.program.pid())
    }

    /// The header lines that open the API, each with its end; none where nothing is asked for.
    pub fn credentials(&self) -> String {
        self.token.as_ref().map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"))
    }

    /// Whether it answers its probe in time, on a machine that has other work too.
    pub async fn is_alive(&self) -> bool {
        let at = self.metrics.unwrap_or(self.api);
        let head = format!("GET /healthz HTTP/1.1\r\nhost: {at}\r\n\r\n");
        let asked = request(at, &head, b"");
        matches!(tokio::time::timeout(ANSWERED_WITHIN, asked).await, Ok(Ok((200, _))))
    }

    /// A request with the owner's credentials: its status and body.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        json: Option<&serde_json::Value>,
    ) -> Result<(u16, String)> {
        let body = json.map(ToString::to_string).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\n{}sentinel-request: 1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.api,
            self.credentials(),
            body.len()
        );
        request(self.api, &head, body.as_bytes()).await
    }

    /// Ends it.
    pub async fn close(self) {
        self.program.stop(Duration::from_secs(60)).await;
    }
}

/// One request over a connection of its own: the status and the rest of the answer, read to its end.
///
/// # Errors
/// When the connection breaks before there is a status.
pub async fn request(at: SocketAddr, head: &str, body: &[u8]) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(at).await?;
    let head = head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    stream.write_all(head.as_bytes()).await?;
    // The answer may come, and the connection end, before all of the body is sent.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    match status_of(&text) {
        Some(status) => Ok((status, text.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())),
        None => bail!("no answer from {at}: {text:?}"),
    }
}

/// The status of an answer that has begun.
pub fn status_of(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// A cluster without credentials; `SERVER` is the URL of its API server.
const KUBECONFIG: &str = "\
apiVersion: v1
kind: Config
current-context: none
clusters: [{name: none, cluster: {server: 'SERVER'}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
users: [{name: none, user: {}}]
";
