//! What the operator has acknowledged, until it is written to the Journal: after the Starts that came with it, and not at all for an
//! Attempt that is forgotten before. What a crash loses of it is only sent once more.

use std::collections::BTreeMap;

use sentinel_protocol::stage::Stage;

use crate::journal::{AttemptDir, Delivery};
use crate::shortage::describe;

/// Changes that are not written yet, by the name of the Attempt's directory.
#[derive(Default)]
pub(super) struct Deliveries {
    changed: BTreeMap<String, (AttemptDir, Change)>,
}

#[derive(Default)]
struct Change {
    acked: Option<Stage>,
    archived: Option<u64>,
}

impl Deliveries {
    /// History holds the Report of this stage.
    pub(super) fn note_acked(&mut self, dir: AttemptDir, stage: Stage) {
        self.change(dir).acked = Some(stage);
    }

    /// History holds the output up to this position.
    pub(super) fn note_archived(&mut self, dir: AttemptDir, position: u64) {
        self.change(dir).archived = Some(position);
    }

    /// The Attempt is forgotten.
    pub(super) fn forget(&mut self, dir: &AttemptDir) {
        self.changed.remove(dir.name());
    }

    /// Whether changes wait.
    pub(super) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Writes the changes.
    pub(super) fn write(&mut self) {
        for (_, (dir, change)) in std::mem::take(&mut self.changed) {
            let written = dir.delivery().and_then(|before| {
                let acked = change.acked.or(before.acked);
                dir.set_delivery(&Delivery { acked, archived: change.archived.unwrap_or(before.archived) })
            });
            // An Attempt that was forgotten meanwhile has no directory, and nothing of it is sent again.
            if let Err(error) = written
                && dir.path().exists()
            {
                tracing::warn!(
                    attempt = dir.name(),
                    error = describe(&error),
                    "unable to record what the operator has acknowledged"
                );
            }
        }
    }

    fn change(&mut self, dir: AttemptDir) -> &mut Change {
        &mut self.changed.entry(dir.name().to_owned()).or_insert_with(|| (dir, Change::default())).1
    }
}
