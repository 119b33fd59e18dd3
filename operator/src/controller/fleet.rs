//! The controller's side of the gateway: what it asks of those who hold the Sessions.

use sentinel_core::reconcile::rollout::{ActiveAttempt, AgentFacts};
use sentinel_protocol::ids::{NodeName, SessionId, TaskUid};
use sentinel_protocol::to_agent::{Cancel, Forget, Start};
use sentinel_protocol::to_operator::Report;
use sentinel_protocol::version::Version;

/// All connected agents. Nothing here waits: a message is handed to a Session's queue, or it is not.
pub trait Fleet: Send + Sync + 'static {
    /// What is known of a node's agent. Its Session counts once its Inventory is complete and in the ledgers.
    fn agent(&self, node: &NodeName) -> AgentFacts;

    /// The latest Attempt of this Task that is not over on the node, whatever ledger it belongs to: two are never on a
    /// node at once.
    fn living(&self, task: &TaskUid, node: &NodeName) -> Option<ActiveAttempt>;

    /// The protocol version of the live Session of a node; `None` when there is no Session.
    fn speaks(&self, node: &NodeName) -> Option<Version>;

    /// Hands a `Start` to the live Session of its node; the gateway fills in the credit. `None` when there is no
    /// Session, or its queue is full.
    fn start(&self, start: Start) -> Option<SessionId>;

    /// Hands a `Cancel` to the live Session of its node.
    fn cancel(&self, cancel: Cancel) -> Option<SessionId>;

    /// Hands a `Forget` to the live Session of its node.
    fn forget(&self, forget: Forget) -> Option<SessionId>;

    /// What the live agents are known to own of this Task: asked when a ledger is opened, for what was said before.
    /// Every agent that is connected and has completed its Inventory is in the answer, whatever it owns.
    fn owned(&self, task: &TaskUid) -> Vec<Owned>;
}

/// What one agent owns of one Task.
#[derive(Debug, Clone, PartialEq)]
pub struct Owned {
    /// Its node.
    pub node: NodeName,
    /// Its live Session.
    pub session: SessionId,
    /// The latest Report of each Attempt.
    pub reports: Vec<Report>,
}
