//! Which agents are connected, what they own, and when they were last heard of.
//!
//! This is what decisions read of the fleet; the Presence store is a mirror of it for others. Nodes are spread over
//! shards, a shard's map changes only when a node is seen for the first time or dropped, and nothing is ever awaited
//! under a lock.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use sentinel_core::lease;
use sentinel_core::reconcile::rollout::ActiveAttempt;
use sentinel_core::time::Monotonic;
use sentinel_protocol::codec::encode_text;
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, RunNumber, SessionId, SpecHash, TaskUid};
use sentinel_protocol::metrics::NodeMetrics;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::SessionRefusal;
use sentinel_protocol::text::MAX_MESSAGE;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::ToAgent;
use sentinel_protocol::to_operator::{Ended, Hello, Report, ReportedState, Stage};
use sentinel_protocol::version::{self, Version};

use super::outbox::{Ending, Outbox};
use crate::controller::fleet::Owned;

/// Attempts that one agent may own; an agent that claims more is refused.
pub const MAX_OWNED: usize = 10_000;

/// Bytes that what one agent owns may take here; an agent that claims more is refused.
pub const MAX_OWNED_BYTES: usize = 16 << 20;

/// Ended Attempts of Tasks that are gone that are kept of one agent; it says the others again once these are settled.
pub const MAX_STRAYS: usize = 256;

const SHARDS: usize = 32;

/// All agents that were heard of. Cloning it gives the same registry.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    shards: Vec<RwLock<HashMap<NodeName, Arc<Node>>>>,
    hasher: RandomState,
    epoch: AtomicU64,
    highest_epoch: AtomicU64,
    initial_credit: AtomicU64,
}

#[derive(Debug)]
struct Node {
    /// Milliseconds of the moment it was last heard of; 0 is never.
    last_seen: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    live: Option<Live>,
    hello: Option<Arc<Hello>>,
    sample: Option<Sample>,
}

/// The Session that stands.
#[derive(Debug)]
struct Live {
    session: SessionId,
    outbox: Arc<Outbox>,
    inventory: Inventory,
    owned: BTreeMap<AttemptId, Entry>,
    /// What `owned` takes, about, bytes.
    bytes: usize,
}

/// An Attempt that an agent owns.
#[derive(Debug)]
struct Entry {
    report: Report,
    /// How much of it History holds, as far as was heard in this Session.
    archived: Option<Stage>,
}

/// Whether an agent has said all that it owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inventory {
    /// Not yet.
    Awaited,
    /// It has.
    Complete,
}

/// A Session as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFacts {
    /// Its name.
    pub session: SessionId,
    /// Whether the agent has said all that it owns.
    pub inventory: Inventory,
    /// Attempts that it owns.
    pub owned: usize,
}

/// An agent as others see it.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentView {
    /// Its node.
    pub node: NodeName,
    /// Its Session, if one stands.
    pub session: Option<SessionFacts>,
    /// When this operator last heard of it; `None` when it never did.
    pub last_seen: Option<Monotonic>,
    /// How it introduced itself last.
    pub hello: Option<Arc<Hello>>,
    /// How its node did last.
    pub sample: Option<Sample>,
}

/// An Attempt that a connected agent owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedAttempt {
    /// Which.
    pub attempt: AttemptId,
    /// Digest of the spec it was started for.
    pub spec_hash: SpecHash,
    /// How far it has come.
    pub stage: Stage,
    /// How much of it History holds, as far as was heard since its agent connected.
    pub archived: Option<Stage>,
}

/// How a node did, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When this operator heard it, by the operator's wall clock.
    pub at: UnixMillis,
    /// What it heard.
    pub metrics: Arc<NodeMetrics>,
}

impl Default for Registry {
    fn default() -> Self {
        Self(Arc::new(Shared {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            epoch: AtomicU64::new(1),
            highest_epoch: AtomicU64::new(0),
            initial_credit: AtomicU64::new(0),
        }))
    }
}

