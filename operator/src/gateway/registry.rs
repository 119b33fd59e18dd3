//! Which agents are connected, what they own, and when they were last seen.
//!
//! This is what decisions read about the fleet; the Presence store mirrors it for others. The parts: [`SessionTable`]
//! holds the Session of each node, [`AttemptIndex`] what its agent owns, [`SessionTerms`] epoch and initial credit.
//! A node is added when its agent first connects, and removed by [`Registry::remove_departed`].

use std::convert::Infallible;
use std::sync::Arc;

use sentinel_core::reconcile::rollout::{ActiveAttempt, AgentFacts};
use sentinel_core::samples::{Point, SLOTS};
use sentinel_core::time::{Monotonic, Now};
use sentinel_protocol::codec::encode_text;
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, RunNumber, SessionId, TaskUid};
use sentinel_protocol::metrics::NodeMetrics;
use sentinel_protocol::refusal::SessionRefusal;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::ToAgent;
use sentinel_protocol::to_operator::{Hello, Report};
use sentinel_protocol::version::{self, Version};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::attempt_index::{AttemptIndex, TooMany};
pub use super::attempt_index::{MAX_ORPHANS, MAX_OWNED, MAX_OWNED_BYTES, OwnedAttempt};
use super::late_messages::LateMessages;
use super::outbox::{CloseReason, NotQueued, Outbox, Waits};
pub use super::session_table::{InventoryState, Sample};
use super::session_table::{LiveSession, NodeEntry, SessionTable};
use super::session_terms::SessionTerms;
use crate::controller::fleet::Owned;

/// All agents that have connected. Cloning it gives the same registry.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<RegistryState>);

#[derive(Debug, Default)]
struct RegistryState {
    sessions: SessionTable,
    terms: SessionTerms,
    late: LateMessages,
    /// An Attempt without a ledger was reported or archived.
    orphans: Notify,
}

/// A Session, for readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// Its id.
    pub session: SessionId,
    /// Whether the agent has sent its whole Inventory.
    pub inventory: InventoryState,
    /// Number of Attempts that the agent owns.
    pub owned: usize,
}

/// An agent, for readers.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentView {
    /// Its node.
    pub node: NodeName,
    /// Its current Session.
    pub session: Option<SessionView>,
    /// When this operator last received a frame from it; `None` when it never did.
    pub last_seen: Option<Monotonic>,
    /// Its latest Hello.
    pub hello: Option<Arc<Hello>>,
    /// The latest metrics of its node.
    pub sample: Option<Sample>,
    /// What is added to its node's time to have that of the operator, milliseconds, as measured last.
    pub clock_offset_millis: Option<i64>,
}

/// The terms of Sessions.
impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The epoch that agents are welcomed with.
    pub fn epoch(&self) -> Epoch {
        self.0.terms.epoch()
    }

    /// Sets the epoch, when this operator becomes the leader.
    pub fn set_epoch(&self, epoch: Epoch) {
        self.0.terms.set_epoch(epoch);
    }

    /// The highest credible epoch that any agent has reported.
    pub fn highest_epoch(&self) -> Epoch {
        self.0.terms.highest_epoch()
    }

    /// Takes in an epoch that an agent reports; `false`, and no change, when no leader can have had it.
    pub(super) fn observe_epoch(&self, epoch: Epoch) -> bool {
        self.0.terms.observe_epoch(epoch)
    }

    /// Position up to which an agent may send output of a new Attempt before it receives Credit; 0 unless set.
    pub fn initial_credit(&self) -> u64 {
        self.0.terms.initial_credit()
    }

    /// See [`Registry::initial_credit`].
    pub fn set_initial_credit(&self, credit: u64) {
        self.0.terms.set_initial_credit(credit);
    }
}

/// Agents and their Sessions.
impl Registry {
    /// Every known agent, by node.
    pub fn agents(&self) -> Vec<AgentView> {
        let entries = self.0.sessions.all();
        let mut views: Vec<AgentView> =
            entries.iter().map(|(name, entry)| view(name.clone(), entry)).collect();
        views.sort_unstable_by(|a, b| a.node.cmp(&b.node));
        views
    }

    /// The agent of a node; `None` when it is not known.
    pub fn agent(&self, node: &NodeName) -> Option<AgentView> {
        Some(view(node.clone(), &*self.0.sessions.find(node)?))
    }

    /// The metrics of a node over the last 15 minutes, oldest first, as far as this operator has received them; `None` when
    /// it has received none. See [`SampleRing::read`](sentinel_core::samples::SampleRing::read).
    pub fn samples(&self, node: &NodeName, now: Monotonic) -> Option<[Option<Point>; SLOTS]> {
        let entry = self.0.sessions.find(node)?;
        let state = entry.lock();
        Some(state.samples.as_ref()?.read(now))
    }

