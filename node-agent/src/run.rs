//! Wiring: one agent from its configuration to its exit.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::thread;

use sentinel_core::agent::Rules;
use sentinel_protocol::request::Environment;
use tokio::sync::{oneshot, watch};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::agent::{AgentLoop, Guards, Performer, Trail};
use crate::agent_metrics::AgentMetrics;
use crate::channel::{Inbox, Input, Mailbox, OutputNotices, mailbox};
use crate::config::AgentConfig;
use crate::error_category::ErrorCategory;
use crate::health::StatusFile;
use crate::heartbeat::Sampler;
use crate::journal::{JournalError, StateDir};
use crate::link::{ControlLink, DialError, Dialer, LogLink, Token, run_control_link, run_log_link};
use crate::policy::PolicyGate;
use crate::process::ContainerScope;
use crate::supervisor::{
    HostNamespaces, Launcher, Separation, Survival, check_host_pid_namespace, separation, survival,
};

/// Why an agent could not start, or had to exit.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Token or certificates cannot be used.
    #[error("failed to prepare the link to the operator")]
    Link(#[source] DialError),
    /// The state directory cannot be used.
    #[error("failed to use the state directory {path}")]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: JournalError,
    },
    /// The system lacks something that an agent needs.
    #[error("failed to {doing}")]
    System {
        /// What was attempted.
        doing: &'static str,
        /// The system error.
        source: io::Error,
    },
    /// A part of the agent exited or panicked: a broken invariant, logged where it was found.
    #[error("{part} exited unexpectedly; commands continue and are adopted by the next agent")]
    PartExited {
        /// Which part.
        part: &'static str,
    },
}

impl AgentError {
    /// The label of this error in logs and metrics.
    pub fn category(&self) -> ErrorCategory {
        match self {
            Self::Link(error) => error.category(),
            Self::StateDir { source, .. } => source.category(),
            Self::System { source, .. } => ErrorCategory::of_io(source),
            Self::PartExited { .. } => ErrorCategory::Internal,
        }
    }

    /// Whether starting the agent again may succeed though nothing on this node was changed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Link(error) => error.is_retryable(),
            Self::StateDir { source, .. } => source.is_retryable(),
            Self::System { .. } | Self::PartExited { .. } => true,
        }
    }
}

/// The parts of an agent, as errors name them.
const AGENT_THREAD: &str = "the agent's thread";
const CONTROL_LINK: &str = "the control link";
const LOG_LINK: &str = "the log link";

/// Runs an agent until `shutdown` completes. A process may run many, each with its own state directory.
///
/// When it exits it takes no more work; its commands continue under their supervisors, and the next agent adopts them.
///
/// # Errors
/// [`AgentError`] when it could not start, or had to exit. An unreachable operator is not an error.
pub async fn run(config: AgentConfig, shutdown: impl Future<Output = ()> + Send) -> Result<(), AgentError> {
    let dialer = Dialer {
        endpoint: config.operator.clone(),
        token: config.token.clone(),
        ca_file: config.ca_file.clone(),
    };
    dialer.check().map_err(AgentError::Link)?;
    let path = config.state_dir.clone();
    let failed = |source| AgentError::StateDir { path: path.clone(), source };
    let journal = StateDir::open(&path).map_err(failed)?;
    log_survival();
    log_separation();
    let rules = rules(&config, &journal);
    let (shared, links, inbox) = wire(config, &rules, dialer, &journal)?;
    let mailbox = shared.mailbox.clone();
    // The Journal is replayed before the operator is dialled.
    let mut agent = AgentThread::start(shared, journal, rules, inbox)?;
    agent.replayed().await?.map_err(failed)?;

    let ended = serve(links, &mut agent, shutdown).await;
    let stopped = mailbox.send(Input::Stop).await;
    agent.join().await?;
    ended.and(stopped.map_err(|_| AgentError::PartExited { part: AGENT_THREAD }))
}

/// Serves both links until `shutdown` completes or a part exits unexpectedly.
async fn serve(
    links: Links,
    agent: &mut AgentThread,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), AgentError> {
    let stop = CancellationToken::new();
    let mut parts = Parts::default();
    parts.spawn(CONTROL_LINK, run_control_link(links.control, stop.clone()));
    parts.spawn(LOG_LINK, run_log_link(links.logs, stop.clone()));
    let until = async {
        tokio::select! {
            () = shutdown => Ok(()),
            () = agent.exited() => Err(AgentError::PartExited { part: AGENT_THREAD }),
        }
    };
    let ended = parts.run(&stop, until).await;
    if let Err(error) = &ended {
        tracing::error!(category = error.category().as_str(), %error, "shutting down: a part of the agent exited");
    }
    ended
}

