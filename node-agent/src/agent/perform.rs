//! One function per effect. What an effect led to comes back as an event; nothing is decided here.

use std::error::Error;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::thread;
use std::time::Duration;

use sentinel_core::agent::{EMERGENCY_FREE, Effect, Event, Tombstone};
use sentinel_protocol::ids::{AttemptId, SpecHash};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::to_agent::Start;
use sentinel_protocol::to_operator::{Ended, OutputSummary, Stage, ToOperator, Usage};
use tokio::sync::mpsc::error::TrySendError;

use super::body::Body;
use super::look::{abandonment_for, look};
use super::mailbox::Input;
use crate::host;
use crate::journal::{self, Accepted, AttemptDir, Delivery, JournalError, SUPERVISOR_LOG, StateDir, Verdict};
use crate::kill_point::KillPoint;
use crate::shortage;
use crate::spool;
use crate::supervisor::{Remains, end_tree};

/// Bytes of a supervisor's log that are read for its last line.
const MAX_LAST_WORDS: u64 = 512;

/// How long the processes of a dead supervisor's command are given to be gone.
const TREE_PATIENCE: Duration = Duration::from_secs(5);

impl Body {
    pub(super) fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::SetEpoch(epoch) => {
                self.vitals.set_highest_epoch(epoch);
                let kept = self.journal.set_highest_epoch(epoch);
                kept.err().map(|error| journal_failed(&error))
            }
            Effect::Record(start) => Some(self.record(*start, StateDir::create)),
            Effect::Confirm(start) => {
                // Its Spool is about to go; `record` posts the new one.
                self.board.forget(&start.attempt);
                Some(self.record(*start, StateDir::create_again))
            }
            Effect::Launch(attempt) => self.launch(attempt),
            Effect::RequestCancel(attempt) => self.request_cancel(attempt),
            Effect::EndTree(attempt) => self.end_tree(attempt),
            Effect::Abandon { attempt, ended } => self.abandon(attempt, *ended),
            Effect::Conclude { attempt, ended } => self.conclude(attempt, *ended),
            Effect::Inspect(attempt) => self.observe(&self.journal.attempt(&attempt)),
            Effect::NoteAck { attempt, stage } => self.note_ack(&attempt, stage),
            Effect::WriteTombstone(tombstone) => match self.journal.entomb(&remember(&tombstone)) {
                Ok(()) => Some(Event::TombstoneWritten(tombstone)),
                Err(error) => Some(journal_failed(&error)),
            },
            Effect::Compact(tombstone) => self.bury(&tombstone),
            Effect::Send(message) => {
                self.send(message);
                None
            }
            Effect::Ignored { what, attempt } => {
                self.vitals.count_ignored();
                let attempt = attempt.map(|id| id.to_string());
                tracing::warn!(what = what.as_str(), attempt, "a message was ignored");
                None
            }
        }
    }

    fn record(
        &mut self,
        start: Start,
        create: fn(&StateDir, &Accepted) -> Result<AttemptDir, JournalError>,
    ) -> Event {
        let (attempt, credit) = (start.attempt.clone(), start.credit);
        let accepted = match Accepted::now(start) {
            Ok(accepted) => accepted,
            Err(error) => {
                let message = format!("failed to read the boot id: {}", chain(&error));
                return Event::NotRecorded {
                    attempt,
                    why: Refusal::JournalUnsafe { message: message.into() },
                };
            }
        };
        match create(&self.journal, &accepted) {
            Ok(dir) => {
                self.names.insert(dir.name().to_owned(), attempt.clone());
                self.board.begin(&attempt, &dir, credit);
                KillPoint::AgentRecorded.pass(self.journal.root());
                Event::Recorded { attempt }
            }
            Err(error) if error.is_disk_full() && !shortage::is_out_of_inodes(self.journal.root()) => {
                let free = self.journal.free_bytes().unwrap_or(0);
                let directory = Some(self.journal.root().display().to_string());
                tracing::warn!(%attempt, free, error = chain(&error), "the disk is full; an attempt is refused");
                let needed = EMERGENCY_FREE.max(free.saturating_add(1));
                Event::NotRecorded {
                    attempt,
                    why: Refusal::DiskLow { free, needed, directory: directory.map(Into::into) },
                }
            }
            Err(error @ JournalError::Unsafe { .. }) => {
                // It will be refused, so it must not be found at the next start.
                if let Err(error) = self.journal.attempt(&attempt).remove() {
                    tracing::error!(%attempt, error = chain(&error), "failed to take back what was not recorded");
                }
                journal_failed(&error)
            }
            Err(error) => {
                let message = chain(&error);
                tracing::error!(%attempt, error = message, "failed to record an attempt");
                Event::NotRecorded { attempt, why: Refusal::JournalUnsafe { message: message.into() } }
            }
        }
    }

    fn launch(&mut self, attempt: AttemptId) -> Option<Event> {
        let launched = self.launcher.launch(&self.journal.attempt(&attempt));
        KillPoint::AgentLaunched.pass(self.journal.root());
        launched.err().map(|error| Event::LaunchFailed { attempt, message: chain(&error) })
    }

    fn request_cancel(&mut self, attempt: AttemptId) -> Option<Event> {
        let asked = self.journal.attempt(&attempt).request_cancel(host::wall_clock());
        asked.err().map(|error| {
            tracing::error!(%attempt, error = chain(&error), "unable to leave word of a cancellation");
            Event::CancelNotRequested { attempt }
        })
    }

    /// In a thread of its own: it takes as long as the processes take to be gone.
    fn end_tree(&mut self, attempt: AttemptId) -> Option<Event> {
        let dir = self.journal.attempt(&attempt);
        let mailbox = self.mailbox.clone();
        let ending = move || {
            let left = match dir.state() {
                Ok(state) => match end_tree(&state, TREE_PATIENCE) {
                    Remains::Nothing => vec![],
                    Remains::Processes(pids) => pids,
                },
                Err(error) => {
                    tracing::error!(attempt = dir.name(), %error, "failed to find the processes of an attempt");
                    vec![]
                }
            };
            // When the agent is ending, its next life looks again.
            let _ = mailbox.post_blocking(Input::Happened(Box::new(Event::TreeEnded { attempt, left })));
        };
        if let Err(error) = thread::Builder::new().name("end-tree".to_owned()).spawn(ending) {
            tracing::error!(%error, "unable to start a thread that ends a command; trying again later");
        }
        None
    }

    fn abandon(&mut self, attempt: AttemptId, mut ended: Ended) -> Option<Event> {
        let dir = self.journal.attempt(&attempt);
        if let Outcome::StartTimedOut { why: why @ None } = &mut ended.outcome {
            *why = last_words(&dir).map(Into::into);
        }
        let done = dir.abandon(abandonment_for(&ended.outcome)).and_then(|verdict| match verdict {
            Verdict::TooLate => Ok(None),
            Verdict::Abandoned => match dir.try_lock()? {
                Some(lock) => lock.record_exit(ended).map(Some),
                // A late supervisor is reading that it has nothing to do.
                None => Ok(None),
            },
        });
        self.over(attempt, done)
    }

    fn conclude(&mut self, attempt: AttemptId, mut ended: Ended) -> Option<Event> {
        let dir = self.journal.attempt(&attempt);
        let done = dir.try_lock().and_then(|lock| {
            let Some(lock) = lock else { return Ok(None) };
            ended.output = spool::recover(&lock).unwrap_or_else(|error| {
                tracing::error!(%attempt, error = chain(&error), "failed to read the output of an attempt");
                OutputSummary::default()
            });
            lock.record_exit(ended).map(Some)
        });
        self.over(attempt, done)
    }

    fn over(&mut self, attempt: AttemptId, done: Result<Option<Ended>, JournalError>) -> Option<Event> {
        match done {
            Ok(Some(ended)) => {
                self.board.ended(&attempt, ended.output.end);
                Some(Event::Concluded { attempt, ended: Box::new(ended) })
            }
            Ok(None) => Some(Event::TooLate { attempt }),
            Err(error @ JournalError::Unsafe { .. }) => Some(journal_failed(&error)),
            Err(error) => {
                tracing::error!(%attempt, error = chain(&error), "unable to record the end of an attempt");
                None
            }
        }
    }

    /// Looks at an Attempt.
    pub(super) fn observe(&mut self, dir: &AttemptDir) -> Option<Event> {
        match look(dir, &self.home) {
            Ok(Some(seen)) => {
                if let Some(ended) = &seen.ended {
                    KillPoint::AgentSawExit.pass(self.journal.root());
                    self.board.ended(&seen.attempt, ended.output.end);
                }
                Some(Event::Observed(seen))
            }
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(attempt = dir.name(), error = chain(&error), "unable to look at an attempt");
                None
            }
        }
    }

    fn note_ack(&mut self, attempt: &AttemptId, stage: Stage) -> Option<Event> {
        KillPoint::AgentAcked.pass(self.journal.root());
        let dir = self.journal.attempt(attempt);
        let noted = dir
            .delivery()
            .and_then(|delivery| dir.set_delivery(&Delivery { acked: Some(stage), ..delivery }));
        // Unnoted it is said once more after a restart, which is harmless.
        if let Err(error) = noted {
            tracing::warn!(%attempt, error = chain(&error), "unable to note an acknowledgement");
        }
        None
    }

    pub(super) fn note_archived(&mut self, attempt: &AttemptId, position: u64) {
        let dir = self.journal.attempt(attempt);
        let noted = dir
            .delivery()
            .and_then(|delivery| dir.set_delivery(&Delivery { archived: position, ..delivery }));
        if let Err(error) = noted {
            tracing::debug!(%attempt, error = chain(&error), "unable to note what is archived");
        }
    }

    fn bury(&mut self, tombstone: &Tombstone) -> Option<Event> {
        KillPoint::AgentForgets.pass(self.journal.root());
        let attempt = tombstone.attempt.clone();
        let dir = self.journal.attempt(&attempt);
        self.board.forget(&attempt);
        match self.journal.bury(&dir, &remember(tombstone)) {
            Ok(()) => {
                self.names.remove(dir.name());
                Some(Event::Compacted { attempt })
            }
            Err(error @ JournalError::Unsafe { .. }) => Some(journal_failed(&error)),
            Err(error) => {
                tracing::warn!(%attempt, error = chain(&error), "unable to remove a forgotten attempt");
                None
            }
        }
    }

    fn send(&mut self, message: ToOperator) {
        let Some(outbox) = &self.outbox else { return };
        match outbox.try_send(message) {
            Ok(()) => {}
            // Reports are said again until they are acknowledged, so dropping one costs time and no truth.
            Err(TrySendError::Full(_)) => self.vitals.count_unsent(),
            Err(TrySendError::Closed(_)) => self.outbox = None,
        }
    }
}

