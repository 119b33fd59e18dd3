//! The gateway as a whole: what every socket of every agent works with.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sentinel_core::lease::MAX_JUMP;
use sentinel_core::reconcile::ledger::Applied;
use sentinel_core::time::Monotonic;
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, SessionId};
use sentinel_protocol::limits::{DEAD_AFTER_MS, HEARTBEAT_MS, HELLO_WITHIN_MS};
use sentinel_protocol::refusal::{Refusal, SessionRefusal};
use sentinel_protocol::to_operator::{Heartbeat, Inventory, Refused, Report};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::{AgentIdentity, AuthError, Authenticate};
use super::books::{Books, Standing};
use super::counts::GatewayMetrics;
use super::registry::{MAX_OWNED, MAX_OWNED_BYTES, Registry, Sample, TooMany};
use super::results::Results;
use super::seats::{Room, Seat, Seats, Socket};
use super::session;
use crate::controller::Moments;
use crate::logs::Hub;
use crate::metrics::Registry as MetricsRegistry;
use crate::presence::PresenceRecord;

/// The times of the gateway.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How often agents say that they are there.
    pub heartbeat: Duration,
    /// Silence after which a connection is dead.
    pub dead_after: Duration,
    /// Time for the first message.
    pub hello_within: Duration,
    /// How often the token of a standing Session is reviewed again, give or take a quarter.
    pub review_every: Duration,
    /// How long a log socket may wait for memory before it is closed.
    pub room_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(HEARTBEAT_MS),
            dead_after: Duration::from_millis(DEAD_AFTER_MS),
            hello_within: Duration::from_millis(HELLO_WITHIN_MS),
            review_every: Duration::from_mins(1),
            room_within: Duration::from_secs(5),
        }
    }
}

/// What the gateway is made of.
pub struct GatewayParts {
    /// The times.
    pub settings: Settings,
    /// Who agents are.
    pub auth: Arc<dyn Authenticate>,
    /// Which are connected.
    pub registry: Registry,
    /// Who must know what they say.
    pub books: Arc<dyn Books>,
    /// Where results go.
    pub results: Arc<Results>,
    /// Where output goes.
    pub hub: Hub,
    /// Told of every Heartbeat; never waits.
    pub presence: Box<dyn Fn(PresenceRecord) + Send + Sync>,
    /// The clocks of this process.
    pub moments: Moments,
    /// Where to count.
    pub metrics: MetricsRegistry,
}

/// The gateway. Cloning it gives the same one.
#[derive(Clone)]
pub struct Gateway(Arc<Shared>);

struct Shared {
    parts: GatewayParts,
    counts: GatewayMetrics,
    declines: Mutex<Option<SessionRefusal>>,
    seats: Seats,
    sockets: TaskTracker,
    cut: CancellationToken,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("settings", &self.0.parts.settings).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Puts it together. It is reached through [`super::routes::agent`].
    pub fn new(parts: GatewayParts) -> Self {
        let counts = GatewayMetrics::new(&parts.metrics);
        parts.registry.set_initial_credit(parts.hub.initial_credit());
        Self(Arc::new(Shared {
            parts,
            counts,
            declines: Mutex::default(),
            seats: Seats::default(),
            sockets: TaskTracker::new(),
            cut: CancellationToken::new(),
        }))
    }

    /// Which agents are connected.
    pub fn registry(&self) -> &Registry {
        &self.0.parts.registry
    }

    /// What it counts.
    pub fn metrics(&self) -> &GatewayMetrics {
        &self.0.counts
    }

