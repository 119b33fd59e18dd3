//! After a loss of power: restores from the write-ahead log what the directories have lost.
//!
//! | In the log | In the directory | Then |
//! |---|---|---|
//! | request of this boot | the same request | the slot stays the Attempt's |
//! | request of this boot | none, or another acceptance | obsolete: erased |
//! | request of an earlier boot, and a tombstone | | obsolete: erased |
//! | request of an earlier boot | another acceptance | obsolete: erased |
//! | request of an earlier boot | the same, none, or unreadable | restored: request, then *starting* and exit record where the log has them and the directory does not; then erased |
//!
//! Restoring is repeatable: a loss of power in the middle of it leaves the log as it was.

use std::fs;

use super::attempt_dir::{AttemptDir, EXIT, NEW, REQUEST, STATE, make_dir};
use super::attempt_record::AttemptState;
use super::error::JournalError;
use super::record_file;
use super::state_dir::{StateDir, fill};
use super::wal::Found;
use super::wal_slot::Part;
use crate::host;

impl StateDir {
    /// Applies the table to every slot.
    pub(super) fn redo(&self) -> Result<(), JournalError> {
        let Some(wal) = self.wal() else { return Ok(()) };
        let boot_id =
            host::boot_id().map_err(|e| JournalError::io("read the boot id for", self.root(), e))?;
        let mut obsolete = Vec::new();
        for found in wal.requests() {
            let dir = self.attempt(&found.accepted.start.attempt);
            if found.accepted.boot_id == boot_id {
                if dir.accepted().is_ok_and(|accepted| accepted.is_some_and(|a| a.slot == Some(found.id))) {
                    wal.keep(dir.name(), found.id)?;
                    continue;
                }
            } else if self.tombstone(&found.accepted.start.attempt).is_none() {
                self.restore(&dir, &found)?;
            }
            obsolete.push(found.id.index);
        }
        for index in obsolete {
            wal.clear(index);
        }
        wal.sync()
    }

    fn restore(&self, dir: &AttemptDir, found: &Found) -> Result<(), JournalError> {
        match dir.accepted() {
            Ok(Some(accepted)) if accepted.slot != Some(found.id) => return Ok(()),
            Ok(Some(_)) => {}
            Ok(None) | Err(JournalError::Corrupt { .. }) => self.restore_request(dir, found)?,
            Err(error) => return Err(error),
        }
        make_dir(&dir.log())?;
        if is_lost(&dir.exit())
            && let Some(ended) = found.slot.read::<sentinel_protocol::to_operator::Ended>(Part::Exit)
        {
            record_file::replace(&dir.file(EXIT), &ended)?;
        }
        let no_state = matches!(dir.state(), Ok(AttemptState::Accepted) | Err(JournalError::Corrupt { .. }));
        if no_state && let Some(starting) = found.slot.read::<AttemptState>(Part::Start) {
            record_file::replace(&dir.file(STATE), &starting)?;
        }
        dir.make_durable()?;
        tracing::info!(attempt = dir.name(), "an attempt is as the write-ahead log has it");
        Ok(())
    }

    fn restore_request(&self, dir: &AttemptDir, found: &Found) -> Result<(), JournalError> {
        if dir.path().exists() {
            return record_file::replace(&dir.file(REQUEST), &found.accepted);
        }
        let new = self.attempts().join(format!("{NEW}{}", dir.name()));
        fill(&new, &found.accepted)?;
        fs::rename(&new, dir.path()).map_err(|e| JournalError::io("rename", &new, e))
    }
}

fn is_lost<T>(record: &Result<Option<T>, JournalError>) -> bool {
    matches!(record, Ok(None) | Err(JournalError::Corrupt { .. }))
}
