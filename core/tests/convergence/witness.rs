//! Who sees every command start and end, outside the system.

use std::collections::BTreeMap;

use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::outcome::Outcome;

use super::simulation::Violation;

/// What was seen of one Attempt.
#[derive(Debug, Default, Clone)]
pub struct Sight {
    pub starts: u32,
    pub exit: Option<Outcome>,
}

#[derive(Default)]
pub struct Witness {
    pub seen: BTreeMap<AttemptId, Sight>,
}

impl Witness {
    /// O1: at most one start per Attempt.
    pub fn start(&mut self, id: &AttemptId) -> Result<(), Violation> {
        let sight = self.seen.entry(id.clone()).or_default();
        sight.starts += 1;
        if sight.starts > 1 { Err(Violation::new("O1", format!("{id} was started twice"))) } else { Ok(()) }
    }

    pub fn exit(&mut self, id: &AttemptId, outcome: Outcome) {
        self.seen.entry(id.clone()).or_default().exit = Some(outcome);
    }
}
