//! The directory of one Attempt.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use sentinel_protocol::ids::{RunNumber, TaskUid};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::Ended;

use crate::private_dir::{self, Untrusted};

use super::entry::{Abandonment, Accepted, AttemptState, Delivery, Entry, Loaded};
use super::{JournalError, record};

pub(super) const REQUEST: &str = "request";
const STATE: &str = "state";
pub(crate) const CANCEL: &str = "cancel";
pub(crate) const EXIT: &str = "exit";
pub(super) const EXIT_RESERVE: &str = "exit.reserve";
const DELIVERY: &str = "delivery";
pub(crate) const LOG: &str = "log";
pub(crate) const SUPERVISOR_LOG: &str = "supervisor.log";

/// Room kept for the exit record; the longest one is about half of it.
pub(super) const EXIT_ROOM: u64 = 8 << 10;

/// Where an Attempt is kept. A name only: nothing is opened or held by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptDir {
    path: PathBuf,
}

/// What became of the wish to give an Attempt up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is given up: nothing was started, and nothing will be.
    Abandoned,
    /// A supervisor has it, or has had it.
    TooLate,
}

impl AttemptDir {
    /// The Attempt kept at this path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state directory that it is in, two levels up.
    pub(crate) fn state_dir(&self) -> &Path {
        self.path.parent().and_then(Path::parent).unwrap_or(&self.path)
    }

    /// Its name, `<task uid>.<run>.<attempt>`.
    pub fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// What its name says: Task, Run and number of the Attempt. Known also when its records are unreadable.
    pub fn name_parts(&self) -> Option<(TaskUid, RunNumber, u32)> {
        let mut parts = self.name().split('.');
        let task = TaskUid::new(parts.next()?).ok()?;
        let run = RunNumber(parts.next()?.parse().ok()?);
        let attempt = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some((task, run, attempt))
    }

    /// The folder of its Spool.
    pub fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Everything the Journal says about it now.
    ///
    /// # Errors
    /// When the disk cannot be read. A damaged record is no error but [`Loaded::Corrupt`].
    pub fn load(&self) -> Result<Loaded, JournalError> {
        let entry = || {
            let corrupt = |why| JournalError::Corrupt { path: self.file(REQUEST), why };
            // The exit record is read before the state: the supervisor writes them in the other order.
            let exit = self.exit()?;
            let accepted = self.accepted()?.ok_or_else(|| corrupt("it is missing".to_owned()))?;
            let of = accepted.start.attempt.directory_name();
            if of != self.name() {
                return Err(corrupt(format!("it is the request of attempt {of}")));
            }
            Ok(Entry {
                accepted,
                state: self.state()?,
                cancel_requested: self.is_cancel_requested(),
                exit,
                delivery: self.delivery()?,
            })
        };
        match entry() {
            Ok(entry) => Ok(Loaded::Entry(Box::new(entry))),
            Err(error @ JournalError::Corrupt { .. }) => {
                Ok(Loaded::Corrupt { dir: self.clone(), why: error.to_string() })
            }
            Err(error) => Err(error),
        }
    }

    /// The request; `None` when there is no such Attempt.
    ///
    /// # Errors
    /// When the record is unreadable.
    pub fn accepted(&self) -> Result<Option<Accepted>, JournalError> {
        record::read(&self.file(REQUEST))
    }

    /// How far it came.
    ///
    /// # Errors
    /// When the record is unreadable.
    pub fn state(&self) -> Result<AttemptState, JournalError> {
        Ok(record::read(&self.file(STATE))?.unwrap_or(AttemptState::Accepted))
    }

    /// How it ended; `None` while it has not.
    ///
    /// # Errors
    /// When the record is unreadable.
    pub fn exit(&self) -> Result<Option<Ended>, JournalError> {
        record::read(&self.file(EXIT))
    }

