//! One function per effect. The result of an effect is an event; nothing is decided here.

mod endings;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use sentinel_core::agent::{Admitted, AttemptSnapshot, EMERGENCY_FREE, Effect, Event, Ignored, Tombstone};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::requester::Requester;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::to_operator::ToOperator;
use tokio::sync::mpsc;

use crate::agent::checkpointer::Checkpointer;
use crate::agent::compactor::Compactor;
use crate::agent::conversion::{journal_failed, tombstone_to_journal};
use crate::agent::deliveries::Deliveries;
use crate::agent::held_secrets::HeldSecrets;
use crate::agent::inspect::inspect;
use crate::agent::outgoing::Outgoing;
use crate::agent::permission::Permission;
use crate::agent::trail::Trail;
use crate::agent::tree_enders::TreeEnders;
use crate::agent_metrics::AgentMetrics;
use crate::channel::{Mailbox, OutputNotices};
use crate::host;
use crate::journal::{Accepted, AttemptDir, AttemptState, JournalError, Loaded, StateDir};
use crate::kill_point::KillPoint;
use crate::policy::PolicyGate;
use crate::process::{ContainerScope, ProcessIdentity};
use crate::shortage::{self, describe};
use crate::spans::attempt_span;
use crate::spool;
use crate::supervisor::{Launcher, StartRecord};

/// Carries out effects on Journal, supervisors and link.
pub(crate) struct Performer {
    journal: Arc<StateDir>,
    launcher: Launcher,
    mailbox: Mailbox,
    notices: Arc<OutputNotices>,
    metrics: Arc<AgentMetrics>,
    scope: ContainerScope,
    compactor: Compactor,
    deliveries: Deliveries,
    outgoing: Outgoing,
    /// Attempts whose output is to be followed, and up to where it may be sent at once.
    begun: Vec<(AttemptId, AttemptDir, u64)>,
    /// The Attempts in the Journal, by the name of their directory.
    attempts: BTreeMap<String, AttemptId>,
    /// Threads that end the trees of dead supervisors.
    tree_enders: TreeEnders,
    pub(super) permission: Permission,
    checkpointer: Checkpointer,
    trail: Trail,
    pub(super) secrets: HeldSecrets,
}

/// What decides whether a command may start, and what records all that happens to commands.
pub(crate) struct Guards {
    /// The node's policy.
    pub(crate) policy: PolicyGate,
    /// The audit records.
    pub(crate) trail: Trail,
}

impl Performer {
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn new(
        journal: StateDir,
        launcher: Launcher,
        mailbox: Mailbox,
        notices: Arc<OutputNotices>,
        metrics: Arc<AgentMetrics>,
        scope: ContainerScope,
        Guards { policy, trail }: Guards,
    ) -> io::Result<Self> {
        let journal = Arc::new(journal);
        Ok(Self {
            compactor: Compactor::start(journal.clone(), mailbox.clone())?,
            deliveries: Deliveries::default(),
            journal,
            launcher,
            mailbox,
            notices,
            outgoing: Outgoing::new(metrics.clone()),
            metrics,
            scope,
            begun: Vec::new(),
            attempts: BTreeMap::new(),
            tree_enders: TreeEnders::default(),
            checkpointer: Checkpointer::default(),
            permission: Permission::new(policy),
            trail,
            secrets: HeldSecrets::default(),
        })
    }

    pub(super) fn journal(&self) -> &StateDir {
        &self.journal
    }

    pub(super) fn metrics(&self) -> &AgentMetrics {
        &self.metrics
    }

    /// The audit records.
    pub(super) fn trail(&mut self) -> &mut Trail {
        &mut self.trail
    }

    pub(super) fn notices(&self) -> &OutputNotices {
        &self.notices
    }

    pub(super) fn set_outbox(&mut self, outbox: Option<mpsc::Sender<ToOperator>>) {
        self.outgoing.set_outbox(outbox);
    }

    /// The Attempts in the Journal.
    pub(super) fn attempts(&self) -> impl Iterator<Item = &AttemptId> {
        self.attempts.values()
    }

    /// The Attempt in the directory of this name.
    pub(super) fn attempt_in(&self, directory: &str) -> Option<AttemptId> {
        self.attempts.get(directory).cloned()
    }

