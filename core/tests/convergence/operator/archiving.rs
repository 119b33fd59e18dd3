//! What the operator writes to History, and what follows from its confirmation.

use sentinel_core::reconcile::ledger::{RunStage, Source};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::to_agent::{Ack, ToAgent};

use super::{Around, Operator};
use crate::simulation::Violation;

impl Operator {
    /// One write to History, and its confirmation.
    pub fn archive(&mut self, around: &mut Around<'_>) -> Result<(), Violation> {
        if !around.history.up {
            return Ok(());
        }
        if let Some((number, record)) = self.run_queue.pop_first() {
            around.history.store_run(&record);
            if let Some(ledger) = self.of_run(number) {
                ledger.note_run_archived(RunStage::of(&record));
            }
        }
        let Some((id, (state, source))) = self.queue.pop_first() else { return Ok(()) };
        around.history.store(&id, &state, source, self.epoch, self.mutation)?;
        self.note_archived(&id, state.stage());
        if source == Source::Agent {
            let ack = Ack { attempt: id.clone(), stage: state.stage() };
            self.send(&id.node, ToAgent::Ack(ack), around);
        }
        Ok(())
    }

    pub(super) fn note_archived(&mut self, id: &AttemptId, stage: Stage) {
        if let Some((_, archived)) = self.orphans.get_mut(id) {
            *archived = (*archived).max(Some(stage));
        } else if let Some(ledger) = self.of_run(id.run) {
            ledger.note_archived(id, stage);
        }
    }
}
