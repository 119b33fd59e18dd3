//! The directory of one Attempt: its records, and the lock that a supervisor holds.

use std::cell::OnceCell;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sentinel_protocol::ids::{RunNumber, TaskUid, canonical_number};
use sentinel_protocol::requester::Requester;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::Ended;

use crate::private_dir::{self, Untrusted};

use super::attempt_record::{
    Abandonment, Accepted, AttemptRecord, AttemptState, CancelRequest, Delivery, Loaded,
};
use super::error::JournalError;
use super::file_lock::FileLock;
use super::record_file;
use super::wakeup::{AgentWaker, SupervisorWakeups, wake_supervisor};
use super::wal_slot::{Part, Slot};

pub(super) const REQUEST: &str = "request";
pub(super) const STATE: &str = "state";
/// The state *starting*, prepared, which only has to be renamed.
pub(super) const STARTING: &str = "state.starting";
pub(crate) const CANCEL: &str = "cancel";
pub(crate) const EXIT: &str = "exit";
pub(super) const EXIT_RESERVE: &str = "exit.reserve";
const DELIVERY: &str = "delivery";
pub(crate) const LOG: &str = "log";
pub(crate) const SUPERVISOR_LOG: &str = "supervisor.log";

/// Room kept for the exit record; the longest one is about half of it.
pub(super) const EXIT_ROOM: u64 = 8 << 10;

/// The path of an Attempt. A value only: nothing is opened or locked by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptDir {
    path: PathBuf,
}

/// The result of [`AttemptDir::abandon`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbandonResult {
    /// It is abandoned: nothing was started, and nothing will be.
    Abandoned,
    /// A supervisor has taken it.
    TooLate,
}

impl AttemptDir {
    /// The Attempt at this path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state directory it is in, two levels up.
    pub(crate) fn state_dir(&self) -> &Path {
        self.path.parent().and_then(Path::parent).unwrap_or(&self.path)
    }

    /// Its name, `<task uid>.<run>.<attempt>`.
    pub fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Task, Run and number of the Attempt, from its name. Known even when its records cannot be read.
    pub fn name_parts(&self) -> Option<(TaskUid, RunNumber, u32)> {
        let mut parts = self.name().split('.');
        let task = TaskUid::new(parts.next()?).ok()?;
        let run = RunNumber(canonical_number(parts.next()?)?);
        let attempt = canonical_number(parts.next()?)?;
        parts.next().is_none().then_some((task, run, attempt))
    }

    /// The folder of its Spool.
    pub fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Everything the Journal records about it now.
    ///
    /// # Errors
    /// When the disk cannot be read. A damaged record is not an error but [`Loaded::Corrupt`].
    pub fn load(&self) -> Result<Loaded, JournalError> {
        let read = || {
            let corrupt = |why| JournalError::Corrupt { path: self.file(REQUEST), why };
            // The exit record is read before the state: the supervisor writes them in the other order.
            let exit = self.exit()?;
            let accepted = self.accepted()?.ok_or_else(|| corrupt("missing".to_owned()))?;
            let of = accepted.start.attempt.directory_name();
            if of != self.name() {
                return Err(corrupt(format!("the request of attempt {of}")));
            }
            Ok(AttemptRecord {
                accepted,
                state: self.state()?,
                cancel_requested: self.is_cancel_requested(),
                exit,
                delivery: self.delivery()?,
            })
        };
        match read() {
            Ok(record) => Ok(Loaded::Readable(Box::new(record))),
            Err(error @ JournalError::Corrupt { .. }) => Ok(Loaded::Corrupt { why: error.to_string() }),
            Err(error) => Err(error),
        }
    }

    /// The request; `None` when there is no such Attempt.
    ///
    /// # Errors
    /// When the record is unreadable.
    pub fn accepted(&self) -> Result<Option<Accepted>, JournalError> {
        record_file::read_by(&self.file(REQUEST), Accepted::from_json)
    }

    /// How far it has come.
    ///
    /// # Errors
    /// When the record is unreadable.
    pub fn state(&self) -> Result<AttemptState, JournalError> {
        Ok(record_file::read(&self.file(STATE))?.unwrap_or(AttemptState::Accepted))
    }

    /// How it ended; `None` while it has not.
    ///
    /// # Errors
    /// When the record is unreadable.
    pub fn exit(&self) -> Result<Option<Ended>, JournalError> {
        record_file::read(&self.file(EXIT))
    }

