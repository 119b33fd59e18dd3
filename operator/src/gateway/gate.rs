//! The gateway: what the sockets of all agents share, and its life from start to stop.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sentinel_core::time::{Monotonic, Now};
use sentinel_protocol::ids::{NodeName, SessionId};
use sentinel_protocol::refusal::SessionRefusal;
use tokio_util::task::TaskTracker;

use super::auth::{AgentIdentity, Authenticate};
use super::ledger_sink::LedgerSink;
use super::metrics::GatewayMetrics;
use super::registry::Registry;
use super::results::Results;
use super::settings::Settings;
use super::socket_slots::{SocketKind, SocketSlot, SocketSlots};
use crate::audit::Audit;
use crate::clock::Clock;
use crate::identity::AuthError;
use crate::logs::Hub;
use crate::metrics::Registry as MetricsRegistry;
use crate::presence::PresenceRecord;

/// How long sockets get that are aborted.
const ABORT_WITHIN: Duration = Duration::from_secs(2);

/// What the gateway is made of.
pub struct GatewayParts {
    /// Its timeouts.
    pub settings: Settings,
    /// Authenticates agents.
    pub auth: Arc<dyn Authenticate>,
    /// The connected agents.
    pub registry: Registry,
    /// The controller's ledgers, which take in what agents report.
    pub ledgers: Arc<dyn LedgerSink>,
    /// Archives results.
    pub results: Arc<Results>,
    /// Takes output.
    pub hub: Hub,
    /// Called with every Heartbeat; must not block.
    pub presence: Box<dyn Fn(PresenceRecord) + Send + Sync>,
    /// Where heads of agents' chains are recorded.
    pub audit: Audit,
    /// The clocks of this process.
    pub clock: Clock,
    /// Where to register metrics.
    pub metrics: MetricsRegistry,
}

/// The gateway. Cloning it gives the same one.
#[derive(Clone)]
pub struct Gateway(Arc<GatewayState>);

struct GatewayState {
    parts: GatewayParts,
    metrics: GatewayMetrics,
    /// Why new Sessions are declined.
    declines: Mutex<Option<SessionRefusal>>,
    slots: SocketSlots,
    sockets: TaskTracker,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("settings", &self.0.parts.settings).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Assembles it. Agents reach it through [`super::routes::agent`].
    pub fn new(parts: GatewayParts) -> Self {
        let metrics = GatewayMetrics::new(&parts.metrics);
        parts.registry.set_initial_credit(parts.hub.initial_credit());
        Self(Arc::new(GatewayState {
            parts,
            metrics,
            declines: Mutex::default(),
            slots: SocketSlots::default(),
            sockets: TaskTracker::new(),
        }))
    }

    /// The connected agents.
    pub fn registry(&self) -> &Registry {
        &self.0.parts.registry
    }

    /// Its metrics.
    pub fn metrics(&self) -> &GatewayMetrics {
        &self.0.metrics
    }

    /// From now on declines new Sessions for this reason (not the leader, stopping), and ends the current ones with it;
    /// `None` accepts them again.
    pub fn decline(&self, refusal: Option<SessionRefusal>) {
        self.lock_declines().clone_from(&refusal);
        if let Some(refusal) = refusal {
            self.registry().end_all(&refusal);
        }
    }

    /// Accepts new Sessions, unless the operator is stopping.
    pub fn accept(&self) {
        let mut declines = self.lock_declines();
        if *declines != Some(SessionRefusal::Stopping) {
            *declines = None;
        }
    }

    /// Declines new Sessions, since another operator leads; unless this one is stopping, which takes precedence.
    pub fn decline_as_follower(&self, refusal: SessionRefusal) {
        if self.declines() != Some(SessionRefusal::Stopping) {
            self.decline(Some(refusal));
        }
    }

    /// Refuses every agent, since the operator stops, and names the next leader where it is known; then waits `within`
    /// for their sockets to close, and drops the rest.
    pub async fn stop(&self, within: Duration, successor: Option<String>) {
        *self.lock_declines() = Some(SessionRefusal::Stopping);
        let refusal = match successor {
            Some(leader) => SessionRefusal::NotLeader { leader: Some(leader) },
            None => SessionRefusal::Stopping,
        };
        self.registry().end_all(&refusal);
        self.0.sockets.close();
        if tokio::time::timeout(within, self.0.sockets.wait()).await.is_err() {
            self.0.slots.close_all();
            // Nothing that a socket still waits for may hold up the exit.
            if tokio::time::timeout(ABORT_WITHIN, self.0.sockets.wait()).await.is_err() {
                tracing::warn!(sockets = self.0.sockets.len(), "sockets did not close in time; left open");
            }
        }
    }

    pub(super) fn parts(&self) -> &GatewayParts {
        &self.0.parts
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.0.parts.settings
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.0.parts.hub
    }

    /// Runs the task of a socket, tracked by the gateway, until it ends or its slot is taken. A panic closes that socket
    /// alone, and is counted.
    pub(super) fn spawn(&self, slot: SocketSlot, socket: impl FnOnce(SocketSlot) -> BoxFuture<'static, ()>) {
        let panics = self.0.metrics.socket_panics.clone();
        self.0.slots.run(slot, |slot| {
            let socket = AssertUnwindSafe(socket(slot)).catch_unwind();
            let running = self.0.sockets.spawn(async move {
                if socket.await.is_err() {
                    panics.add(1);
                    tracing::error!("the task of an agent's socket panicked; the socket is closed");
                }
            });
            running.abort_handle()
        });
    }

    /// Why new Sessions are declined, if they are.
    pub(super) fn declines(&self) -> Option<SessionRefusal> {
        self.lock_declines().clone()
    }

    pub(super) fn monotonic(&self) -> Monotonic {
        self.0.parts.clock.monotonic()
    }

    pub(super) fn now(&self) -> Now {
        self.0.parts.clock.reading()
    }

    pub(super) fn new_session_id() -> SessionId {
        let id = uuid::Uuid::new_v4().simple().to_string();
        #[expect(clippy::expect_used, reason = "32 hexadecimal digits were just written")]
        SessionId::new(id).expect("a UUID is a session id")
    }

    /// Between three and five quarters of `time`, so that a fleet does not act in step.
    pub(super) fn jittered(time: Duration) -> Duration {
        let random = (uuid::Uuid::new_v4().as_u128() & 0xffff) as f64 / 65536.0;
        time.mul_f64(0.75 + random / 2.0)
    }

    pub(super) fn authenticate<'a>(
        &'a self,
        bearer: &'a str,
        from: Option<IpAddr>,
    ) -> BoxFuture<'a, Result<AgentIdentity, AuthError>> {
        self.0.parts.auth.agent_at(bearer, from)
    }

    /// A slot for another socket of this agent; at the limit its oldest socket of the kind is closed.
    pub(super) fn socket_slot(&self, node: &NodeName, kind: SocketKind) -> SocketSlot {
        let slot = self.0.slots.take(node, kind);
        if slot.evicted_oldest {
            self.0.metrics.security.too_many_sockets.note(|count| {
                tracing::warn!(%node, ?kind, count, "security: an agent opens more sockets than it may");
            });
        }
        slot
    }

    fn lock_declines(&self) -> MutexGuard<'_, Option<SessionRefusal>> {
        self.0.declines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
