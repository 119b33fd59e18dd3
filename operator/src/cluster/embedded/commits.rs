//! Group commit: changes wait for the disk together.
//!
//! A change is queued under the lock of the state. Watches see those of people at once, and those of the controller once they are
//! durable. A waiter that finds the disk idle writes all that is queued; the others wait for that write, and then one of them
//! writes what was queued meanwhile.
//!
//! What people write is followed by a write of the controller, such as that of a Run, before its command starts: two waits
//! for the disk. So the first is held until the second has joined it, which writes both, or until [`HOLD`] has passed. Those
//! that only read wait with it.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::log_file::Change;
use crate::cluster::error::ClusterError;
use crate::later::later;

/// Turns that others get before a write begins: what they do about a change may join it.
const YIELDS: usize = 2;

/// The longest time for which a change is held for what follows from it: about that of a write, which it saves.
const HOLD: Duration = Duration::from_micros(400);

/// What a waiter does about a disk that is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It holds the write back for what follows from its change.
    Holds,
    /// It writes, and what is held with it.
    Writes,
    /// It writes unless others hold the write.
    Reads,
}

/// The changes of one cluster on their way to the disk.
#[derive(Debug)]
pub(super) struct Commits {
    queue: Mutex<Queue>,
    /// Locked by the one who writes.
    disk: Mutex<Disk>,
    /// While this file of a test exists, the disk counts as full. Release builds do not know it.
    no_room: PathBuf,
}

#[derive(Debug, Default)]
struct Queue {
    changes: Vec<Change>,
    /// Bytes of them in a log, and the bytes that the log has room for.
    bytes: u64,
    room: u64,
    /// The version of the latest change, and up to which they are durable.
    latest: u64,
    durable: u64,
    is_writing: bool,
    /// Waiters that hold the write, and will write in the end.
    holding: usize,
    waiting: Vec<Waker>,
    failed: Option<String>,
    #[cfg(test)]
    writes: usize,
    #[cfg(test)]
    hold_for: Option<Duration>,
}

impl Queue {
    /// Whether everything up to this version is durable; a version of its own that needed no write is not queued.
    fn has(&self, version: u64) -> bool {
        self.durable >= version.min(self.latest)
    }
}

impl Commits {
    pub(super) fn new(disk: Disk) -> Self {
        let queue = Queue { room: disk.room(), ..Queue::default() };
        let no_room = disk.directory().join("no-room");
        Self { queue: Mutex::new(queue), disk: Mutex::new(disk), no_room }
    }

    /// Queues a change that brings the cluster to this version. There is room for it on the disk then: once a change is seen, it
    /// must become durable.
    ///
    /// # Errors
    /// The disk is full: it may be tried again. Or an earlier write has failed: nothing more is stored.
    pub(super) fn queue(&self, version: u64, change: Change) -> Result<(), ClusterError> {
        let mut queue = self.lock();
        if let Some(failed) = &queue.failed {
            return Err(unavailable(failed));
        }
        if cfg!(debug_assertions) && self.no_room.exists() {
            return Err(full("a test has filled the disk"));
        }
        let bytes = queue.bytes + change.encoded_len();
        if bytes > queue.room {
            // Rare: the log is full, and its objects could not be written to their files yet.
            queue.room = self.disk.lock().unwrap_or_else(PoisonError::into_inner).reserve(bytes)?;
        }
        queue.bytes = bytes;
        queue.changes.push(change);
        queue.latest = version;
        Ok(())
    }

    /// The version of the latest change, when it is not durable yet.
    pub(super) fn pending(&self) -> Option<u64> {
        let queue = self.lock();
        (queue.durable < queue.latest).then_some(queue.latest)
    }