impl Registry {
    /// Nobody was heard of.
    pub fn new() -> Self {
        Self::default()
    }

    /// The epoch that Sessions are welcomed with.
    pub fn epoch(&self) -> Epoch {
        Epoch::new(self.0.epoch.load(Ordering::Relaxed)).unwrap_or(Epoch::MAX)
    }

    /// Another leader began.
    pub fn set_epoch(&self, epoch: Epoch) {
        self.0.epoch.store(epoch.get(), Ordering::Relaxed);
    }

    /// The highest credible epoch that any agent says it has seen.
    pub fn highest_epoch(&self) -> Epoch {
        Epoch::new(self.0.highest_epoch.load(Ordering::Relaxed)).unwrap_or(Epoch::MAX)
    }

    /// An agent named this epoch; whether it can have been led. One that cannot changes nothing.
    pub(super) fn heard_of_epoch(&self, epoch: Epoch) -> bool {
        let credible = lease::is_credible(epoch, self.epoch());
        if credible {
            self.0.highest_epoch.fetch_max(epoch.get(), Ordering::Relaxed);
        }
        credible
    }

    /// Position up to which an agent may send output of a new Attempt before it was told anything; 0 unless set.
    pub fn initial_credit(&self) -> u64 {
        self.0.initial_credit.load(Ordering::Relaxed)
    }

    /// See [`Registry::initial_credit`].
    pub fn set_initial_credit(&self, credit: u64) {
        self.0.initial_credit.store(credit, Ordering::Relaxed);
    }

    /// Every agent that was heard of, by node.
    pub fn agents(&self) -> Vec<AgentView> {
        let mut views: Vec<AgentView> =
            self.nodes().iter().map(|(name, node)| node.view(name.clone())).collect();
        views.sort_unstable_by(|a, b| a.node.cmp(&b.node));
        views
    }

    /// The agent of a node; `None` when it was never heard of.
    pub fn agent(&self, name: &NodeName) -> Option<AgentView> {
        Some(self.find(name)?.view(name.clone()))
    }

    /// The Session of a node that has said all it owns, and when its agent was last heard of.
    pub fn standing(&self, name: &NodeName) -> (Option<SessionId>, Option<Monotonic>) {
        let Some(node) = self.find(name) else { return (None, None) };
        let live = node
            .lock()
            .live
            .as_ref()
            .filter(|live| live.inventory == Inventory::Complete)
            .map(|l| l.session.clone());
        (live, node.last_seen())
    }

    /// The protocol version that the live Session of a node speaks.
    pub fn version_of(&self, name: &NodeName) -> Option<Version> {
        let node = self.find(name)?;
        let state = node.lock();
        let hello = state.hello.as_ref().filter(|_| state.live.is_some())?;
        version::choose(&hello.versions, version::SPOKEN)
    }

    /// What connected agents own of a Task; every agent that completed its Inventory is in it.
    pub fn owned_of(&self, task: &TaskUid) -> Vec<Owned> {
        let nodes = self.nodes();
        let owned_of = |(name, node): &(NodeName, Arc<Node>)| {
            let state = node.lock();
            let live = state.live.as_ref().filter(|live| live.inventory == Inventory::Complete)?;
            let reports = live
                .owned
                .values()
                .map(|entry| &entry.report)
                .filter(|r| r.attempt.task == *task)
                .cloned()
                .collect();
            Some(Owned { node: name.clone(), session: live.session.clone(), reports })
        };
        nodes.iter().filter_map(owned_of).collect()
    }

    /// The latest Attempt of this Task that is not over on the node.
    pub fn living_of(&self, task: &TaskUid, name: &NodeName) -> Option<ActiveAttempt> {
        let node = self.find(name)?;
        let state = node.lock();
        let owned = &state.live.as_ref()?.owned;
        let living = owned.values().map(|entry| &entry.report).filter(|r| r.state.stage() < Stage::Ended);
        let living = living.map(|report| &report.attempt).filter(|attempt| attempt.task == *task);
        living.map(|attempt| ActiveAttempt { run: attempt.run, attempt: attempt.attempt }).max()
    }