    /// The Session of a node, once its Inventory is complete.
    pub fn active_session(&self, node: &NodeName) -> Option<SessionId> {
        let entry = self.0.sessions.find(node)?;
        let state = entry.lock();
        state.active().map(|live| live.session.clone())
    }

    /// What decisions read of the agent of a node, and of this Task on it.
    pub(super) fn facts_for(&self, task: Option<&TaskUid>, node: &NodeName) -> AgentFacts {
        let Some(entry) = self.0.sessions.find(node) else { return AgentFacts::default() };
        let state = entry.lock();
        let session = state.active().map(|live| live.session.clone());
        let active = task.and_then(|task| state.live.as_ref()?.owned.active_of(task));
        AgentFacts { session, last_seen: entry.last_seen(), active, ..AgentFacts::default() }
    }

    /// When the last frame of a node's agent was received.
    pub fn last_seen(&self, node: &NodeName) -> Option<Monotonic> {
        self.0.sessions.find(node)?.last_seen()
    }

    /// What is added to a node's time to have that of the operator, milliseconds, as measured last.
    pub fn clock_offset_millis(&self, node: &NodeName) -> Option<i64> {
        self.0.sessions.find(node)?.lock().clock.millis()
    }

    /// A heartbeat that was sent at that time by the node's clock was received.
    pub(super) fn note_clock(
        &self,
        node: &NodeName,
        session: &SessionId,
        sent: UnixMillis,
        received: UnixMillis,
    ) {
        let Some(entry) = self.0.sessions.find(node) else { return };
        let mut state = entry.lock();
        if state.current(session).is_some() {
            state.clock.add(sent, received);
        }
    }

    /// The protocol version of the current Session of a node.
    pub fn protocol_version(&self, node: &NodeName) -> Option<Version> {
        let entry = self.0.sessions.find(node)?;
        let state = entry.lock();
        let hello = state.hello.as_ref().filter(|_| state.live.is_some())?;
        version::choose(&hello.versions, version::SPOKEN)
    }

    /// Number of known nodes.
    pub fn len(&self) -> usize {
        self.0.sessions.count(|_| true)
    }

    /// Whether no node is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of nodes with a Session whose agent was last seen at a time for which `is_recent` holds.
    pub fn count_reachable(&self, is_recent: impl Fn(Monotonic) -> bool) -> usize {
        let is_reachable =
            |entry: &NodeEntry| entry.last_seen().is_some_and(&is_recent) && entry.lock().live.is_some();
        self.0.sessions.count(is_reachable)
    }

    /// The sum of a number over the latest samples of all nodes with a Session.
    pub fn sum_of_samples(&self, number: impl Fn(&NodeMetrics) -> u64) -> u64 {
        let of = |entry: &NodeEntry| {
            let state = entry.lock();
            state.live.as_ref()?;
            state.sample.as_ref().map(|sample| number(&sample.metrics))
        };
        self.0.sessions.all().iter().filter_map(|(_, entry)| of(entry)).sum()
    }

    /// How long ago the most silent of the agents with a Session was last received from, milliseconds; 0 without any.
    pub fn longest_silence(&self, now: Monotonic) -> u64 {
        let silence = |entry: &NodeEntry| {
            let is_connected = entry.lock().live.is_some();
            entry.last_seen().filter(|_| is_connected).map(|seen| now.since(seen))
        };
        self.0.sessions.all().iter().filter_map(|(_, entry)| silence(entry)).max().unwrap_or_default()
    }

    /// Whether this Session is the current one of its node.
    pub fn is_current(&self, node: &NodeName, session: &SessionId) -> bool {
        self.0.sessions.find(node).is_some_and(|entry| entry.lock().current(session).is_some())
    }

    /// Queues a message for the Session of a node; returns the Session that took it, `None` when there is none or its
    /// queue is full.
    pub fn send(&self, node: &NodeName, message: &ToAgent) -> Option<SessionId> {
        self.queue(node, message, |outbox, text| outbox.push(text))
    }

    /// The same for a message in no hurry. It is sent with the next one, or by [`Registry::send_late_messages`].
    pub(super) fn send_later(&self, node: &NodeName, message: &ToAgent) -> Option<SessionId> {
        self.queue(node, message, |outbox, text| {
            if outbox.push_later(text)? == Waits::ForFlush {
                self.0.late.add(outbox.clone());
            }
            Ok(())
        })
    }

