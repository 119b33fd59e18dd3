//! Agents that do what a test tells them: a [`Fleet`] without sockets.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};

use futures_util::FutureExt;
use sentinel_core::reconcile::rollout::{ActiveAttempt, AgentFacts};
use sentinel_core::time::Monotonic;
use sentinel_operator::clock::Clock;
use sentinel_operator::cluster::{EmbeddedCluster, TaskStore};
use sentinel_operator::controller::Fleet;
use sentinel_operator::controller::fleet::Owned;
use sentinel_operator::resource::Task;
use sentinel_protocol::ids::{AttemptId, NodeName, SessionId, SpecHash, TaskUid};
use sentinel_protocol::stage::Stage as Stages;
use sentinel_protocol::to_agent::{Cancel, Forget, Start};
use sentinel_protocol::to_operator::{Report, ReportedState};
use sentinel_protocol::version::Version;
use sentinel_secrets::values::SecretValues;

/// What an agent was delivered.
#[derive(Debug, Clone)]
pub(crate) enum Delivered {
    Start(Box<Start>, Option<Box<Task>>),
    Cancel(Cancel),
    Forget(#[allow(dead_code, reason = "shown when a test fails")] Forget),
}

/// The agents of a stage.
pub(crate) struct Agents {
    cluster: EmbeddedCluster,
    clock: Clock,
    sessions: Mutex<HashMap<NodeName, SessionId>>,
    last_seen: Mutex<HashMap<NodeName, Monotonic>>,
    delivered: Mutex<Vec<Delivered>>,
    owned: Mutex<BTreeMap<(TaskUid, NodeName), BTreeMap<ActiveAttempt, Report>>>,
    refusals: AtomicU32,
    next_session: AtomicU32,
    version: AtomicU16,
    takes_secrets: AtomicBool,
    /// The values that came with each `Start`.
    values: Mutex<Vec<(AttemptId, Option<SecretValues>)>>,
    /// How often the controller has read an agent's state.
    reads: AtomicU64,
}

impl Agents {
    pub(crate) fn new(cluster: EmbeddedCluster, clock: Clock) -> Self {
        Self {
            cluster,
            clock,
            sessions: Mutex::default(),
            last_seen: Mutex::default(),
            delivered: Mutex::default(),
            owned: Mutex::default(),
            refusals: AtomicU32::new(0),
            next_session: AtomicU32::new(1),
            version: AtomicU16::new(4),
            takes_secrets: AtomicBool::new(true),
            values: Mutex::default(),
            reads: AtomicU64::new(0),
        }
    }

    /// A new Session of a node, and what its agent owns. It counts only with [`Agents::set_live`].
    pub(crate) fn next_session(&self, name: &NodeName) -> (SessionId, Vec<Report>) {
        let number = self.next_session.fetch_add(1, Ordering::Relaxed);
        let owned = self.owned.lock().unwrap();
        let of = |((_, owner), attempts): (&(TaskUid, NodeName), &BTreeMap<ActiveAttempt, Report>)| {
            if owner == name { attempts.values().cloned().collect() } else { Vec::new() }
        };
        (SessionId::new(format!("s-{number}")).unwrap(), owned.iter().flat_map(of).collect())
    }

    /// The Inventory of this Session is complete.
    pub(crate) fn set_live(&self, name: &NodeName, session: SessionId) {
        self.sessions.lock().unwrap().insert(name.clone(), session);
    }

    /// The Session of this node ends.
    pub(crate) fn disconnect(&self, name: &NodeName) {
        self.sessions.lock().unwrap().remove(name);
        self.last_seen.lock().unwrap().insert(name.clone(), self.clock.monotonic());
    }

    /// The agent of this node has lost its Journal.
    pub(crate) fn lose_journal(&self, name: &NodeName) {
        self.owned.lock().unwrap().retain(|(_, owner), _| owner != name);
    }

    /// An agent owns an Attempt in this state.
    pub(crate) fn own(&self, report: &Report) {
        let key = (report.attempt.task.clone(), report.attempt.node.clone());
        let mut owned = self.owned.lock().unwrap();
        owned.entry(key).or_default().insert(active(&report.attempt), report.clone());
    }

    /// Everything that was delivered, in order.
    pub(crate) fn delivered(&self) -> Vec<Delivered> {
        self.delivered.lock().unwrap().clone()
    }

    /// Whether what was delivered is enough.
    pub(crate) fn has_delivered(&self, enough: impl Fn(&[Delivered]) -> bool) -> bool {
        enough(&self.delivered.lock().unwrap())
    }

    /// What was started of a Task.
    pub(crate) fn started(&self, task: &str) -> Vec<(AttemptId, SpecHash)> {
        let of = |delivered: &Delivered| match delivered {
            Delivered::Start(start, _) if start.task.name == task => {
                Some((start.attempt.clone(), start.spec_hash.clone()))
            }
            _ => None,
        };
        self.delivered.lock().unwrap().iter().filter_map(of).collect()
    }

