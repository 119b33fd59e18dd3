//! How others reach the agent's thread.
//!
//! The queue is bounded. When it is full, whoever posts waits: the link stops reading its socket, and heartbeats go
//! on, since they do not pass through here.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use sentinel_core::agent::Event;
use sentinel_protocol::ids::{AttemptId, Epoch};
use sentinel_protocol::to_agent::ToAgent;
use sentinel_protocol::to_operator::ToOperator;
use tokio::sync::mpsc;

/// Inputs that may wait.
const CAPACITY: usize = 256;

/// What the agent's thread is told.
#[derive(Debug)]
pub(crate) enum Input {
    /// A Session stands, and this is where it takes its messages.
    Connected { epoch: Epoch, outbox: mpsc::Sender<ToOperator> },
    /// The Session is over.
    Disconnected,
    /// A message came.
    Message(ToAgent),
    /// What an effect that took its time led to.
    Happened(Box<Event>),
    /// History holds all output of an Attempt, up to this position.
    Archived { attempt: AttemptId, position: u64 },
    /// Take no more work, and end.
    Stop,
}

/// The sending side.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox {
    sender: mpsc::Sender<Input>,
    bell: Arc<OwnedFd>,
}

/// Room for one input.
pub(crate) struct Slot<'a> {
    permit: mpsc::Permit<'a, Input>,
    bell: &'a OwnedFd,
}

/// The receiving side.
#[derive(Debug)]
pub(crate) struct Inbox {
    receiver: mpsc::Receiver<Input>,
    bell: Arc<OwnedFd>,
}

/// The agent's thread is gone.
#[derive(Debug, thiserror::Error)]
#[error("the agent's thread has ended")]
pub(crate) struct Gone;

/// A mailbox and its inbox.
pub(crate) fn mailbox() -> std::io::Result<(Mailbox, Inbox)> {
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, receiver) = mpsc::channel(CAPACITY);
    Ok((Mailbox { sender, bell: bell.clone() }, Inbox { receiver, bell }))
}

impl Mailbox {
    /// Waits for room. Dropping the wait loses nothing.
    pub(crate) async fn slot(&self) -> Result<Slot<'_>, Gone> {
        let permit = self.sender.reserve().await.map_err(|_| Gone)?;
        Ok(Slot { permit, bell: &self.bell })
    }

    /// Whether whoever posts now has to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.sender.capacity() == 0
    }

    /// Posts, waiting for room.
    pub(crate) async fn post(&self, input: Input) -> Result<(), Gone> {
        self.slot().await.map(|slot| slot.post(input))
    }

    /// Posts from a plain thread, waiting for room.
    pub(crate) fn post_blocking(&self, input: Input) -> Result<(), Gone> {
        self.sender.blocking_send(input).map_err(|_| Gone)?;
        ring(&self.bell);
        Ok(())
    }

    /// Posts if there is room; for what is said again in time.
    pub(crate) fn try_post(&self, input: Input) -> bool {
        let posted = self.sender.try_send(input).is_ok();
        ring(&self.bell);
        posted
    }
}

impl Slot<'_> {
    pub(crate) fn post(self, input: Input) {
        self.permit.send(input);
        ring(self.bell);
    }
}

impl Inbox {
    /// The next input, if one is there.
    pub(crate) fn take(&mut self) -> Option<Input> {
        self.receiver.try_recv().ok()
    }

    /// Stops the bell; to be called before the inputs are taken.
    pub(crate) fn hush(&self) {
        let mut count = [0u8; 8];
        // Nothing to read means that nobody rang.
        let _ = rustix::io::read(&*self.bell, &mut count);
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

fn ring(bell: &OwnedFd) {
    // It fails only when the bell has rung 2^64 times without being heard, and then it is ringing.
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}