    /// The number of the latest Attempt of an Execution that its node's live agent owns.
    pub fn latest_of(&self, task: &TaskUid, run: RunNumber, name: &NodeName) -> Option<u32> {
        let node = self.find(name)?;
        let state = node.lock();
        let owned = state.live.as_ref()?.owned.keys();
        owned
            .filter(|attempt| attempt.task == *task && attempt.run == run)
            .map(|attempt| attempt.attempt)
            .max()
    }

    /// What the live agent of its node says of an Attempt.
    pub fn report(&self, attempt: &AttemptId) -> Option<Report> {
        let node = self.find(&attempt.node)?;
        let state = node.lock();
        Some(state.live.as_ref()?.owned.get(attempt)?.report.clone())
    }

    /// Whether the agent of its node is connected, has said all that it owns, and this Attempt is not among it.
    pub fn has_let_go(&self, attempt: &AttemptId) -> bool {
        let Some(node) = self.find(&attempt.node) else { return false };
        let state = node.lock();
        let live = state.live.as_ref().filter(|live| live.inventory == Inventory::Complete);
        live.is_some_and(|live| !live.owned.contains_key(attempt))
    }

    /// All that connected agents own.
    pub fn all_owned(&self) -> Vec<OwnedAttempt> {
        let nodes = self.nodes();
        let mut all = Vec::new();
        for (_, node) in &nodes {
            let state = node.lock();
            let owned = state.live.iter().flat_map(|live| &live.owned);
            all.extend(owned.map(|(attempt, entry)| OwnedAttempt {
                attempt: attempt.clone(),
                spec_hash: entry.report.spec_hash.clone(),
                stage: entry.report.state.stage(),
                archived: entry.archived,
            }));
        }
        all
    }

    /// History holds this Attempt up to this stage.
    pub(super) fn archived(&self, attempt: &AttemptId, stage: Stage) {
        let Some(node) = self.find(&attempt.node) else { return };
        let mut state = node.lock();
        if let Some(entry) = state.live.as_mut().and_then(|live| live.owned.get_mut(attempt)) {
            entry.archived = entry.archived.max(Some(stage));
        }
    }

