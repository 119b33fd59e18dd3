//! Wiring: one agent from its config to its end.

use std::fs;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use sentinel_protocol::request::Environment;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::agent::{Body, Input, Parts, mailbox};
use crate::config::AgentConfig;
use crate::health::StatusFile;
use crate::heartbeat::Sampler;
use crate::host::Home;
use crate::journal::{JournalError, StateDir};
use crate::link::{Board, DialError, Dialer, Link, Logs, carry_output, keep_connected};
use crate::supervisor::{Host, Launcher, Survival, sees_the_machine, survival};
use crate::vitals::Vitals;

/// Why an agent could not begin, or had to end.
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
        /// What stood in the way.
        source: JournalError,
    },
    /// The system did not give what an agent needs.
    #[error("failed to {doing}")]
    System {
        /// What was attempted.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The agent's thread ended by itself: a broken invariant, already logged.
    #[error("the agent's thread ended by itself; commands live on and are found by the next start")]
    Died,
}

/// Is an agent until `shutdown` is done. May be used many times in one process, each with its own state directory.
///
/// When it ends it takes no more work; its commands live on under their supervisors and are found again.
///
/// # Errors
/// [`AgentError`] when it could not begin, or had to end. An operator that cannot be reached is no error.
pub async fn run(config: AgentConfig, shutdown: impl Future<Output = ()> + Send) -> Result<(), AgentError> {
    let dialer = Dialer { endpoint: config.operator, token: config.token, ca_file: config.ca_file };
    dialer.check().map_err(AgentError::Link)?;
    let path = config.state_dir;
    let journal =
        StateDir::open(&path).map_err(|source| AgentError::StateDir { path: path.clone(), source })?;
    match survival() {
        Survival::Outlives => tracing::info!("commands outlive this agent and are adopted by the next"),
        Survival::EndsWithContainer(tie) => {
            tracing::warn!(
                because = tie.as_str(),
                "commands end with this agent's container, as Interrupted"
            );
        }
    }
    let home = Home::here().map_err(failed("read the boot id"))?;
    let sampler = match config.sampler {
        Some(sampler) => sampler,
        None => Sampler::start(AgentConfig::sample_period()).map_err(failed("start a thread for samples"))?,
    };
    let (mailbox, inbox) = mailbox().map_err(failed("make an eventfd"))?;
    let (session, session_seen) = watch::channel(None);
    let board = Arc::new(Board::default());
    let vitals = Arc::new(Vitals::default());
    let launcher = match config.supervisor {
        Some(program) => Launcher::with(program, config.warm, config.host),
        None => Launcher::new(config.warm, config.host),
    };
    let mut rules = config.rules;
    rules.directory = Some(journal.root().display().to_string());
    if config.host == Host::OfProcess1
        && rules.environments.contains(&Environment::Host)
        && let Err(why) = sees_the_machine()
    {
        tracing::error!(why, "environment Host is not offered");
        rules.environments.retain(|environment| *environment != Environment::Host);
        rules.unavailable = Some(why);
    }
    let link = Link {
        dialer: dialer.clone(),
        timing: config.timing,
        mailbox: mailbox.clone(),
        vitals: vitals.clone(),
        sampler,
        status: StatusFile::new(journal.root(), &home.boot_id),
        session,
        boot_id: home.boot_id.clone(),
        state_id: journal.state_id().to_owned(),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        environments: rules.environments.clone(),
        random,
    };
    let logs = Logs {
        dialer,
        timing: config.timing,
        board: board.clone(),
        mailbox: mailbox.clone(),
        vitals: vitals.clone(),
        session: session_seen,
        random,
    };
    vitals.set_limit(rules.max_attempts);
    let parts = Parts { journal, launcher, rules, inbox, mailbox: mailbox.clone(), board, vitals, home };
    let (woken, awake) = oneshot::channel();
    let (dying, dead) = oneshot::channel::<()>();
    let live = move || {
        let _dying = dying;
        match Body::awaken(parts) {
            Ok(body) => {
                if woken.send(Ok(())).is_ok() {
                    body.live();
                }
            }
            // Nobody listens only when `run` itself was dropped.
            Err(error) => drop(woken.send(Err(error))),
        }
    };
    let thread = thread::Builder::new().name("agent".to_owned()).spawn(live);
    let thread = thread.map_err(failed("start the agent's thread"))?;
    // What the Journal holds is known before anybody is told anything.
    match awake.await {
        Ok(Ok(())) => {}
        Ok(Err(source)) => return Err(AgentError::StateDir { path, source }),
        Err(_) => return Err(AgentError::Died),
    }

    let stop = CancellationToken::new();
    let talking =
        async { tokio::join!(Box::pin(keep_connected(link, &stop)), Box::pin(carry_output(logs, &stop))) };
    let listening = async {
        shutdown.await;
        stop.cancel();
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        _ = talking => Ok(()),
        () = listening => Ok(()),
        _ = dead => Err(AgentError::Died),
    };
    let stopped = mailbox.post(Input::Stop).await;
    tokio::task::spawn_blocking(move || thread.join())
        .await
        .map_err(|_| AgentError::Died)?
        .map_err(|_| AgentError::Died)?;
    ended.and(stopped.map_err(|_| AgentError::Died))
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> AgentError {
    move |source| AgentError::System { doing, source }
}

/// A number from 0 to 1, from the kernel's randomness.
fn random() -> f64 {
    let (bits, _) = uuid::Uuid::new_v4().as_u64_pair();
    // The low 32 bits of the first half: the version's fixed digit is in its upper bits only of the lowest 16.
    f64::from((bits >> 32) as u32) / f64::from(u32::MAX)
}