    /// Reaps supervisors and threads that have ended.
    pub(super) fn reap(&mut self) {
        self.launcher.reap();
        for _ in 0..self.launcher.take_replaced() {
            self.metrics.count_restart("fork-server");
        }
        self.tree_enders.reap(&self.metrics);
    }

    /// Carries out an effect, in the span of the Attempt that it is about.
    pub(super) fn perform(&mut self, effect: Effect) -> Option<Event> {
        let span = effect.attempt().map(attempt_span);
        let _entered = span.as_ref().map(tracing::Span::enter);
        match effect {
            Effect::SetEpoch(epoch) => {
                self.metrics.set_highest_epoch(epoch);
                let set = self.journal.set_highest_epoch(epoch);
                set.err().map(|error| journal_failed(&error))
            }
            Effect::Record(admitted) => {
                let (permit, attempt) = (admitted.permit.as_ref(), &admitted.start.attempt);
                match permit.map_or(Ok(()), |permit| self.permission.use_up(permit, attempt)) {
                    Ok(()) => {
                        self.secrets.keep(attempt);
                        Some(self.record(*admitted, Self::create))
                    }
                    Err(why) => Some(Event::NotRecorded { attempt: attempt.clone(), why }),
                }
            }
            Effect::KeepSecrets(attempt) => {
                self.secrets.keep(&attempt);
                None
            }
            Effect::Confirm(admitted) => {
                if let Err(refusal) = self.use_up_again(&admitted) {
                    return Some(Event::LaunchRefused { attempt: admitted.start.attempt, refusal });
                }
                self.secrets.keep(&admitted.start.attempt);
                // Its Spool is about to be replaced; `record` publishes the new one.
                self.notices.forget(&admitted.start.attempt);
                Some(self.record(*admitted, |performer, accepted| performer.journal.replace(&accepted)))
            }
            Effect::Launch(attempt) => self.launch(attempt),
            Effect::RequestCancel { attempt, by } => self.request_cancel(attempt, by),
            Effect::EndTree(attempt) => {
                let dir = self.journal.attempt(&attempt);
                self.tree_enders.start(attempt, dir, self.mailbox.clone());
                None
            }
            Effect::Abandon { attempt, ended } => self.abandon(attempt, *ended),
            Effect::Conclude { attempt, ended } => self.conclude(attempt, *ended),
            Effect::Inspect(attempt) => self.inspect_attempt(&attempt),
            Effect::NoteAck { attempt, stage } => self.note_ack(&attempt, stage),
            Effect::WriteTombstone(tombstone) => {
                match self.journal.write_tombstone(&tombstone_to_journal(&tombstone)) {
                    Ok(()) => Some(Event::TombstoneWritten(tombstone)),
                    Err(error) => Some(journal_failed(&error)),
                }
            }
            Effect::Compact(tombstone) => self.compact(tombstone),
            Effect::Send(message) => {
                self.outgoing.send(&self.journal, message).err().map(|e| journal_failed(&e))
            }
            Effect::Ignored { what, .. } => self.count_ignored(what),
        }
    }

