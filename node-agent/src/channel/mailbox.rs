//! Inputs to the agent's thread.
//!
//! The queue is bounded. When it is full, senders wait: the control link stops reading its socket. Heartbeats are not
//! affected, since they do not pass through here.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use sentinel_core::agent::Event;
use sentinel_protocol::ids::{AttemptId, Epoch};
use sentinel_protocol::to_agent::ToAgent;
use sentinel_protocol::to_operator::ToOperator;
use sentinel_secrets::values::SecretValues;
use tokio::sync::mpsc;

/// Inputs that may be queued.
const CAPACITY: usize = 256;

/// One input to the agent's thread.
#[derive(Debug)]
pub(crate) enum Input {
    /// A Session was established; its outgoing messages go to `outbox`.
    Connected { epoch: Epoch, outbox: mpsc::Sender<ToOperator> },
    /// The Session has ended.
    Disconnected,
    /// The operator sent a message. The values of Secrets that came sealed in a `Start` are beside it, or why they cannot be used.
    Message { message: ToAgent, secrets: Option<Result<SecretValues, String>> },
    /// The result of an effect that ran in a thread of its own.
    Event(Box<Event>),
    /// History holds all output of an Attempt, up to this position.
    Archived { attempt: AttemptId, position: u64 },
    /// Take no more work, and exit.
    Stop,
}

/// The sending side.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox {
    sender: mpsc::Sender<Input>,
    eventfd: Arc<OwnedFd>,
}

/// Room for one input.
pub(crate) struct InputPermit<'a> {
    permit: mpsc::Permit<'a, Input>,
    eventfd: &'a OwnedFd,
}

/// The receiving side; readable when inputs are queued.
#[derive(Debug)]
pub(crate) struct Inbox {
    receiver: mpsc::Receiver<Input>,
    eventfd: Arc<OwnedFd>,
}

/// The agent's thread has exited.
#[derive(Debug, thiserror::Error)]
#[error("the agent's thread has exited")]
pub(crate) struct MailboxClosed;

/// A mailbox and its inbox.
///
/// # Errors
/// When the process may open no more descriptors.
pub(crate) fn mailbox() -> std::io::Result<(Mailbox, Inbox)> {
    let eventfd = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, receiver) = mpsc::channel(CAPACITY);
    Ok((Mailbox { sender, eventfd: eventfd.clone() }, Inbox { receiver, eventfd }))
}

impl Mailbox {
    /// Waits for room. Cancel safe.
    pub(crate) async fn reserve(&self) -> Result<InputPermit<'_>, MailboxClosed> {
        let permit = self.sender.reserve().await.map_err(|_| MailboxClosed)?;
        Ok(InputPermit { permit, eventfd: &self.eventfd })
    }

    /// Whether a sender has to wait now.
    pub(crate) fn is_full(&self) -> bool {
        self.sender.capacity() == 0
    }

    /// Sends, waiting for room.
    pub(crate) async fn send(&self, input: Input) -> Result<(), MailboxClosed> {
        self.reserve().await.map(|permit| permit.send(input))
    }

    /// Sends from a plain thread, waiting for room.
    pub(crate) fn blocking_send(&self, input: Input) -> Result<(), MailboxClosed> {
        self.sender.blocking_send(input).map_err(|_| MailboxClosed)?;
        wake(&self.eventfd);
        Ok(())
    }

    /// Sends if there is room, for inputs whose loss is repaired later. Returns whether it was queued.
    pub(crate) fn try_send(&self, input: Input) -> bool {
        let sent = self.sender.try_send(input).is_ok();
        wake(&self.eventfd);
        sent
    }
}

impl InputPermit<'_> {
    pub(crate) fn send(self, input: Input) {
        self.permit.send(input);
        wake(self.eventfd);
    }
}

impl Inbox {
    /// The next input, if one is queued.
    pub(crate) fn try_recv(&mut self) -> Option<Input> {
        self.receiver.try_recv().ok()
    }

    /// Clears the eventfd. To be called before the inputs are received, so that none is missed.
    pub(crate) fn drain_wakeups(&self) {
        let mut count = [0u8; 8];
        // EAGAIN means that no wake-up is pending.
        let _ = rustix::io::read(&*self.eventfd, &mut count);
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

fn wake(eventfd: &OwnedFd) {
    // It fails only when the counter is at its maximum, and then the eventfd is readable.
    let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
}
