//! The link between one agent and one operator: in order, delayed, cut at any time; and, since every message must be
//! safe to lose and to repeat, it loses and repeats some as well.

use std::collections::VecDeque;

use sentinel_protocol::ids::SessionId;
use sentinel_protocol::to_agent::ToAgent;
use sentinel_protocol::to_operator::ToOperator;

use super::rng::Rng;

/// One Session. It is cut by dropping it, with everything that was on its way.
pub struct Link {
    pub session: SessionId,
    /// Which operator it leads to.
    pub operator: u64,
    pub to_agent: VecDeque<ToAgent>,
    pub to_operator: VecDeque<ToOperator>,
}

impl Link {
    pub fn new(session: SessionId, operator: u64) -> Self {
        Self { session, operator, to_agent: VecDeque::new(), to_operator: VecDeque::new() }
    }

    pub fn send_to_agent(&mut self, message: ToAgent, rng: &mut Rng, faults: bool) {
        // A Forget is not answered: TCP loses it only together with the Session, and then the Inventory repairs it.
        let faults = faults && !matches!(message, ToAgent::Forget(_));
        push(&mut self.to_agent, message, rng, faults);
    }

    pub fn send_to_operator(&mut self, message: ToOperator, rng: &mut Rng, faults: bool) {
        // An Inventory opens a Session: TCP loses it only together with the Session.
        let faults = faults && !matches!(message, ToOperator::Inventory(_));
        push(&mut self.to_operator, message, rng, faults);
    }
}

fn push<T: Clone>(queue: &mut VecDeque<T>, message: T, rng: &mut Rng, faults: bool) {
    if faults && rng.chance(30) {
        return;
    }
    if faults && rng.chance(30) {
        queue.push_back(message.clone());
    }
    queue.push_back(message);
}