    /// What the Journal has accepted, if this Attempt is in it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn accepted(&self, attempt: &AttemptId) -> Result<Option<Accepted>, JournalError> {
        self.journal.attempt(attempt).accepted()
    }

    fn use_up_again(&self, admitted: &Admitted) -> Result<(), Refusal> {
        let Admitted { start, permit: Some(permit) } = admitted else { return Ok(()) };
        let accepted = self.accepted(&start.attempt).ok().flatten();
        self.permission.use_up_again(permit, &start.attempt, accepted.as_ref())
    }

    /// The Attempt's command was started, or it ended: its request was made durable before.
    fn note_durable(&mut self, dir: &AttemptDir, attempt: &AttemptId) {
        self.journal.note_durable(dir);
        self.outgoing.drop_held(attempt);
    }

    /// Whether Reports wait for the disk.
    pub(super) fn has_held(&self) -> bool {
        self.outgoing.has_held()
    }

    /// Makes durable what is not yet, and sends the Reports that waited for it.
    pub(super) fn send_held(&mut self) -> Option<Event> {
        self.outgoing.send_held(&self.journal).err().map(|error| journal_failed(&error))
    }

    /// Makes Attempts durable whose results have waited for a while.
    pub(super) fn checkpoint(&mut self) {
        self.checkpointer.run(&self.journal);
    }

    fn count_ignored(&self, what: Ignored) -> Option<Event> {
        let total = self.metrics.count_ignored();
        tracing::warn!(reason = what.as_str(), total, "ignored a message of the operator");
        None
    }

    fn record(
        &mut self,
        admitted: Admitted,
        create: fn(&mut Self, Accepted) -> Result<AttemptDir, JournalError>,
    ) -> Event {
        let Admitted { start, permit } = admitted;
        let (attempt, credit) = (start.attempt.clone(), start.credit);
        let accepted = match Accepted::now(start) {
            Ok(accepted) => Accepted { permit, ..accepted },
            Err(error) => {
                self.secrets.forget(&attempt);
                let message = format!("failed to read the boot id: {}", describe(&error));
                let why = Refusal::JournalUnsafe { message: message.into() };
                return Event::NotRecorded { attempt, why };
            }
        };
        match create(self, accepted) {
            Ok(dir) => {
                self.attempts.insert(dir.name().to_owned(), attempt.clone());
                self.permission.note_recorded(&attempt);
                self.begun.push((attempt.clone(), dir, credit));
                KillPoint::AgentRecorded.pass(self.journal.root());
                Event::Recorded { attempt }
            }
            Err(error) => {
                self.secrets.forget(&attempt);
                self.not_recorded(attempt, &error)
            }
        }
    }

    /// In the directory that the idle supervisor has prepared, if it is ready.
    fn create(&mut self, accepted: Accepted) -> Result<AttemptDir, JournalError> {
        let ready = self.launcher.ready_name();
        let (dir, is_prepared) = self.journal.create_in(ready.as_deref(), accepted)?;
        if is_prepared {
            self.launcher.bind(&dir);
        }
        Ok(dir)
    }

    /// Has the output of new Attempts followed: after their launch, as it wakes another thread.
    pub(super) fn publish_begun(&mut self) {
        for (attempt, dir, credit) in self.begun.drain(..) {
            self.notices.begin(&attempt, &dir, credit);
        }
    }

    /// Whether no supervisor waits, though some should.
    pub(super) fn has_no_standby(&self) -> bool {
        self.launcher.has_no_standby()
    }

    /// Whether a supervisor is to be started in advance.
    pub(super) fn lacks_standby(&self) -> bool {
        self.launcher.lacks_standby()
    }

    /// Starts the next supervisor in advance.
    pub(super) fn prefork(&mut self) {
        self.launcher.prefork();
    }

    fn not_recorded(&self, attempt: AttemptId, error: &JournalError) -> Event {
        if error.is_disk_full() && !shortage::is_out_of_inodes(self.journal.root()) {
            let free = self.journal.free_bytes().unwrap_or(0);
            let directory = Some(self.journal.root().display().to_string());
            tracing::warn!(free, error = describe(error), "the disk is full; the attempt is refused");
            let needed = EMERGENCY_FREE.max(free.saturating_add(1));
            let why = Refusal::DiskLow { free, needed, directory: directory.map(Into::into) };
            return Event::NotRecorded { attempt, why };
        }
        if let JournalError::Unsafe { .. } = error {
            // It is refused, so it must not be in the Journal at the next start.
            if let Err(error) = self.journal.remove(&self.journal.attempt(&attempt)) {
                tracing::error!(error = describe(&error), "failed to remove what was not recorded");
            }
            return journal_failed(error);
        }
        let message = describe(error);
        tracing::error!(category = error.category().as_str(), error = message, "failed to record an attempt");
        Event::NotRecorded { attempt, why: Refusal::JournalUnsafe { message: message.into() } }
    }

    /// Writes the start to the log, hands the Attempt to a supervisor, and makes the start durable while the command is prepared.
    fn launch(&mut self, attempt: AttemptId) -> Option<Event> {
        let dir = self.journal.attempt(&attempt);
        if let Err(refusal) = self.permission.check_again(&dir, &attempt) {
            return Some(Event::LaunchRefused { attempt, refusal });
        }
        let record = |supervisor: &ProcessIdentity| {
            let starting =
                AttemptState::Starting { supervisor: supervisor.clone(), command: None, cgroup: None };
            match self.journal.log_start(&dir, &starting) {
                Ok(true) => StartRecord::InLog,
                _ => StartRecord::BySupervisor,
            }
        };
        let launched = self.launcher.launch_with(&dir, self.secrets.of(&attempt), record);
        KillPoint::AgentLaunched.pass(self.journal.root());
        match launched {
            Ok(unconfirmed) => match self.journal.sync() {
                Ok(()) => {
                    unconfirmed.confirm();
                    None
                }
                Err(error) => {
                    unconfirmed.refuse();
                    Some(journal_failed(&error))
                }
            },
            Err(error) => Some(Event::LaunchFailed { attempt, message: describe(&error) }),
        }
    }

    fn request_cancel(&mut self, attempt: AttemptId, by: Option<Requester>) -> Option<Event> {
        let requested = self.journal.attempt(&attempt).request_cancel(host::wall_clock(), by);
        requested.err().map(|error| {
            tracing::error!(error = describe(&error), "unable to record a cancel request; will retry");
            Event::CancelNotRequested { attempt }
        })
    }

    /// Inspects an Attempt on disk and in the kernel.
    fn inspect_attempt(&mut self, attempt: &AttemptId) -> Option<Event> {
        let dir = self.journal.attempt(attempt);
        match inspect(&dir, &self.scope) {
            Ok(Some(seen)) => {
                if seen.running.is_some() || seen.ended.is_some() {
                    self.secrets.forget(attempt);
                    self.note_durable(&dir, attempt);
                }
                if let Some(ended) = &seen.ended {
                    self.checkpointer.note_ended(dir);
                    KillPoint::AgentSawExit.pass(self.journal.root());
                    self.notices.ended(&seen.attempt, ended.output.end);
                }
                Some(Event::Observed(seen))
            }
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(
                    category = error.category().as_str(),
                    error = describe(&error),
                    "unable to inspect an attempt; will retry"
                );
                None
            }
        }
    }

    /// Takes an Attempt over that was in the Journal when the agent started; `None` when its request cannot be read.
    pub(super) fn replay(&mut self, dir: &AttemptDir, loaded: &Loaded) -> Option<AttemptSnapshot> {
        let seen = inspect(dir, &self.scope).unwrap_or_else(|error| {
            tracing::error!(
                attempt = dir.name(),
                category = error.category().as_str(),
                error = describe(&error),
                "failed to read the record of an attempt"
            );
            None
        })?;
        self.attempts.insert(dir.name().to_owned(), seen.attempt.clone());
        if let Loaded::Readable(record) = loaded {
            self.trail.catch_up(record);
            let end = record.exit.as_ref().map(|ended| ended.output.end);
            if end.is_none_or(|end| record.delivery.archived < end) {
                self.resume_output(&seen.attempt, dir, end);
            }
        }
        Some(seen)
    }

    fn resume_output(&self, attempt: &AttemptId, dir: &AttemptDir, end: Option<u64>) {
        match spool::Reader::open(dir).and_then(|mut reader| reader.oldest()) {
            Ok(oldest) => {
                self.notices.resume(attempt, dir, oldest);
                if let Some(end) = end {
                    self.notices.ended(attempt, end);
                }
            }
            Err(error) => attempt_span(attempt).in_scope(|| {
                tracing::error!(
                    category = error.category().as_str(),
                    error = describe(&error),
                    "failed to open the output of an attempt"
                );
            }),
        }
    }

    fn note_ack(&mut self, attempt: &AttemptId, stage: Stage) -> Option<Event> {
        KillPoint::AgentAcked.pass(self.journal.root());
        self.deliveries.note_acked(self.journal.attempt(attempt), stage);
        None
    }

    pub(super) fn note_archived(&mut self, attempt: &AttemptId, position: u64) {
        self.deliveries.note_archived(self.journal.attempt(attempt), position);
    }

    /// Whether acknowledgements are to be written.
    pub(super) fn has_deliveries(&self) -> bool {
        self.deliveries.has_changes()
    }

    /// Writes them.
    pub(super) fn write_deliveries(&mut self) {
        self.deliveries.write();
    }

    fn compact(&mut self, tombstone: Tombstone) -> Option<Event> {
        self.notices.forget(&tombstone.attempt);
        self.deliveries.forget(&self.journal.attempt(&tombstone.attempt));
        if !self.compactor.compact(tombstone) {
            tracing::warn!("too many forgotten attempts wait to be removed; will retry");
        }
        None
    }

    /// Notes that an Attempt is not in the Journal any more.
    pub(super) fn note_compacted(&mut self, attempt: &AttemptId) {
        self.attempts.remove(&attempt.directory_name());
    }
}
