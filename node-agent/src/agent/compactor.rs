//! Replaces the directories of forgotten Attempts by tombstones, in a thread of its own: the agent's thread has Starts to handle.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sentinel_core::agent::{Event, Tombstone};

use super::conversion::{journal_failed, tombstone_to_journal};
use crate::channel::{Input, Mailbox};
use crate::journal::{JournalError, StateDir};
use crate::kill_point::KillPoint;
use crate::shortage::describe;
use crate::spans::attempt_span;
use crate::supervisor;

/// Attempts that may wait to be compacted. One that finds no room is compacted when the operator asks for it again.
const CAPACITY: usize = 1024;

/// Tombstones that are made durable at once.
const BATCH: usize = 64;

/// How long an Attempt waits for others, and for commands to start.
const PUT_OFF_FOR: Duration = Duration::from_millis(10);

/// The thread; it ends when this is dropped, after what it was given.
pub(super) struct Compactor {
    sender: Option<SyncSender<Tombstone>>,
    thread: Option<JoinHandle<()>>,
}

impl Compactor {
    /// Starts it.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(journal: Arc<StateDir>, mailbox: Mailbox) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(CAPACITY);
        let thread = thread::Builder::new()
            .name("compactor".to_owned())
            .spawn(move || run(&journal, &mailbox, &receiver))?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    /// Compacts an Attempt, in time; the result is an event. False when there is no room.
    pub(super) fn compact(&self, tombstone: Tombstone) -> bool {
        let Some(sender) = &self.sender else { return false };
        !matches!(sender.try_send(tombstone), Err(TrySendError::Full(_) | TrySendError::Disconnected(_)))
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(journal: &StateDir, mailbox: &Mailbox, receiver: &Receiver<Tombstone>) {
    supervisor::let_others_run_first();
    while let Ok(first) = receiver.recv() {
        // A Forget often comes with the next Start, which needs the disk.
        thread::sleep(PUT_OFF_FOR);
        let batch: Vec<Tombstone> =
            std::iter::once(first).chain(receiver.try_iter().take(BATCH - 1)).collect();
        KillPoint::AgentForgets.pass(journal.root());
        let kept: Vec<_> = batch.iter().map(tombstone_to_journal).collect();
        let events = match journal.write_tombstones(&kept) {
            Ok(()) => batch.iter().filter_map(|tombstone| remove(journal, tombstone)).collect(),
            Err(error) => failed(&error).into_iter().collect::<Vec<_>>(),
        };
        for event in events {
            // Closed when the agent is exiting; the next one is asked again.
            let _ = mailbox.blocking_send(Input::Event(Box::new(event)));
        }
    }
}

fn remove(journal: &StateDir, tombstone: &Tombstone) -> Option<Event> {
    let attempt = tombstone.attempt.clone();
    attempt_span(&attempt).in_scope(|| match journal.remove(&journal.attempt(&attempt)) {
        Ok(()) => Some(Event::Compacted { attempt: attempt.clone() }),
        Err(error) => failed(&error),
    })
}

fn failed(error: &JournalError) -> Option<Event> {
    if let JournalError::Unsafe { .. } = error {
        return Some(journal_failed(error));
    }
    tracing::warn!(error = describe(error), "unable to remove a forgotten attempt; will retry");
    None
}