    /// What the operator has acknowledged. A damaged record counts as empty: it is not synced, so that a power cut may leave
    /// half of it. The only consequence is that Reports and output are sent once more.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn delivery(&self) -> Result<Delivery, JournalError> {
        match record_file::read(&self.file(DELIVERY)) {
            Ok(delivery) => Ok(delivery.unwrap_or_default()),
            Err(JournalError::Corrupt { .. }) => Ok(Delivery::default()),
            Err(error) => Err(error),
        }
    }

    /// Records what the operator has acknowledged, without waiting for the disk: the only consequence of a loss is that a
    /// Report or output is sent once more. The agent's thread writes it while Starts are queued.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn set_delivery(&self, delivery: &Delivery) -> Result<(), JournalError> {
        record_file::replace_unsynced(&self.file(DELIVERY), delivery)
    }

    /// Asks the supervisor to end the command; durable on return, idempotent.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn request_cancel(&self, at: UnixMillis, by: Option<Requester>) -> Result<(), JournalError> {
        if !self.is_cancel_requested() {
            record_file::replace(&self.file(CANCEL), &CancelRequest { at, requested_by: by })?;
        }
        self.wake_supervisor();
        Ok(())
    }

    /// Whether the supervisor was asked to end the command. The presence of the file counts, not its content.
    pub fn is_cancel_requested(&self) -> bool {
        self.file(CANCEL).exists()
    }

    /// Who asked to end the command, for people. Earlier releases wrote only the time; one that cannot be read names no person.
    pub fn cancelled_by(&self) -> Option<Requester> {
        record_file::read::<CancelRequest>(&self.file(CANCEL)).ok()??.requested_by
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    /// When the directory cannot be opened or locked.
    pub fn try_lock(&self) -> Result<Option<AttemptLock>, JournalError> {
        let lock = FileLock::try_take(self.open()?).map_err(|e| JournalError::io("lock", &self.path, e))?;
        Ok(lock.map(|lock| AttemptLock::new(lock, self.clone())))
    }

    /// Takes the lock, waiting until it is free.
    ///
    /// # Errors
    /// When the directory cannot be opened or locked.
    pub fn lock(&self) -> Result<AttemptLock, JournalError> {
        let lock = FileLock::take(self.open()?).map_err(|e| JournalError::io("lock", &self.path, e))?;
        Ok(AttemptLock::new(lock, self.clone()))
    }

    /// Wakes the supervisor, if one is waiting; see [`super::wakeup`].
    pub(crate) fn wake_supervisor(&self) {
        wake_supervisor(&self.path);
    }

    /// The supervisor's end of the agent's pipe.
    pub(crate) fn agent_waker(&self) -> AgentWaker {
        AgentWaker::new(self.state_dir(), self.name())
    }

    /// The pipe by which the agent wakes the supervisor.
    pub(crate) fn supervisor_wakeups(&self) -> std::io::Result<SupervisorWakeups> {
        SupervisorWakeups::open(&self.path)
    }

    fn open(&self) -> Result<File, JournalError> {
        match private_dir::open_existing(&self.path) {
            Ok(dir) => Ok(dir),
            Err(Untrusted::Io { source, .. }) => Err(JournalError::io("open", &self.path, source)),
            Err(error) => Err(error.into()),
        }
    }

    /// Abandons it, if it certainly was not started. A supervisor that comes later finds this and exits.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn abandon(&self, why: Abandonment) -> Result<AbandonResult, JournalError> {
        let Some(lock) = self.try_lock()? else { return Ok(AbandonResult::TooLate) };
        if lock.exit()?.is_some() {
            return Ok(AbandonResult::TooLate);
        }
        match self.state()? {
            AttemptState::Accepted => {
                lock.set_state(&AttemptState::Abandoned { why })?;
                Ok(AbandonResult::Abandoned)
            }
            AttemptState::Abandoned { .. } => Ok(AbandonResult::Abandoned),
            AttemptState::Starting { .. } | AttemptState::Running { .. } => Ok(AbandonResult::TooLate),
        }
    }

    /// Makes everything in it durable, without the write-ahead log: the records, the output, the names.
    ///
    /// # Errors
    /// [`JournalError::Unsafe`] when something could not be synced.
    pub(crate) fn make_durable(&self) -> Result<(), JournalError> {
        for name in [REQUEST, STATE, EXIT] {
            record_file::sync_existing(&self.file(name))?;
        }
        for segment in fs::read_dir(self.log()).into_iter().flatten().flatten() {
            record_file::sync_existing(&segment.path())?;
        }
        record_file::sync_existing(&self.log())?;
        record_file::sync_dir(&self.path)?;
        self.path.parent().map_or(Ok(()), record_file::sync_dir)
    }

    /// Removes it with its output.
    ///
    /// # Errors
    /// When a part of it cannot be removed.
    pub fn remove(&self) -> Result<(), JournalError> {
        // Renamed first: what a crash leaves is not an Attempt any more, and is removed at the next start.
        let doomed = self.path.with_file_name(format!("{GONE}{}", self.name()));
        match fs::rename(&self.path, &doomed) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(JournalError::io("remove", &self.path, error)),
        }
        fs::remove_dir_all(&doomed).map_err(|e| JournalError::io("remove", &doomed, e))
    }
}

/// Prefix of a directory that is being created.
pub(super) const NEW: &str = ".new.";
/// Prefix of a directory that is being removed.
pub(super) const GONE: &str = ".gone.";
/// Prefix of a directory that waits for an Attempt.
pub(super) const READY: &str = ".ready.";

pub(super) fn make_dir(path: &Path) -> Result<(), JournalError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| JournalError::io("create the directory", path, e))
}