    /// How many nodes are of interest, by whether a Session stands and when the agent was last heard of.
    pub fn count(&self, is_counted: impl Fn(bool, Option<Monotonic>) -> bool) -> usize {
        let mut count = 0;
        for shard in &self.0.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            count += shard.values().filter(|n| is_counted(n.lock().live.is_some(), n.last_seen())).count();
        }
        count
    }

    /// Hands a message to the Session of a node: the name of the Session that took it.
    pub fn send(&self, node: &NodeName, message: &ToAgent) -> Option<SessionId> {
        let node = self.find(node)?;
        let text = match encode_text(message) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, "failed to encode a message to an agent");
                return None;
            }
        };
        let mut state = node.lock();
        let live = state.live.as_mut()?;
        live.outbox.push(text.into()).ok()?;
        if let ToAgent::Forget(forget) = message {
            live.owned.remove(&forget.attempt);
        }
        Some(live.session.clone())
    }

    /// Ends every Session.
    pub fn end_all(&self, refusal: &SessionRefusal) {
        for (_, node) in self.nodes() {
            if let Some(live) = &node.lock().live {
                live.outbox.end(Ending::Refuse(refusal.clone()));
            }
        }
    }

    /// Nothing is known of this node any more, unless its agent is connected.
    pub fn drop_node(&self, name: &NodeName) {
        let mut shard = self.shard(name).write().unwrap_or_else(PoisonError::into_inner);
        if shard.get(name).is_some_and(|node| node.lock().live.is_none()) {
            shard.remove(name);
        }
    }

    /// Whether this Session stands.
    pub fn stands(&self, name: &NodeName, session: &SessionId) -> bool {
        self.find(name).is_some_and(|node| node.lock().live(session).is_some())
    }

    /// A Session begins; an older one of the same node ends.
    pub(super) fn begin(
        &self,
        name: &NodeName,
        session: SessionId,
        hello: Hello,
        now: Monotonic,
    ) -> (Arc<Outbox>, Replaced) {
        let outbox = Arc::new(Outbox::default());
        let live = Live {
            session,
            outbox: outbox.clone(),
            inventory: Inventory::Awaited,
            owned: BTreeMap::new(),
            bytes: 0,
        };
        let node = self.find_or_add(name);
        node.heard(now);
        let mut state = node.lock();
        state.hello = Some(Arc::new(hello));
        let replaced = match state.live.replace(live) {
            Some(older) => {
                older.outbox.end(Ending::Refuse(SessionRefusal::Replaced));
                Replaced::Yes
            }
            None => Replaced::No,
        };
        (outbox, replaced)
    }

    /// A Session ended; whether it stood until now.
    pub(super) fn end(&self, name: &NodeName, session: &SessionId) -> bool {
        let Some(node) = self.find(name) else { return false };
        let mut state = node.lock();
        let stood = state.live(session).is_some();
        if stood {
            state.live = None;
        }
        stood
    }

    /// A frame came.
    pub(super) fn heard(&self, name: &NodeName, now: Monotonic) {
        if let Some(node) = self.find(name) {
            node.heard(now);
        }
    }

    /// A Heartbeat came over the Session that stands; gives back how its agent introduced itself.
    pub(super) fn sampled(&self, name: &NodeName, session: &SessionId, sample: Sample) -> Option<Arc<Hello>> {
        let node = self.find(name)?;
        let mut state = node.lock();
        state.live(session)?;
        state.sample = Some(sample);
        state.hello.clone()
    }

    /// An Attempt is what this Report says. A Session that does not stand any more is not listened to.
    pub(super) fn reported(
        &self,
        name: &NodeName,
        session: &SessionId,
        report: Report,
    ) -> Result<(), TooMany> {
        let Some(node) = self.find(name) else { return Ok(()) };
        let mut state = node.lock();
        let Some(live) = state.live(session) else { return Ok(()) };
        if live.owned.len() >= MAX_OWNED && !live.owned.contains_key(&report.attempt) {
            return Err(TooMany);
        }
        let before = live.owned.get(&report.attempt).map_or(0, |entry| weight(&entry.report));
        let bytes = live.bytes.saturating_sub(before).saturating_add(weight(&report));
        if bytes > MAX_OWNED_BYTES {
            return Err(TooMany);
        }
        live.bytes = bytes;
        match live.owned.get_mut(&report.attempt) {
            Some(entry) => entry.report = report,
            None => {
                live.owned.insert(report.attempt.clone(), Entry { report, archived: None });
            }
        }
        Ok(())
    }

    /// Drops what each agent owns of Tasks that are gone beyond [`MAX_STRAYS`] ended Attempts; how many were dropped.
    /// What is not over stays: its command is to be ended.
    pub(super) fn drop_strays(&self, is_gone: impl Fn(&TaskUid) -> bool) -> usize {
        let mut dropped = 0;
        for (_, node) in &self.nodes() {
            let mut state = node.lock();
            let Some(live) = state.live.as_mut().filter(|live| live.owned.len() > MAX_STRAYS) else {
                continue;
            };
            let (mut kept, mut freed) = (0, 0);
            live.owned.retain(|attempt, entry| {
                let stray = entry.report.state.stage() == Stage::Ended && is_gone(&attempt.task);
                kept += usize::from(stray);
                let keep = !stray || kept <= MAX_STRAYS;
                if !keep {
                    dropped += 1;
                    freed += weight(&entry.report);
                }
                keep
            });
            live.bytes = live.bytes.saturating_sub(freed);
        }
        dropped
    }

    /// All that the agent of this Session has said it owns.
    pub(super) fn owned_by(&self, name: &NodeName, session: &SessionId) -> Option<Vec<Report>> {
        let node = self.find(name)?;
        let mut state = node.lock();
        Some(state.live(session)?.owned.values().map(|entry| entry.report.clone()).collect())
    }

    /// The last part of an Inventory came: from now on the Session counts.
    pub(super) fn inventoried(&self, name: &NodeName, session: &SessionId) {
        let Some(node) = self.find(name) else { return };
        if let Some(live) = node.lock().live(session) {
            live.inventory = Inventory::Complete;
        }
    }

    fn nodes(&self) -> Vec<(NodeName, Arc<Node>)> {
        let mut nodes = Vec::new();
        for shard in &self.0.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            nodes.extend(shard.iter().map(|(name, node)| (name.clone(), node.clone())));
        }
        nodes
    }

    fn shard(&self, name: &NodeName) -> &RwLock<HashMap<NodeName, Arc<Node>>> {
        &self.0.shards[self.0.hasher.hash_one(name) as usize % SHARDS]
    }

    fn find(&self, name: &NodeName) -> Option<Arc<Node>> {
        self.shard(name).read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn find_or_add(&self, name: &NodeName) -> Arc<Node> {
        let mut shard = self.shard(name).write().unwrap_or_else(PoisonError::into_inner);
        shard
            .entry(name.clone())
            .or_insert_with(|| Arc::new(Node { last_seen: AtomicU64::new(0), state: Mutex::default() }))
            .clone()
    }
}