    /// Waits until all changes up to this version are durable.
    ///
    /// # Errors
    /// A write has failed, and it is not known what the disk has.
    pub(super) async fn durable(&self, version: u64, role: Role) -> Result<(), ClusterError> {
        match role {
            Role::Holds => self.hold(version).await,
            // What the one change was held for.
            Role::Writes if self.lock().holding == 1 => {}
            Role::Writes | Role::Reads => {
                for _ in 0..YIELDS {
                    if !self.lock().has(version) {
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
        std::future::poll_fn(|context| self.poll(version, role, context)).await
    }

    /// Holds the write until another has begun it, or for [`HOLD`].
    async fn hold(&self, version: u64) {
        let begun = Instant::now();
        let hold = Hold::of(self);
        while hold.is_needed(version) && begun.elapsed() < self.hold_for() {
            // No timer is as short. What follows may be another thread's turn, on this processor.
            std::thread::yield_now();
            tokio::task::yield_now().await;
        }
    }

    fn poll(&self, version: u64, role: Role, context: &Context<'_>) -> Poll<Result<(), ClusterError>> {
        loop {
            let (changes, latest) = {
                let mut queue = self.lock();
                if queue.has(version) {
                    return Poll::Ready(Ok(()));
                }
                if let Some(failed) = &queue.failed {
                    return Poll::Ready(Err(unavailable(failed)));
                }
                if queue.is_writing || (role == Role::Reads && queue.holding > 0) {
                    queue.waiting.push(context.waker().clone());
                    return Poll::Pending;
                }
                queue.is_writing = true;
                let bytes = std::mem::take(&mut queue.bytes);
                queue.room = queue.room.saturating_sub(bytes);
                (std::mem::take(&mut queue.changes), queue.latest)
            };
            let (written, room) = {
                let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
                (disk.append(changes), disk.room())
            };
            let mut queue = self.lock();
            queue.room = room;
            queue.is_writing = false;
            #[cfg(test)]
            {
                queue.writes += 1;
            }
            match written {
                Ok(()) => queue.durable = latest,
                Err(error) => {
                    let cause =
                        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::error!(%error, cause, "a change may be lost; nothing more is stored until a restart");
                    queue.failed = Some(format!("{error}: {cause}"));
                }
            }
            let waiting = std::mem::take(&mut queue.waiting);
            later(move || waiting.into_iter().for_each(Waker::wake));
        }
    }

    /// Keeps the disk from writing.
    #[cfg(test)]
    pub(super) fn hold_disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }

    /// Every write fails from now on.
    #[cfg(test)]
    pub(super) fn break_disk(&self) {
        self.disk.lock().unwrap().break_down();
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "a test sets it for one cluster")]
    fn hold_for(&self) -> Duration {
        HOLD
    }

    #[cfg(test)]
    fn hold_for(&self) -> Duration {
        self.lock().hold_for.unwrap_or(HOLD)
    }

    /// Holds changes for as long as this.
    #[cfg(test)]
    pub(super) fn set_hold(&self, hold_for: Duration) {
        self.lock().hold_for = Some(hold_for);
    }

    /// Writes so far.
    #[cfg(test)]
    pub(super) fn writes(&self) -> usize {
        self.lock().writes
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds the write while it exists.
struct Hold<'a>(&'a Commits);

impl<'a> Hold<'a> {
    fn of(commits: &'a Commits) -> Self {
        commits.lock().holding += 1;
        Self(commits)
    }

    /// Whether the change still waits for the disk, and it is idle.
    fn is_needed(&self, version: u64) -> bool {
        let queue = self.0.lock();
        !queue.has(version) && !queue.is_writing && queue.failed.is_none()
    }
}

impl Drop for Hold<'_> {
    /// Also when its waiter was dropped: then another of those that wait writes.
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.holding -= 1;
        if queue.holding == 0 && !queue.is_writing {
            queue.waiting.drain(..).for_each(Waker::wake);
        }
    }
}

fn full(why: &'static str) -> ClusterError {
    let source = Box::new(std::io::Error::other(why));
    ClusterError::Unavailable { doing: "store a change".to_owned(), source }
}

fn unavailable(failed: &str) -> ClusterError {
    let source = std::io::Error::other(format!("{failed}; nothing is stored until a restart"));
    ClusterError::Unavailable { doing: "store a change".to_owned(), source: Box::new(source) }
}