/// What kept a supervisor from starting the command, in its own words.
fn last_words(dir: &AttemptDir) -> Option<String> {
    let mut end = Vec::new();
    let mut file = fs::File::open(dir.file(SUPERVISOR_LOG)).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(MAX_LAST_WORDS))).ok()?;
    file.take(MAX_LAST_WORDS).read_to_end(&mut end).ok()?;
    let text = String::from_utf8_lossy(&end);
    // A line begins with its moment.
    let line = text.lines().next_back()?;
    let words = line.split_once(' ').map_or(line, |(_, words)| words);
    (!words.is_empty()).then(|| format!("its supervisor ended: {words}"))
}

fn journal_failed(error: &JournalError) -> Event {
    let message = chain(error);
    tracing::error!(error = message, "the journal failed; nothing new is taken");
    Event::JournalFailed { message }
}

fn remember(tombstone: &Tombstone) -> journal::Tombstone {
    journal::Tombstone {
        attempt: tombstone.attempt.clone(),
        spec_hash: Some(tombstone.spec_hash.clone()),
        outcome: tombstone.ended.outcome.clone(),
        buried_at: tombstone.ended.ended_at,
    }
}

/// A tombstone without a spec hash fits every spec.
pub(super) fn recall(buried: journal::Tombstone, asked: &SpecHash) -> Tombstone {
    let (usage, output) = (Usage::default(), OutputSummary::default());
    let ended = Ended {
        outcome: buried.outcome,
        started_at: None,
        ended_at: buried.buried_at,
        usage,
        output,
        exit: sentinel_protocol::exit::ExitDetails::default(),
    };
    let spec_hash = buried.spec_hash.unwrap_or_else(|| asked.clone());
    Tombstone { attempt: buried.attempt, spec_hash, ended }
}

/// An error and what it rests on, in one line, with what the node lacks if it is for want of something.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    shortage::describe(error)
}