    /// The Attempt that was last started of a Task's Run on a node.
    pub(crate) fn last_started(&self, task: &str, run: u32, node: &str) -> Option<(AttemptId, SpecHash)> {
        let of = |delivered: &Delivered| match delivered {
            Delivered::Start(start, _)
                if start.task.name == task
                    && start.attempt.run.0 == run
                    && start.attempt.node.as_str() == node =>
            {
                Some((start.attempt.clone(), start.spec_hash.clone()))
            }
            _ => None,
        };
        self.delivered.lock().unwrap().iter().rev().find_map(of)
    }

    /// How often the controller has read an agent's state.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// The agents are of a release with this protocol version.
    pub(crate) fn set_version(&self, version: Version) {
        self.version.store(version.0, Ordering::Relaxed);
    }

    /// The agents take no values of Secrets.
    pub(crate) fn take_no_secrets(&self) {
        self.takes_secrets.store(false, Ordering::Relaxed);
    }

    /// The values that came with each `Start`, in order.
    pub(crate) fn values(&self) -> Vec<(AttemptId, Option<SecretValues>)> {
        self.values.lock().unwrap().clone()
    }

    /// The send queues are full for the next messages.
    pub(crate) fn refuse_next(&self, messages: u32) {
        self.refusals.store(messages, Ordering::Relaxed);
    }

    fn deliver(&self, node: &NodeName, delivered: impl FnOnce() -> Delivered) -> Option<SessionId> {
        if self
            .refusals
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
        {
            return None;
        }
        let session = self.sessions.lock().unwrap().get(node).cloned()?;
        self.delivered.lock().unwrap().push(delivered());
        Some(session)
    }
}

impl Fleet for Agents {
    fn agent(&self, node: &NodeName) -> AgentFacts {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let session = self.sessions.lock().unwrap().get(node).cloned();
        let last_seen = match session {
            Some(_) => Some(self.clock.monotonic()),
            None => self.last_seen.lock().unwrap().get(node).copied(),
        };
        AgentFacts { session, last_seen, ..AgentFacts::default() }
    }

    fn active_attempt(&self, task: &TaskUid, node: &NodeName) -> Option<ActiveAttempt> {
        self.sessions.lock().unwrap().get(node)?;
        let owned = self.owned.lock().unwrap();
        let runs = owned.get(&(task.clone(), node.clone()))?;
        let lives = |(_, report): &(&ActiveAttempt, &Report)| report.state.stage() != Stages::Ended;
        runs.iter().filter(lives).map(|(attempt, _)| *attempt).max()
    }

    fn protocol_version(&self, node: &NodeName) -> Option<Version> {
        self.sessions.lock().unwrap().get(node)?;
        Some(Version(self.version.load(Ordering::Relaxed)))
    }

    fn takes_secrets(&self, node: &NodeName) -> Option<bool> {
        self.sessions.lock().unwrap().get(node)?;
        Some(self.takes_secrets.load(Ordering::Relaxed))
    }

    fn start(&self, start: Start, secrets: Option<&SecretValues>) -> Option<SessionId> {
        let recorded = self.cluster.get(start.task.clone()).now_or_never().unwrap().unwrap();
        let (node, attempt, spec_hash) =
            (start.attempt.node.clone(), start.attempt.clone(), start.spec_hash.clone());
        let session = self.deliver(&node, || Delivered::Start(Box::new(start), recorded.map(Box::new)))?;
        self.values.lock().unwrap().push((attempt.clone(), secrets.cloned()));
        let report = Report { attempt: attempt.clone(), spec_hash, state: ReportedState::Accepted };
        let key = active(&attempt);
        let mut owned = self.owned.lock().unwrap();
        owned.entry((attempt.task, node)).or_default().entry(key).or_insert(report);
        Some(session)
    }

    fn cancel(&self, cancel: Cancel) -> Option<SessionId> {
        self.deliver(&cancel.attempt.node.clone(), || Delivered::Cancel(cancel))
    }

    fn forget(&self, forget: Forget) -> Option<SessionId> {
        let AttemptId { task, node, .. } = &forget.attempt;
        if let Some(runs) = self.owned.lock().unwrap().get_mut(&(task.clone(), node.clone())) {
            runs.remove(&active(&forget.attempt));
        }
        self.deliver(&forget.attempt.node.clone(), || Delivered::Forget(forget))
    }

    fn owned(&self, task: &TaskUid) -> Vec<Owned> {
        let owned = self.owned.lock().unwrap();
        let sessions = self.sessions.lock().unwrap();
        let of = |node: &NodeName| {
            let runs = owned.get(&(task.clone(), node.clone()));
            runs.into_iter().flat_map(BTreeMap::values).cloned().collect()
        };
        sessions
            .iter()
            .map(|(node, session)| Owned { node: node.clone(), session: session.clone(), reports: of(node) })
            .collect()
    }
}

/// Which of a Task's Attempts on a node it is.
fn active(attempt: &AttemptId) -> ActiveAttempt {
    ActiveAttempt { run: attempt.run, attempt: attempt.attempt }
}