/// What an owned Attempt takes, about, bytes: its id twice, and its Report.
fn weight(report: &Report) -> usize {
    let id = report.attempt.task.as_str().len() + report.attempt.node.as_str().len();
    let state = match &report.state {
        ReportedState::Ended(ended) => {
            let digests = ended.output.stdout.sha256.len() + ended.output.stderr.sha256.len();
            size_of_val::<Ended>(ended) + digests + outcome_text(&ended.outcome)
        }
        ReportedState::Accepted | ReportedState::Running(_) => 0,
    };
    size_of::<Entry>() + size_of::<AttemptId>() + 2 * id + report.spec_hash.as_str().len() + state
}

fn outcome_text(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::StartFailed { message, .. } | Outcome::Skipped { message } => message.len(),
        Outcome::CancelFailed { pids } => size_of_val(pids.as_slice()),
        // Of any of its texts; the longest is bounded by its type.
        Outcome::Refused { .. } => MAX_MESSAGE,
        _ => 0,
    }
}

/// An agent claims more than [`MAX_OWNED`] Attempts, or more than [`MAX_OWNED_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

/// Whether an older Session stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replaced {
    /// One did, and ends now.
    Yes,
    /// None did.
    No,
}

impl State {
    /// The Session of this name, when it is the one that stands.
    fn live(&mut self, session: &SessionId) -> Option<&mut Live> {
        self.live.as_mut().filter(|live| live.session == *session)
    }
}

impl Node {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self, now: Monotonic) {
        // A moment of 0 would read as never; a process is never that young again.
        self.last_seen.fetch_max(now.0.max(1), Ordering::Relaxed);
    }

    fn last_seen(&self) -> Option<Monotonic> {
        match self.last_seen.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Monotonic(at)),
        }
    }

    fn view(&self, node: NodeName) -> AgentView {
        let state = self.lock();
        let session = state.live.as_ref().map(|live| SessionFacts {
            session: live.session.clone(),
            inventory: live.inventory,
            owned: live.owned.len(),
        });
        AgentView {
            node,
            session,
            last_seen: self.last_seen(),
            hello: state.hello.clone(),
            sample: state.sample.clone(),
        }
    }
}
