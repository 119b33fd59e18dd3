//! A node under attack: a real agent, the programs that may be named to it, and the operator's side of its sockets.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use nix::unistd::{User, geteuid};
use sentinel_protocol::ids::SessionId;
use sentinel_protocol::refusal::SessionRefusal;
use sentinel_protocol::secret::SealingKey;
use sentinel_protocol::to_agent::{ToAgent, Welcome};
use sentinel_protocol::to_operator::ToOperator;
use sentinel_protocol::version::Version;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use super::policy::Policy;
use super::witness::Witnesses;
use crate::attacks::kit::ANSWERED_WITHIN;
use crate::programs::{Program, binary};

/// Names under which the witness is in `<node>/bin`. The policy allows some of them something; all others are close to one of them.
const NAMES: &[&str] = &[
    "report",
    "feed",
    "scripted",
    "signed",
    "Report",
    "report2",
    "repor",
    "report ",
    "r\u{e9}port",
    "re\u{301}port",
    "other",
];

/// A node.
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its policy.
    pub policy: Policy,
    /// What was started on it.
    pub witnesses: Witnesses,
    /// The agent.
    pub program: Program,
    /// Mutated frames that were sent on log sockets.
    pub log_frames: Arc<AtomicUsize>,
    arguments: Vec<String>,
    address: String,
    controls: mpsc::Receiver<WebSocketStream<TcpStream>>,
    sessions: usize,
    dir: TempDir,
}

/// An established Session.
pub struct Session {
    /// Its socket.
    pub socket: WebSocketStream<TcpStream>,
    /// Its id.
    pub id: SessionId,
    /// To which values of Secrets are sealed.
    pub sealing_key: Option<SealingKey>,
}