/// The kernel lock on an Attempt's directory: its holder alone writes states and the exit record. The kernel releases
/// it when the holder dies.
#[derive(Debug)]
pub struct AttemptLock {
    /// `None` where the parent of this process holds it.
    lock: Option<FileLock>,
    attempt: AttemptDir,
    /// Its place in the write-ahead log, once it was asked for.
    slot: OnceCell<Option<Slot>>,
}

impl AttemptLock {
    pub(super) fn new(lock: FileLock, attempt: AttemptDir) -> Self {
        Self { lock: Some(lock), attempt, slot: OnceCell::new() }
    }

    /// The lock that the parent of this process holds, for as long as this process does its work.
    pub(crate) fn of_parent(attempt: &AttemptDir) -> Self {
        Self { lock: None, attempt: attempt.clone(), slot: OnceCell::new() }
    }

    /// The Attempt it locks.
    pub fn attempt(&self) -> &AttemptDir {
        &self.attempt
    }

    /// The Attempt's request; `None` when there is no such Attempt.
    ///
    /// # Errors
    /// When the record is unreadable.
    pub fn accepted(&self) -> Result<Option<Accepted>, JournalError> {
        let accepted = self.attempt.accepted()?;
        // A process that borrows the lock needs the log only where its agent has died.
        if let Some(accepted) = accepted.as_ref().filter(|_| self.lock.is_some()) {
            self.slot.get_or_init(|| self.open_slot(accepted));
        }
        Ok(accepted)
    }

    /// The Attempt's place in the write-ahead log; `None` when its directory is durable instead.
    pub(crate) fn slot(&self) -> Option<&Slot> {
        let open = || self.open_slot(&self.attempt.accepted().ok().flatten()?);
        self.slot.get_or_init(open).as_ref()
    }

    fn open_slot(&self, accepted: &Accepted) -> Option<Slot> {
        Slot::open(self.attempt.state_dir(), accepted.slot?)
    }

    /// Records how far the Attempt has come. The kernel keeps it while the machine runs; after a loss of power the start that
    /// was announced counts.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_state(&self, state: &AttemptState) -> Result<(), JournalError> {
        record_file::replace_unsynced(&self.attempt.file(STATE), state)
    }

    /// As [`Self::set_state`], for the state with which the supervisor of this process has prepared the directory; false where it has
    /// not.
    pub(crate) fn set_prepared_start(&self) -> bool {
        fs::rename(self.attempt.file(STARTING), self.attempt.file(STATE)).is_ok()
    }

    /// Records that the command may start as soon as what this returns was synced. After a loss of power the record may be
    /// unreadable. That is enough, as no process survives a reboot: what may have been started is lost either way, and is
    /// never started again.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn announce_start(&self, starting: &AttemptState) -> Result<Announced<'_>, JournalError> {
        let path = self.attempt.file(STATE);
        if let Some(slot) = self.slot()
            && slot.write(Part::Start, starting)?
        {
            record_file::replace_unsynced(&path, starting)?;
            return Ok(Announced(Some(slot)));
        }
        record_file::announce(&path, starting)?;
        if self.slot().is_some() {
            self.attempt.make_durable()?;
        }
        Ok(Announced(None))
    }

    /// How it ended; a record that is complete and has not got its name yet counts.
    ///
    /// # Errors
    /// When the record is unreadable.
    pub fn exit(&self) -> Result<Option<Ended>, JournalError> {
        if let Some(ended) = self.attempt.exit()? {
            return Ok(Some(ended));
        }
        let reserved = record_file::read(&self.attempt.file(EXIT_RESERVE)).unwrap_or(None);
        Ok(reserved.or_else(|| self.slot()?.read(Part::Exit)))
    }

    /// Records how it ended, once: an existing record is kept and returned. Durable on return; it needs no additional room
    /// on the disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record_exit(&self, ended: Ended) -> Result<Ended, JournalError> {
        if let Some(ended) = self.attempt.exit()? {
            return Ok(ended);
        }
        let ended = self.exit()?.unwrap_or(ended);
        let (reserve, path) = (self.attempt.file(EXIT_RESERVE), self.attempt.file(EXIT));
        if let Some(slot) = self.slot() {
            // Durable before it has its name, as it is reported once it has.
            if slot.write(Part::Exit, &ended)? && slot.sync().is_ok() {
                record_file::fill_reserve_unsynced(&reserve, &path, &ended)?;
                return Ok(ended);
            }
            self.attempt.make_durable()?;
        }
        record_file::fill_reserve(&reserve, &path, &ended)?;
        Ok(ended)
    }
}

/// A start that was announced, durable once it was synced.
#[derive(Debug)]
#[must_use]
pub struct Announced<'a>(Option<&'a Slot>);

impl Announced<'_> {
    /// Makes it durable.
    ///
    /// # Errors
    /// When the log could not be synced; nothing may be started then.
    pub fn sync(&self) -> Result<(), JournalError> {
        self.0.map_or(Ok(()), Slot::sync)
    }
}