    /// Sends the messages in no hurry, each after a while.
    pub(super) async fn send_late_messages(&self) -> Infallible {
        self.0.late.run().await
    }

    fn queue(
        &self,
        node: &NodeName,
        message: &ToAgent,
        push: impl FnOnce(&Arc<Outbox>, Utf8Bytes) -> Result<(), NotQueued>,
    ) -> Option<SessionId> {
        self.queue_if(node, message, |_| true, push)
    }

    /// Queues a message for the Session of a node, if it is one that takes it.
    pub(super) fn queue_if(
        &self,
        node: &NodeName,
        message: &ToAgent,
        takes_it: impl FnOnce(&LiveSession) -> bool,
        push: impl FnOnce(&Arc<Outbox>, Utf8Bytes) -> Result<(), NotQueued>,
    ) -> Option<SessionId> {
        let entry = self.0.sessions.find(node)?;
        let text = match encode_text(message) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%node, %error, "failed to encode a message to an agent");
                return None;
            }
        };
        let mut state = entry.lock();
        let live = state.live.as_mut().filter(|live| takes_it(live))?;
        push(&live.outbox, text.into()).ok()?;
        if let ToAgent::Forget(forget) = message {
            live.owned.forget(&forget.attempt);
        }
        Some(live.session.clone())
    }

    /// Ends every Session.
    pub fn end_all(&self, refusal: &SessionRefusal) {
        for (_, entry) in self.0.sessions.all() {
            if let Some(live) = &entry.lock().live {
                live.outbox.close(CloseReason::Refused(refusal.clone()));
            }
        }
    }

    /// Removes the nodes without a Session for which `is_departed` holds, given when their agents were last seen;
    /// returns how many. It is called without a lock.
    pub fn remove_departed(&self, is_departed: impl Fn(&NodeName, Option<Monotonic>) -> bool) -> usize {
        let idle = self.0.sessions.all().into_iter().filter(|(_, entry)| entry.lock().live.is_none());
        let departed = idle
            .map(|(node, entry)| (node, entry.last_seen()))
            .filter(|(node, last_seen)| is_departed(node, *last_seen));
        departed.filter(|(node, last_seen)| self.0.sessions.remove_idle(node, *last_seen)).count()
    }

    /// Begins a Session and ends the previous one of the same node; returns its outbox, and whether there was one.
    pub(super) fn begin(
        &self,
        node: &NodeName,
        session: SessionId,
        hello: Hello,
        now: Now,
    ) -> (Arc<Outbox>, bool) {
        let outbox = Arc::new(Outbox::default());
        let live = LiveSession {
            session,
            outbox: outbox.clone(),
            inventory: InventoryState::Pending,
            sealing_key: None,
            owned: AttemptIndex::default(),
        };
        let replaced = self.0.sessions.begin(node, live, hello, now);
        if let Some(replaced) = &replaced {
            replaced.outbox.close(CloseReason::Refused(SessionRefusal::Replaced));
        }
        (outbox, replaced.is_some())
    }

    /// Ends a Session; returns whether it was the current one.
    pub(super) fn end(&self, node: &NodeName, session: &SessionId) -> bool {
        let Some(entry) = self.0.sessions.find(node) else { return false };
        let mut state = entry.lock();
        let was_current = state.current(session).is_some();
        if was_current {
            state.live = None;
        }
        was_current
    }

    /// What is known of a node's agent. An entry stays the node's for as long as a Session of it lasts.
    pub(super) fn entry(&self, node: &NodeName) -> Option<Arc<NodeEntry>> {
        self.0.sessions.find(node)
    }

    /// Takes in the metrics of a Heartbeat, if its Session is the current one; returns the Hello of that Session.
    pub(super) fn record_sample(
        &self,
        node: &NodeName,
        session: &SessionId,
        now: Monotonic,
        sample: Sample,
    ) -> Option<Arc<Hello>> {
        let entry = self.0.sessions.find(node)?;
        let mut state = entry.lock();
        state.current(session)?;
        state.record(now, sample);
        state.hello.clone()
    }
}

/// Attempts that agents own.
impl Registry {
    /// What connected agents own of a Task. Every agent with a complete Inventory is in the answer.
    pub fn owned_of(&self, task: &TaskUid) -> Vec<Owned> {
        let owned_of = |(node, entry): (NodeName, Arc<NodeEntry>)| {
            let state = entry.lock();
            let live = state.active()?;
            let reports = live.owned.reports().filter(|r| r.attempt.task == *task).cloned().collect();
            Some(Owned { node, session: live.session.clone(), reports })
        };
        self.0.sessions.all().into_iter().filter_map(owned_of).collect()
    }