impl Node {
    /// Makes the files of a node, and starts its agent. With `AllowAll`, its policy allows everything.
    ///
    /// # Errors
    /// When a file cannot be written or a port not be had.
    pub async fn start(name: &str, seed: u64, allow: Allow) -> Result<Self> {
        // Not in /tmp, which a command with a read-only root does not see.
        let parent = Path::new("/var/tmp");
        let dir = if parent.is_dir() { tempfile::tempdir_in(parent)? } else { tempfile::tempdir()? };
        let path = dir.path().canonicalize()?;
        for directory in ["bin", "bin/sub", "agent"] {
            std::fs::create_dir(path.join(directory))?;
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        programs(&path.join("bin"))?;
        let witnesses = Witnesses::listen(&path.join("seen"))?;
        let user = if geteuid().is_root() {
            "nobody".to_owned()
        } else {
            User::from_uid(geteuid())?.context("this user has no name")?.name
        };
        let policy = Policy::new(&path, name, &user)?;
        let agent = |file: &str| path.join("agent").join(file);
        std::fs::write(
            agent("policy.yaml"),
            if allow == Allow::AllAsked { Policy::everything() } else { policy.text() },
        )?;
        std::fs::write(agent("token"), "a-token")?;
        std::fs::set_permissions(agent("token"), PermissionsExt::from_mode(0o600))?;

        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (sockets, controls) = mpsc::channel(16);
        let log_frames: Arc<AtomicUsize> = Arc::default();
        tokio::spawn(accept(listener, sockets, seed, log_frames.clone()));
        let text = |file: &str| agent(file).display().to_string();
        let profile = if geteuid().is_root() { "host" } else { "container" };
        let arguments: Vec<String> = [
            ("--operator-url", format!("ws://{address}")),
            ("--token-file", text("token")),
            ("--state-dir", text("state")),
            ("--policy-file", text("policy.yaml")),
            ("--node-name", name.to_owned()),
            ("--profile", profile.to_owned()),
            ("--audit-keep", "4Gi".to_owned()),
            ("--log", "error".to_owned()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        let program = Program::start("node-agent", "node-agent", &path, &arguments);
        let name = name.to_owned();
        Ok(Self {
            name,
            policy,
            witnesses,
            program,
            log_frames,
            arguments,
            address,
            controls,
            sessions: 0,
            dir,
        })
    }

    /// Ends the agent, and starts it again on the same state.
    pub async fn restart(&mut self) {
        let path = self.path();
        let next = Program::start("node-agent", "node-agent-2", &path, &self.arguments);
        std::mem::replace(&mut self.program, next).stop(Duration::from_secs(60)).await;
        // The second one found the state locked, if it was sooner.
        if !self.program.is_running() {
            self.program = Program::start("node-agent", "node-agent-2", &path, &self.arguments);
        }
    }

    /// Its files.
    pub fn path(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap_or_else(|_| self.dir.path().to_owned())
    }

    /// The next Session. An agent whose Session has ended early waits longer and longer; but not if the operator does not lead.
    ///
    /// # Errors
    /// When the agent does not dial in time.
    pub async fn session(&mut self, epoch: u64) -> Result<Session> {
        if self.sessions > 0 {
            let mut socket = self.dialled().await?;
            let elsewhere = SessionRefusal::NotLeader { leader: Some(self.address.clone()) };
            let _ = receive(&mut socket).await;
            let _ = send(&mut socket, &serde_json::to_string(&ToAgent::Refuse(elsewhere))?).await;
        }
        let mut socket = self.dialled().await?;
        let ToOperator::Hello(_) = receive(&mut socket).await? else {
            bail!("the first message must be a Hello")
        };
        self.sessions += 1;
        let id = SessionId::new(format!("{}-{}", self.name, self.sessions))?;
        let welcome = Welcome {
            version: Version(4),
            session: id.clone(),
            epoch: epoch.try_into()?,
            heartbeat_ms: 5_000,
            dead_after_ms: 60_000,
        };
        send(&mut socket, &serde_json::to_string(&ToAgent::Welcome(welcome))?).await?;
        let mut sealing_key = None;
        loop {
            if let ToOperator::Inventory(part) = receive(&mut socket).await? {
                sealing_key = sealing_key.or(part.sealing_key);
                if !part.more {
                    return Ok(Session { socket, id, sealing_key });
                }
            }
        }
    }

    async fn dialled(&mut self) -> Result<WebSocketStream<TcpStream>> {
        let waiting = tokio::time::timeout(ANSWERED_WITHIN, self.controls.recv());
        waiting
            .await
            .map_err(|_| anyhow!("the agent of {} does not dial again", self.name))?
            .context("no listener")
    }

    /// What `node-agent audit VERB` prints, and whether it was content.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn audit(&self, verb: &str) -> Result<(bool, String)> {
        let mut command = Command::new(binary("node-agent"));
        let output =
            command.args(["audit", verb, "--state-dir"]).arg(self.path().join("agent/state")).output()?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Mutated frames on its log sockets.
    pub fn log_frames(&self) -> usize {
        self.log_frames.load(Ordering::Relaxed)
    }
}

/// What the policy of a node allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allow {
    /// The narrow set that [`Policy`] has.
    Few,
    /// All that is asked for: for the control, which shows that this would be noticed.
    AllAsked,
}

/// The witness under all names: files of their own, one hard link, and symbolic links.
fn programs(bin: &Path) -> Result<()> {
    let witness = binary("witness");
    for name in NAMES.iter().copied().chain(["sub/report"]) {
        std::fs::copy(&witness, bin.join(name))?;
        std::fs::set_permissions(bin.join(name), PermissionsExt::from_mode(0o755))?;
    }
    std::fs::hard_link(bin.join("report"), bin.join("hard"))?;
    symlink("report", bin.join("link"))?;
    symlink("other", bin.join("link-to-other"))?;
    symlink("sub", bin.join("link-to-sub"))?;
    Ok(())
}

/// Accepts the sockets of the agent. On log sockets, each frame is answered with hostile ones.
async fn accept(
    listener: TcpListener,
    controls: mpsc::Sender<WebSocketStream<TcpStream>>,
    seed: u64,
    log_frames: Arc<AtomicUsize>,
) {
    while let Ok((tcp, _)) = listener.accept().await {
        let _ = tcp.set_nodelay(true);
        let mut path = String::new();
        #[allow(clippy::result_large_err, reason = "the signature is the library's")]
        let note = |request: &Request, response: Response| {
            request.uri().path().clone_into(&mut path);
            Ok(response)
        };
        let Ok(socket) = accept_hdr_async(tcp, note).await else { continue };
        if path.ends_with("/logs") {
            tokio::spawn(answer_logs(socket, fastrand::Rng::with_seed(seed), log_frames.clone()));
        } else if controls.send(socket).await.is_err() {
            return;
        }
    }
}

/// Answers what is sent on a log socket with Credit that was never due, of Attempts that never were.
async fn answer_logs(mut socket: WebSocketStream<TcpStream>, mut rng: fastrand::Rng, sent: Arc<AtomicUsize>) {
    while let Some(Ok(frame)) = socket.next().await {
        let Message::Text(text) = frame else { continue };
        let mut open: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        for _ in 0..4 {
            let number = [0, 1, u64::MAX, i64::MAX as u64, rng.u64(..)][rng.usize(..5)];
            if rng.u8(..4) == 0 {
                open["attempt"] =
                    format!("foreign/{}/{}/1", rng.u16(..), ["n", "other"][rng.usize(..2)]).into();
            }
            let (attempt, kind) =
                (&open["attempt"], ["Credit", "Credit", "Credit", "Open", "Later"][rng.usize(..5)]);
            let frame = serde_json::json!({"kind": kind, "attempt": attempt, "granted": number, "archived": rng.u64(..), "oldest": number});
            sent.fetch_add(1, Ordering::Relaxed);
            if socket.send(Message::text(frame.to_string())).await.is_err() {
                return;
            }
        }
    }
}

/// Sends a frame.
///
/// # Errors
/// When the socket is closed, or does not take it in time.
pub async fn send(socket: &mut WebSocketStream<TcpStream>, text: &str) -> Result<()> {
    Ok(tokio::time::timeout(ANSWERED_WITHIN, socket.send(Message::text(text))).await??)
}

/// The next message of the agent.
///
/// # Errors
/// When the socket is closed, or nothing comes in time.
pub async fn receive(socket: &mut WebSocketStream<TcpStream>) -> Result<ToOperator> {
    let receiving = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text)?),
                Some(Ok(Message::Close(_))) | None => return Err(anyhow!("the socket is closed")),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
    };
    tokio::time::timeout(ANSWERED_WITHIN, receiving).await.context("nothing comes")?
}