    /// From now on new Sessions are declined for this reason (not the leader, stopping), and those that stand end with
    /// it; `None` accepts them again.
    pub fn decline(&self, refusal: Option<SessionRefusal>) {
        self.0.declines.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&refusal);
        if let Some(refusal) = refusal {
            self.registry().end_all(&refusal);
        }
    }

    /// New Sessions are accepted, unless the operator stops.
    pub fn accept(&self) {
        let mut declines = self.0.declines.lock().unwrap_or_else(PoisonError::into_inner);
        if *declines != Some(SessionRefusal::Stopping) {
            *declines = None;
        }
    }

    /// New Sessions are declined, since another operator leads; unless this one stops, which is said instead.
    pub fn decline_as_follower(&self, refusal: SessionRefusal) {
        if self.declines() != Some(SessionRefusal::Stopping) {
            self.decline(Some(refusal));
        }
    }

    /// Tells every agent that the operator stops, or, where that is known, who leads in its place; then waits for their
    /// sockets to close, for at most `within`.
    pub async fn stop(&self, within: Duration, successor: Option<String>) {
        *self.0.declines.lock().unwrap_or_else(PoisonError::into_inner) = Some(SessionRefusal::Stopping);
        let farewell = match successor {
            Some(leader) => SessionRefusal::NotLeader { leader: Some(leader) },
            None => SessionRefusal::Stopping,
        };
        self.registry().end_all(&farewell);
        self.0.sockets.close();
        if tokio::time::timeout(within, self.0.sockets.wait()).await.is_err() {
            self.0.cut.cancel();
            self.0.sockets.wait().await;
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.0.parts.settings
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.0.parts.hub
    }

    /// Runs a socket, owned by the gateway.
    pub(super) fn spawn(&self, socket: BoxFuture<'static, ()>) {
        let cut = self.0.cut.clone();
        self.0.sockets.spawn(async move {
            tokio::select! {
                () = socket => {}
                () = cut.cancelled() => {}
            }
        });
    }

    pub(super) fn declines(&self) -> Option<SessionRefusal> {
        self.0.declines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn moment(&self) -> Monotonic {
        self.0.parts.moments.moment()
    }

    pub(super) fn new_session_id() -> SessionId {
        let id = uuid::Uuid::new_v4().simple().to_string();
        #[expect(clippy::expect_used, reason = "32 hexadecimal digits were just written")]
        SessionId::new(id).expect("a UUID is a session id")
    }

    /// About `time`: between three and five quarters of it, so that many do not do the same at once.
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

    /// A seat for one more socket of this agent; its oldest has to go where it has too many.
    pub(super) fn seat(&self, node: &NodeName, socket: Socket) -> Seat {
        let (seat, room) = self.0.seats.take(node, socket);
        if room == Room::Made {
            self.0.counts.too_many_sockets.note(|count| {
                tracing::warn!(%node, ?socket, count, "security: an agent opens more sockets than it may have");
            });
        }
        seat
    }

    /// An agent names an epoch that it has seen. One that cannot have been led is not believed, and ends the Session:
    /// one agent must not carry the epoch of the whole fleet to its end.
    pub(super) fn hear_epoch(&self, node: &NodeName, named: Epoch) -> Result<(), SessionRefusal> {
        if self.registry().heard_of_epoch(named) {
            return Ok(());
        }
        let ours = self.registry().epoch();
        self.0.counts.epoch_jumps.note(|count| {
            tracing::error!(
                %node, %named, %ours, count,
                "security: an agent names an epoch that no leader can have had; its session is refused"
            );
        });
        let message = format!(
            "it names epoch {named}, and this operator leads with {ours}: at most {MAX_JUMP} more is believed; \
             see \"A poisoned epoch\" in docs/security.md"
        );
        Err(SessionRefusal::WrongState { message: message.into() })
    }

    /// A message of this agent was begun and not finished in time.
    pub(super) fn slow_message(&self, node: &NodeName) -> session::Ended {
        self.0.counts.slow_messages.note(|count| {
            tracing::warn!(%node, count, "security: an agent began a message and did not finish it in time");
        });
        session::Ended::Silent
    }

    /// Whether output of this Attempt may be taken: the agent has reported it, or it may have been started.
    pub(super) fn knows(&self, attempt: &AttemptId) -> bool {
        self.registry().report(attempt).is_some()
            || self.0.parts.books.standing(attempt, None) == Standing::Started
    }

    pub(super) fn heartbeat(&self, node: &NodeName, session: &SessionId, heartbeat: Heartbeat) {
        self.0.counts.heartbeats.add(1);
        let at = self.0.parts.moments.now().wall;
        let metrics = Arc::new(heartbeat.metrics);
        let sample = Sample { at, metrics: metrics.clone() };
        let Some(hello) = self.registry().sampled(node, session, sample) else { return };
        (self.0.parts.presence)(PresenceRecord {
            node: node.clone(),
            session: session.clone(),
            last_seen: at,
            agent_version: hello.agent_version.to_string(),
            boot_id: hello.boot_id.to_string(),
            metrics: Arc::unwrap_or_clone(metrics),
        });
    }

    pub(super) fn report(
        &self,
        node: &NodeName,
        session: &SessionId,
        report: &Report,
    ) -> Result<(), SessionRefusal> {
        if let Some(report) = self.note(node, session, report)? {
            // Before its Inventory is complete a Session does not count, and its reports are taken in with the Inventory.
            self.0.parts.results.report(&report);
        }
        Ok(())
    }

    pub(super) fn inventory(
        &self,
        node: &NodeName,
        session: &SessionId,
        part: &Inventory,
    ) -> Result<(), SessionRefusal> {
        for report in &part.attempts {
            self.note(node, session, report)?;
        }
        if part.more {
            return Ok(());
        }
        let Some(reports) = self.registry().owned_by(node, session) else { return Ok(()) };
        self.0.parts.books.inventory(node, session, &reports);
        self.registry().inventoried(node, session);
        self.0.parts.books.agent_changed(node);
        for report in &reports {
            self.0.parts.results.report(report);
        }
        Ok(())
    }

    /// An agent declined a `Start`.
    pub(super) fn refused(&self, node: &NodeName, refused: &Refused) -> Result<(), SessionRefusal> {
        self.own(node, &refused.attempt)?;
        self.0.counts.declined.add(1);
        if let Refusal::StaleEpoch { seen } = refused.refusal {
            self.hear_epoch(node, seen)?;
        }
        let now = self.0.parts.moments.now().wall;
        let told = self.0.parts.books.refused(refused, now);
        if told == Some(Applied::NeverDispatched) {
            self.unstarted(node, &refused.attempt);
            return Ok(());
        }
        if told == Some(Applied::Changed) {
            tracing::info!(attempt = %refused.attempt, refusal = %refused.refusal, "an agent declined a Start");
        }
        Ok(())
    }

    /// A Session ended.
    pub(super) fn ended(&self, node: &NodeName, session: &SessionId) {
        if self.registry().end(node, session) {
            self.0.parts.books.agent_changed(node);
        }
    }

    pub(super) fn count(&self, ended: &session::Ended) {
        let counts = &self.0.counts;
        match ended {
            session::Ended::Gone => {}
            session::Ended::Silent => counts.silent.add(1),
            session::Ended::NotReading => counts.not_reading.add(1),
            session::Ended::Refused(refusal) => match refusal {
                SessionRefusal::Replaced => counts.replaced.add(1),
                SessionRefusal::Version { .. } => counts.version.add(1),
                SessionRefusal::Unauthenticated => counts.expired.add(1),
                SessionRefusal::NotLeader { .. } | SessionRefusal::Stopping => {}
                SessionRefusal::HelloExpected
                | SessionRefusal::Malformed { .. }
                | SessionRefusal::WrongState { .. } => counts.malformed.add(1),
            },
        }
    }

    /// An Attempt of another node is none of this agent's business.
    pub(super) fn own(&self, node: &NodeName, attempt: &AttemptId) -> Result<(), SessionRefusal> {
        if attempt.node == *node {
            return Ok(());
        }
        self.0.counts.foreign.note(|count| {
            tracing::warn!(%node, %attempt, count, "security: an agent speaks for another node");
        });
        let message = format!("attempt {attempt} is of another node than this agent's, {node}");
        Err(SessionRefusal::WrongState { message: message.into() })
    }

    /// Takes note of a Report; gives it back as far as it is believed, and not at all when it is not kept.
    fn note(
        &self,
        node: &NodeName,
        session: &SessionId,
        report: &Report,
    ) -> Result<Option<Report>, SessionRefusal> {
        self.own(node, &report.attempt)?;
        self.0.counts.reports.add(1);
        if self.0.parts.books.standing(&report.attempt, Some(&report.spec_hash)) == Standing::Unstarted {
            self.unstarted(node, &report.attempt);
            return Ok(None);
        }
        let report = self.0.parts.results.believed(report);
        let noted = self.registry().reported(node, session, report.clone());
        noted.map(|()| Some(report)).map_err(|TooMany| {
            let message = format!(
                "the attempts of one agent are more than {MAX_OWNED}, or take more than {MAX_OWNED_BYTES} bytes"
            );
            SessionRefusal::Malformed { message: message.into() }
        })
    }

    fn unstarted(&self, node: &NodeName, attempt: &AttemptId) {
        self.0.counts.unstarted.note(|count| {
            tracing::warn!(
                %node, %attempt, count,
                "security: an agent reports an attempt that was never started; the report is not kept"
            );
        });
    }
}
