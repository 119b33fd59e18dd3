//! The registry as the controller's fleet.

use sentinel_core::reconcile::rollout::{ActiveAttempt, AgentFacts};
use sentinel_protocol::ids::{NodeName, SessionId, TaskUid};
use sentinel_protocol::to_agent::{Cancel, Forget, Start, ToAgent};
use sentinel_protocol::version::Version;
use sentinel_secrets::values::SecretValues;

use super::registry::Registry;
use crate::controller::fleet::{Fleet, Owned};

impl Fleet for Registry {
    fn agent(&self, node: &NodeName) -> AgentFacts {
        self.facts_for(None, node)
    }

    fn active_attempt(&self, task: &TaskUid, node: &NodeName) -> Option<ActiveAttempt> {
        Self::active_attempt(self, task, node)
    }

    fn agent_for(&self, task: &TaskUid, node: &NodeName) -> AgentFacts {
        self.facts_for(Some(task), node)
    }

    fn protocol_version(&self, node: &NodeName) -> Option<Version> {
        Self::protocol_version(self, node)
    }

    fn start(&self, mut start: Start, secrets: Option<&SecretValues>) -> Option<SessionId> {
        start.credit = self.initial_credit();
        self.send_start(start, secrets)
    }

    fn takes_secrets(&self, node: &NodeName) -> Option<bool> {
        Self::takes_secrets(self, node)
    }

    fn cancel(&self, cancel: Cancel) -> Option<SessionId> {
        let node = cancel.attempt.node.clone();
        self.send(&node, &ToAgent::Cancel(cancel))
    }

    fn forget(&self, forget: Forget) -> Option<SessionId> {
        let node = forget.attempt.node.clone();
        self.send(&node, &ToAgent::Forget(forget))
    }

    fn owned(&self, task: &TaskUid) -> Vec<Owned> {
        self.owned_of(task)
    }
}