/// The tasks of an agent. None is detached: when one exits, so does the agent.
#[derive(Default)]
struct Parts {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Parts {
    fn spawn(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(part).id();
        self.names.insert(id, name);
    }

    /// Waits for `until`, or until a part exits; then stops all parts and waits for their end.
    async fn run(
        mut self,
        stop: &CancellationToken,
        until: impl Future<Output = Result<(), AgentError>>,
    ) -> Result<(), AgentError> {
        let mut ended = tokio::select! {
            ended = until => ended,
            Some(part) = self.tasks.join_next_with_id() => {
                Err(self.exited(part.map_or_else(|error| error.id(), |(id, ())| id)))
            }
        };
        stop.cancel();
        while let Some(part) = self.tasks.join_next_with_id().await {
            if let Err(error) = part {
                ended = ended.and(Err(self.exited(error.id())));
            }
        }
        ended
    }

    fn exited(&self, id: Id) -> AgentError {
        AgentError::PartExited { part: self.names.get(&id).copied().unwrap_or("a part of the agent") }
    }
}

/// What the agent's thread shares with the links.
struct Shared {
    mailbox: Mailbox,
    notices: Arc<OutputNotices>,
    metrics: Arc<AgentMetrics>,
    launcher: Launcher,
    scope: ContainerScope,
    guards: Guards,
}

/// The links to the operator, not started yet.
struct Links {
    control: ControlLink,
    logs: LogLink,
}

/// Creates the parts and connects them.
fn wire(
    config: AgentConfig,
    rules: &Rules,
    dialer: Dialer,
    journal: &StateDir,
) -> Result<(Shared, Links, Inbox), AgentError> {
    let scope = ContainerScope::current().map_err(failed("read the boot id"))?;
    let sampler = match config.sampler {
        Some(sampler) => sampler,
        None => Sampler::start(AgentConfig::sample_period()).map_err(failed("start a thread for samples"))?,
    };
    let (mailbox, inbox) = mailbox().map_err(failed("create an eventfd"))?;
    let (session, session_changes) = watch::channel(None);
    let notices = Arc::new(OutputNotices::default());
    let metrics = Arc::new(AgentMetrics::default());
    metrics.set_limit(rules.max_attempts);
    let mut hidden = config.hidden;
    hidden.push(journal.root().to_owned());
    if let Token::File(file) = &dialer.token {
        hidden.push(file.clone());
    }
    let launcher = match config.supervisor {
        Some(program) => Launcher::with(program, config.prefork, config.host),
        None => Launcher::new(config.prefork, config.host),
    }
    .preparing_in(journal.root())
    .hiding(hidden);
    let policy = PolicyGate::new(&config.policy, journal.root(), config.host, config.node_name.clone());
    let node = config.node_name.unwrap_or_else(|| "-".to_owned());
    let trail = Trail::open(journal.root(), config.audit_kept, &node, metrics.clone());
    let control = ControlLink {
        node: node.clone(),
        audit: trail.synced(),
        dialer: dialer.clone(),
        timing: config.timing,
        mailbox: mailbox.clone(),
        metrics: metrics.clone(),
        sampler,
        status: StatusFile::new(journal.root(), &scope.boot_id),
        session,
        boot_id: scope.boot_id.clone(),
        state_id: journal.state_id().to_owned(),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        environments: rules.environments.clone(),
    };
    let logs = LogLink {
        node,
        dialer,
        timing: config.timing,
        notices: notices.clone(),
        mailbox: mailbox.clone(),
        metrics: metrics.clone(),
        session: session_changes,
    };
    let guards = Guards { policy, trail };
    Ok((Shared { mailbox, notices, metrics, launcher, scope, guards }, Links { control, logs }, inbox))
}

/// What this agent accepts on this machine.
fn rules(config: &AgentConfig, journal: &StateDir) -> Rules {
    let mut rules = config.rules.clone();
    rules.directory = Some(journal.root().display().to_string());
    if config.host == HostNamespaces::OfInit
        && rules.environments.contains(&Environment::Host)
        && !config.nested_node
        && let Err(why) = check_host_pid_namespace()
    {
        tracing::error!(why, "environment Host is not available");
        rules.environments.retain(|environment| *environment != Environment::Host);
        rules.unavailable = Some(why);
    }
    rules
}

fn log_survival() {
    match survival() {
        Survival::Outlives => tracing::info!("commands survive this agent and are adopted by the next"),
        Survival::EndsWithContainer(tie) => {
            tracing::warn!(reason = tie.as_str(), "commands end with this agent's container, as Interrupted");
        }
    }
}

/// Once, though dev mode has many agents.
fn log_separation() {
    static LOGGED: Once = Once::new();
    LOGGED.call_once(|| match separation() {
        Separation::Hidden => tracing::info!("commands do not see the files of this agent, unless they are privileged"),
        Separation::OtherUser => tracing::info!(
            "commands run as another user than this agent, which has no CAP_SYS_ADMIN to hide its files; as root only with \
             run.sandbox Privileged"
        ),
        Separation::SameUser => {
            tracing::info!("commands run as the user of this agent, and may do to it and its files what that user may");
        }
    });
}

/// The agent's thread, and what it reports.
struct AgentThread {
    thread: thread::JoinHandle<()>,
    replayed: Option<oneshot::Receiver<Result<(), JournalError>>>,
    /// Resolves when the thread exits, however that happens.
    exited: oneshot::Receiver<()>,
}

impl AgentThread {
    fn start(shared: Shared, journal: StateDir, rules: Rules, inbox: Inbox) -> Result<Self, AgentError> {
        let Shared { mailbox, notices, metrics, launcher, scope, guards } = shared;
        let performer = Performer::new(journal, launcher, mailbox, notices, metrics, scope, guards)
            .map_err(failed("start a thread that removes forgotten attempts"))?;
        let (report, replayed) = oneshot::channel();
        let (alive, exited) = oneshot::channel::<()>();
        let main = move || {
            let _alive = alive;
            match AgentLoop::start(performer, rules, inbox) {
                Ok(agent) => {
                    if report.send(Ok(())).is_ok() {
                        agent.run();
                    }
                }
                // The receiver is gone only when `run` was dropped.
                Err(error) => drop(report.send(Err(error))),
            }
        };
        let thread = thread::Builder::new().name("agent".to_owned()).spawn(main);
        let thread = thread.map_err(failed("start the agent's thread"))?;
        Ok(Self { thread, replayed: Some(replayed), exited })
    }

