//! Attempts that the agent ends itself, as no supervisor does: abandoned before their start, or concluded after their
//! supervisor has died.

use sentinel_core::agent::Event;
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::to_operator::{Ended, OutputSummary};

use super::Performer;
use crate::agent::conversion::{abandonment_for, journal_failed};
use crate::agent::inspect::last_log_line;
use crate::journal::{AbandonResult, JournalError};
use crate::shortage::describe;
use crate::spool;

impl Performer {
    pub(super) fn abandon(&mut self, attempt: AttemptId, mut ended: Ended) -> Option<Event> {
        let dir = self.journal.attempt(&attempt);
        self.launcher.unbind(&dir);
        if let Outcome::StartTimedOut { why: why @ None } = &mut ended.outcome {
            *why = last_log_line(&dir).map(Into::into);
        }
        let done = dir.abandon(abandonment_for(&ended.outcome)).and_then(|result| match result {
            AbandonResult::TooLate => Ok(None),
            AbandonResult::Abandoned => match dir.try_lock()? {
                Some(lock) => lock.record_exit(ended).map(Some),
                // A late supervisor holds it, finds the Attempt abandoned and exits.
                None => Ok(None),
            },
        });
        self.concluded(attempt, done)
    }

    pub(super) fn conclude(&mut self, attempt: AttemptId, mut ended: Ended) -> Option<Event> {
        let dir = self.journal.attempt(&attempt);
        let done = dir.try_lock().and_then(|lock| {
            let Some(lock) = lock else { return Ok(None) };
            ended.output = spool::recover(&lock).unwrap_or_else(|error| {
                tracing::error!(
                    category = error.category().as_str(),
                    error = describe(&error),
                    "failed to read the output of an attempt"
                );
                OutputSummary::default()
            });
            lock.record_exit(ended).map(Some)
        });
        self.concluded(attempt, done)
    }

    fn concluded(&mut self, attempt: AttemptId, done: Result<Option<Ended>, JournalError>) -> Option<Event> {
        match done {
            Ok(Some(ended)) => {
                self.secrets.forget(&attempt);
                let dir = self.journal.attempt(&attempt);
                self.note_durable(&dir, &attempt);
                self.checkpointer.note_ended(dir);
                self.notices.ended(&attempt, ended.output.end);
                Some(Event::Concluded { attempt, ended: Box::new(ended) })
            }
            Ok(None) => Some(Event::TooLate { attempt }),
            Err(error @ JournalError::Unsafe { .. }) => Some(journal_failed(&error)),
            Err(error) => {
                tracing::error!(
                    category = error.category().as_str(),
                    error = describe(&error),
                    "unable to record the end of an attempt; will retry"
                );
                None
            }
        }
    }
}