    /// The latest Attempt of this Task on the node that has not ended.
    pub fn active_attempt(&self, task: &TaskUid, node: &NodeName) -> Option<ActiveAttempt> {
        let entry = self.0.sessions.find(node)?;
        let state = entry.lock();
        state.live.as_ref()?.owned.active_of(task)
    }

    /// The number of the latest Attempt of an Execution that the connected agent of its node owns.
    pub fn latest_attempt(&self, task: &TaskUid, run: RunNumber, node: &NodeName) -> Option<u32> {
        let entry = self.0.sessions.find(node)?;
        let state = entry.lock();
        let attempts = state.live.as_ref()?.owned.reports().map(|report| &report.attempt);
        attempts
            .filter(|attempt| attempt.task == *task && attempt.run == run)
            .map(|attempt| attempt.attempt)
            .max()
    }

    /// All Attempts that connected agents own.
    pub fn all_owned(&self) -> Vec<OwnedAttempt> {
        let mut all = Vec::new();
        for (_, entry) in self.0.sessions.all() {
            let state = entry.lock();
            all.extend(state.live.iter().flat_map(|live| live.owned.summaries()));
        }
        all
    }

    /// An Attempt without a ledger was reported or archived: there may be something to do about it.
    pub(super) fn note_orphan(&self) {
        self.0.orphans.notify_one();
    }

    /// Waits for [`Registry::note_orphan`]; returns at once when it was called since the last wait.
    pub(super) async fn orphan_noted(&self) {
        self.0.orphans.notified().await;
    }

    /// Drops the ended Attempts of deleted Tasks beyond [`MAX_ORPHANS`] per agent; returns how many.
    pub(super) fn drop_orphans(&self, is_gone: impl Fn(&TaskUid) -> bool) -> usize {
        let drop_of = |(_, entry): (NodeName, Arc<NodeEntry>)| {
            entry.lock().live.as_mut().map_or(0, |live| live.owned.drop_orphans(&is_gone))
        };
        self.0.sessions.all().into_iter().map(drop_of).sum()
    }

    /// History holds this Attempt up to this stage.
    pub(super) fn note_archived(&self, attempt: &AttemptId, stage: Stage) {
        let Some(entry) = self.0.sessions.find(&attempt.node) else { return };
        if let Some(live) = entry.lock().live.as_mut() {
            live.owned.note_archived(attempt, stage);
        }
    }

    /// Takes in a Report, if its Session is the current one.
    pub(super) fn apply_report(
        &self,
        node: &NodeName,
        session: &SessionId,
        report: Report,
    ) -> Result<(), TooMany> {
        let Some(entry) = self.0.sessions.find(node) else { return Ok(()) };
        let mut state = entry.lock();
        state.current(session).map_or(Ok(()), |live| live.owned.apply(report))
    }

    /// All Reports that were received in this Session, if it is the current one.
    pub(super) fn reports_in(&self, node: &NodeName, session: &SessionId) -> Option<Vec<Report>> {
        let entry = self.0.sessions.find(node)?;
        let mut state = entry.lock();
        Some(state.current(session)?.owned.reports().cloned().collect())
    }

    /// The last part of an Inventory was received: the Session is active from now on.
    pub(super) fn complete_inventory(&self, node: &NodeName, session: &SessionId) {
        let Some(entry) = self.0.sessions.find(node) else { return };
        if let Some(live) = entry.lock().current(session) {
            live.inventory = InventoryState::Complete;
        }
    }

    /// The latest Report of an Attempt by the connected agent that owns it.
    pub fn report(&self, attempt: &AttemptId) -> Option<Report> {
        let entry = self.0.sessions.find(&attempt.node)?;
        let state = entry.lock();
        state.live.as_ref()?.owned.report(attempt).cloned()
    }

    /// Whether the agent of its node is connected, its Inventory is complete, and the Attempt is not in it: then no more
    /// of its output will arrive.
    pub fn is_released(&self, attempt: &AttemptId) -> bool {
        let Some(entry) = self.0.sessions.find(&attempt.node) else { return false };
        let state = entry.lock();
        state.active().is_some_and(|live| live.owned.report(attempt).is_none())
    }
}

fn view(node: NodeName, entry: &NodeEntry) -> AgentView {
    let state = entry.lock();
    let session = state.live.as_ref().map(|live| SessionView {
        session: live.session.clone(),
        inventory: live.inventory,
        owned: live.owned.len(),
    });
    AgentView {
        node,
        session,
        last_seen: entry.last_seen(),
        hello: state.hello.clone(),
        sample: state.sample.clone(),
        clock_offset_millis: state.clock.millis(),
    }
}