    /// Waits until the Journal is replayed.
    async fn replayed(&mut self) -> Result<Result<(), JournalError>, AgentError> {
        let exited = AgentError::PartExited { part: AGENT_THREAD };
        match self.replayed.take() {
            Some(replayed) => replayed.await.map_err(|_| exited),
            None => Err(exited),
        }
    }

    /// Waits until the thread has exited.
    async fn exited(&mut self) {
        let _ = (&mut self.exited).await;
    }

    async fn join(self) -> Result<(), AgentError> {
        let exited = || AgentError::PartExited { part: AGENT_THREAD };
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        joined.map_err(|_| exited())?.map_err(|_| exited())
    }
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> AgentError {
    move |source| AgentError::System { doing, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics of a part were not named, and one that returned early left an agent without it.
    #[tokio::test]
    async fn a_part_that_exits_or_panics_stops_the_others_and_is_named() {
        for panics in [false, true] {
            let stop = CancellationToken::new();
            let mut parts = Parts::default();
            parts.spawn("the failing part", async move { assert!(!panics, "a defect of the part") });
            parts.spawn("the other part", stop.clone().cancelled_owned());
            let ended = parts.run(&stop, std::future::pending()).await.unwrap_err();
            assert!(matches!(ended, AgentError::PartExited { part: "the failing part" }), "{ended}");
            assert_eq!((ended.category(), ended.is_retryable()), (ErrorCategory::Internal, true));
        }
    }

    #[tokio::test]
    async fn shutdown_stops_all_parts() {
        let stop = CancellationToken::new();
        let mut parts = Parts::default();
        parts.spawn("a part", stop.clone().cancelled_owned());
        parts.run(&stop, std::future::ready(Ok(()))).await.unwrap();
    }
}
