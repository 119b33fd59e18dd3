//! The send queue of one Session: messages are encoded once, and the queue is bounded.
//!
//! At the bound the Session ends. Every message is level, so the next Session resends whatever was lost, and an agent
//! that does not read cannot hold memory here.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sentinel_protocol::refusal::SessionRefusal;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Messages that may be queued.
pub const MAX_MESSAGES: usize = 512;

/// Bytes that may be queued: a few of the largest messages.
pub const MAX_BYTES: usize = 4 << 20;

/// Messages that wait for others, at most.
const MAX_WAITING: usize = 32;

/// Why the operator ends a Session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// With a refusal, which is sent to the agent.
    Refused(SessionRefusal),
    /// The agent does not read, so nothing can be sent to it.
    NotReading,
}

/// The send queue of one Session.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    messages: Vec<Utf8Bytes>,
    bytes: usize,
    /// When the first of them was queued that does not wait for others; then all of them are sent.
    since: Option<Instant>,
    /// Whether [`Outbox::flush`] is still to be called.
    awaits_flush: bool,
    closed: Option<CloseReason>,
}

/// The message was not queued: the Session is closing, or closes because its queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session is closing")]
pub struct NotQueued;

/// What becomes of a message that waits for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// The caller is to call [`Outbox::flush`] after a while.
    ForFlush,
    /// It is sent with others.
    ForOthers,
}

/// What the owner of the socket does next.
#[derive(Debug, PartialEq, Eq)]
pub enum OutboxAction {
    /// Write these messages; the first was queued at that time.
    Send(Vec<Utf8Bytes>, Instant),
    /// Close the socket.
    Close(CloseReason),
    /// Wait for a change.
    Wait,
}

impl Outbox {
    /// Queues a message.
    ///
    /// # Errors
    /// [`NotQueued`] when the Session is closing, or closes because its queue is full.
    pub fn push(&self, message: Utf8Bytes) -> Result<(), NotQueued> {
        let mut queue = self.lock();
        self.add(&mut queue, message)?;
        self.send_all(&mut queue);
        Ok(())
    }

    /// Queues a message that is in no hurry: what is queued for this Session within a while is one write.
    ///
    /// # Errors
    /// As [`Outbox::push`].
    pub fn push_later(&self, message: Utf8Bytes) -> Result<Waits, NotQueued> {
        let mut queue = self.lock();
        self.add(&mut queue, message)?;
        if queue.messages.len() >= MAX_WAITING {
            self.send_all(&mut queue);
        }
        let is_waited_for = queue.since.is_some() || std::mem::replace(&mut queue.awaits_flush, true);
        Ok(if is_waited_for { Waits::ForOthers } else { Waits::ForFlush })
    }

    /// Sends what waits for others.
    pub fn flush(&self) {
        let mut queue = self.lock();
        queue.awaits_flush = false;
        if !queue.messages.is_empty() {
            self.send_all(&mut queue);
        }
    }

    fn add(&self, queue: &mut Queue, message: Utf8Bytes) -> Result<(), NotQueued> {
        if queue.closed.is_some() {
            return Err(NotQueued);
        }
        let bytes = queue.bytes + message.len();
        if queue.messages.len() >= MAX_MESSAGES || bytes > MAX_BYTES {
            queue.close(CloseReason::NotReading);
            self.changed.notify_one();
            return Err(NotQueued);
        }
        queue.bytes = bytes;
        queue.messages.push(message);
        Ok(())
    }

    fn send_all(&self, queue: &mut Queue) {
        if queue.since.is_none() {
            queue.since = Some(Instant::now());
            self.changed.notify_one();
        }
    }

    /// Closes the Session and drops what is queued; the first reason stays.
    pub fn close(&self, reason: CloseReason) {
        self.lock().close(reason);
        self.changed.notify_one();
    }

    /// What to do next. For the one task that owns the socket.
    pub fn next_action(&self) -> OutboxAction {
        let mut queue = self.lock();
        if let Some(reason) = &queue.closed {
            return OutboxAction::Close(reason.clone());
        }
        if queue.messages.is_empty() {
            return OutboxAction::Wait;
        }
        queue.bytes = 0;
        let since = queue.since.take().unwrap_or_else(Instant::now);
        OutboxAction::Send(std::mem::take(&mut queue.messages), since)
    }

    /// Waits for a change since the last [`Outbox::next_action`]. Cancel-safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Waits until the Session is to close. Other changes meanwhile show in the next [`Outbox::next_action`].
    pub async fn closed(&self) {
        while self.lock().closed.is_none() {
            self.changed().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn close(&mut self, reason: CloseReason) {
        if self.closed.is_none() {
            self.closed = Some(reason);
            self.messages = Vec::new();
            self.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_in_order_and_once() {
        let outbox = Outbox::default();
        outbox.push("a".into()).unwrap();
        outbox.push("b".into()).unwrap();
        let OutboxAction::Send(messages, _) = outbox.next_action() else { panic!("nothing to send") };
        assert_eq!(messages, ["a", "b"]);
        assert_eq!(outbox.next_action(), OutboxAction::Wait);
    }

    #[tokio::test]
    async fn a_message_in_no_hurry_waits_for_the_next_or_a_flush() {
        let outbox = Outbox::default();
        let is_woken = || futures_util::FutureExt::now_or_never(outbox.changed()).is_some();
        assert_eq!(outbox.push_later("ack".into()), Ok(Waits::ForFlush));
        assert_eq!(outbox.push_later("ack".into()), Ok(Waits::ForOthers));
        assert!(!is_woken());
        outbox.push("start".into()).unwrap();
        assert!(is_woken());
        let OutboxAction::Send(messages, _) = outbox.next_action() else { panic!("nothing to send") };
        assert_eq!(messages, ["ack", "ack", "start"]);
        outbox.flush();
        assert!(!is_woken(), "nothing is left");
        assert_eq!(outbox.push_later("ack".into()), Ok(Waits::ForFlush));
        outbox.flush();
        assert!(is_woken());
        let OutboxAction::Send(messages, _) = outbox.next_action() else { panic!("nothing to send") };
        assert_eq!(messages, ["ack"]);
    }

    /// An agent that reports thousands of Attempts at once is acknowledged all of them.
    #[test]
    fn many_messages_in_no_hurry_do_not_fill_the_queue() {
        let outbox = Outbox::default();
        for _ in 0..4 * MAX_MESSAGES {
            outbox.push_later("ack".into()).unwrap();
            if futures_util::FutureExt::now_or_never(outbox.changed()).is_some() {
                outbox.next_action();
            }
        }
    }

    #[test]
    fn too_many_messages_or_bytes_close_the_session() {
        let many = Outbox::default();
        for _ in 0..MAX_MESSAGES {
            many.push("x".into()).unwrap();
        }
        assert_eq!(many.push("x".into()), Err(NotQueued));
        assert_eq!(many.next_action(), OutboxAction::Close(CloseReason::NotReading));
        let large = Outbox::default();
        for _ in 0..4 {
            large.push("x".repeat(1 << 20).into()).unwrap();
        }
        assert_eq!(large.push("x".into()), Err(NotQueued));
    }

    #[test]
    fn the_first_reason_to_close_stays() {
        let outbox = Outbox::default();
        outbox.close(CloseReason::Refused(SessionRefusal::Replaced));
        outbox.close(CloseReason::NotReading);
        assert_eq!(outbox.push("x".into()), Err(NotQueued));
        let refused = CloseReason::Refused(SessionRefusal::Replaced);
        assert_eq!(outbox.next_action(), OutboxAction::Close(refused));
    }
}
