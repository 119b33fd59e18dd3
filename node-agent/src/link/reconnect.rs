//! The loop that keeps a Session: when to dial, and which operator.
//!
//! ```text
//!          ┌──────────── the Session ended ───────────┐
//!          ▼                                          │
//!       Waiting ──(a random part of the backoff)──▶ Dialling ──(Welcome)──▶ in Session
//!          ▲                                          │
//!          └───────── declined or unreachable ────────┘
//! ```

use sentinel_protocol::refusal::SessionRefusal;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::control::{ControlLink, SessionError, run_session};
use super::timing::ReconnectBackoff;
use crate::shortage::describe;
use crate::spans::session_span;

/// Keeps a Session until it is stopped, or the agent's thread has exited.
pub(crate) async fn run_control_link(link: ControlLink, stop: CancellationToken) {
    let mut backoff = ReconnectBackoff::new(link.timing);
    // Another replica's address is used once; the configured one is always the fallback.
    let mut leader: Option<String> = None;
    loop {
        let began = Instant::now();
        let at = leader.take();
        let span = session_span(&link.node);
        let ended = run_session(&link, at.as_deref(), &stop).instrument(span.clone()).await;
        link.session.send_replace(None);
        link.status.write_disconnected().await;
        backoff.settle(began.elapsed());
        let takes_advice = at.is_none() || link.timing.is_settled(began.elapsed());
        {
            let _entered = span.enter();
            match ended {
                SessionError::Stopped => return,
                SessionError::AgentGone => {
                    tracing::error!("the agent's thread has exited; closing the control link");
                    return;
                }
                SessionError::Refused(SessionRefusal::NotLeader { leader: Some(named) }) if takes_advice => {
                    tracing::info!(leader = named, "this operator does not lead; dialling the leader");
                    backoff.leaderless();
                    leader = Some(named);
                }
                SessionError::Refused(SessionRefusal::NotLeader { .. }) => {
                    tracing::info!("this operator does not lead, and no leader is known; will retry");
                    backoff.leaderless();
                }
                error => tracing::warn!(
                    operator = %link.dialer.endpoint,
                    category = error.category().as_str(),
                    retryable = error.is_retryable(),
                    error = describe(&error),
                    "no session; will retry"
                ),
            }
        }
        let wait = match &leader {
            Some(_) => backoff.advised(fastrand::f64()),
            None => backoff.next(fastrand::f64()),
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}