    /// What the operator knows of it. Of a note that is damaged nothing is believed: notes are not synced, so
    /// a power cut may leave half of one. It only means that the operator is told once more.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn delivery(&self) -> Result<Delivery, JournalError> {
        match record::read(&self.file(DELIVERY)) {
            Ok(delivery) => Ok(delivery.unwrap_or_default()),
            Err(JournalError::Corrupt { .. }) => Ok(Delivery::default()),
            Err(error) => Err(error),
        }
    }

    /// Notes what the operator knows of it, without waiting for the disk: a note lost with the power only means that a
    /// Report or output is offered once more. The agent's one thread writes it while Starts wait for their turn.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn set_delivery(&self, delivery: &Delivery) -> Result<(), JournalError> {
        record::replace_unsynced(&self.file(DELIVERY), delivery)
    }

    /// Asks the supervisor to end the command; durable on return, harmless to repeat.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn request_cancel(&self, at: UnixMillis) -> Result<(), JournalError> {
        if !self.is_cancel_requested() {
            record::replace(&self.file(CANCEL), &at)?;
        }
        super::ring_supervisor(self);
        Ok(())
    }

    /// Whether the supervisor was asked to end the command. The presence of the file counts, not what it says.
    pub fn is_cancel_requested(&self) -> bool {
        self.file(CANCEL).exists()
    }

    /// Takes the lock if nobody holds it.
    ///
    /// # Errors
    /// When the directory cannot be opened or locked.
    pub fn try_lock(&self) -> Result<Option<AttemptLock>, JournalError> {
        let dir = self.open()?;
        match dir.try_lock() {
            Ok(()) => Ok(Some(AttemptLock { _dir: dir, at: self.clone() })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(JournalError::io("lock", &self.path, error)),
        }
    }

    /// Takes the lock, waiting for whoever holds it.
    ///
    /// # Errors
    /// When the directory cannot be opened or locked.
    pub fn lock(&self) -> Result<AttemptLock, JournalError> {
        let dir = self.open()?;
        loop {
            match dir.lock() {
                Ok(()) => return Ok(AttemptLock { _dir: dir, at: self.clone() }),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(JournalError::io("lock", &self.path, error)),
            }
        }
    }

    fn open(&self) -> Result<File, JournalError> {
        match private_dir::open_existing(&self.path) {
            Ok(dir) => Ok(dir),
            Err(Untrusted::Io { source, .. }) => Err(JournalError::io("open", &self.path, source)),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives it up, if it surely was not started. A supervisor that comes later finds this and ends.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn abandon(&self, why: Abandonment) -> Result<Verdict, JournalError> {
        let Some(lock) = self.try_lock()? else { return Ok(Verdict::TooLate) };
        if lock.exit()?.is_some() {
            return Ok(Verdict::TooLate);
        }
        match self.state()? {
            AttemptState::Accepted => {
                lock.set_state(&AttemptState::Abandoned { why })?;
                Ok(Verdict::Abandoned)
            }
            AttemptState::Abandoned { .. } => Ok(Verdict::Abandoned),
            AttemptState::Starting { .. } | AttemptState::Running { .. } => Ok(Verdict::TooLate),
        }
    }

    /// Removes it with its output.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    pub fn remove(&self) -> Result<(), JournalError> {
        // Renamed first: whatever a crash leaves is no Attempt any more and is swept at the next start.
        let doomed = self.path.with_file_name(format!("{GONE}{}", self.name()));
        match fs::rename(&self.path, &doomed) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(JournalError::io("remove", &self.path, error)),
        }
        fs::remove_dir_all(&doomed).map_err(|e| JournalError::io("remove", &doomed, e))
    }
}

/// Prefix of a directory that is being made.
pub(super) const NEW: &str = ".new.";
/// Prefix of a directory that is being removed.
pub(super) const GONE: &str = ".gone.";

/// The kernel lock on an Attempt's directory: whoever holds it owns the truth about the Attempt. The kernel frees
/// it when the holder dies.
#[derive(Debug)]
pub struct AttemptLock {
    /// Open for as long as the lock is held.
    _dir: File,
    at: AttemptDir,
}

impl AttemptLock {
    /// The Attempt it locks.
    pub fn attempt(&self) -> &AttemptDir {
        &self.at
    }

    /// Notes how far the Attempt came; durable on return.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn set_state(&self, state: &AttemptState) -> Result<(), JournalError> {
        record::replace(&self.at.file(STATE), state)
    }

    /// Notes that it may start from now on; on return it is durable that there is a state, and no more: after a loss of
    /// power it may be unreadable. That says enough, as nothing survives a boot: what may have started then is lost
    /// either way, and is never started again.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn announce_start(&self, starting: &AttemptState) -> Result<(), JournalError> {
        record::announce(&self.at.file(STATE), starting)
    }

    /// How it ended, counting a record that is complete and was not renamed yet.
    ///
    /// # Errors
    /// When the record is unreadable.
    pub fn exit(&self) -> Result<Option<Ended>, JournalError> {
        if let Some(ended) = self.at.exit()? {
            return Ok(Some(ended));
        }
        Ok(record::read(&self.at.file(EXIT_RESERVE)).unwrap_or(None))
    }

    /// Writes how it ended, once: when a record is there already, that one stands and is returned. Durable on
    /// return; it needs no new room on the disk.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn record_exit(&self, ended: Ended) -> Result<Ended, JournalError> {
        let path = self.at.file(EXIT);
        if let Some(ended) = self.at.exit()? {
            return Ok(ended);
        }
        let ended = self.exit()?.unwrap_or(ended);
        record::fill_reserve(&self.at.file(EXIT_RESERVE), &path, &ended)?;
        Ok(ended)
    }
}
