//! The controller's seam to the gateway: the agents, and messages to them.

use sentinel_core::reconcile::rollout::{ActiveAttempt, AgentFacts};
use sentinel_protocol::ids::{NodeName, SessionId, TaskUid};
use sentinel_protocol::to_agent::{Cancel, Forget, Start};
use sentinel_protocol::to_operator::Report;
use sentinel_protocol::version::Version;
use sentinel_secrets::values::SecretValues;

/// All agents. Nothing here waits: a message is put into the queue of a Session, or it is not.
pub trait Fleet: Send + Sync + 'static {
    /// What is known of a node's agent. Its Session counts once its Inventory is complete and applied to the ledgers.
    fn agent(&self, node: &NodeName) -> AgentFacts;

    /// The latest Attempt of this Task that has not ended on the node, whichever Run it belongs to: two are never active
    /// on one node.
    fn active_attempt(&self, task: &TaskUid, node: &NodeName) -> Option<ActiveAttempt>;

    /// Both at once.
    fn agent_for(&self, task: &TaskUid, node: &NodeName) -> AgentFacts {
        AgentFacts { active: self.active_attempt(task, node), ..self.agent(node) }
    }

    /// The protocol version of a node's live Session; `None` without one.
    fn protocol_version(&self, node: &NodeName) -> Option<Version>;

    /// Whether the agent of a node's live Session takes the values of Secrets; `None` without one whose Inventory is complete.
    fn takes_secrets(&self, node: &NodeName) -> Option<bool>;

    /// Queues a `Start` for the live Session of its node, and returns the Session; the gateway fills in the credit, and seals the values
    /// of Secrets for that Session alone. `None` without a Session, or when its queue is full.
    fn start(&self, start: Start, secrets: Option<&SecretValues>) -> Option<SessionId>;

    /// Queues a `Cancel` for the live Session of its node.
    fn cancel(&self, cancel: Cancel) -> Option<SessionId>;

    /// Queues a `Forget` for the live Session of its node.
    fn forget(&self, forget: Forget) -> Option<SessionId>;

    /// What connected agents own of this Task, read when a Run begins to be tracked. It has an entry for every agent with
    /// a complete Inventory, whether it owns anything of the Task or not.
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
