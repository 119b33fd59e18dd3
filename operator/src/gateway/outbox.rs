//! What waits to be sent to one agent: encoded once, bounded, and ended rather than stalled.
//!
//! The rule at the bound: the Session ends. Every message is level, so the next Session says again whatever was lost,
//! and an agent that does not read cannot hold memory here.

use std::sync::{Mutex, PoisonError};

use sentinel_protocol::refusal::SessionRefusal;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Messages that may wait.
pub const MAX_MESSAGES: usize = 512;

/// Bytes that may wait: a few of the largest messages.
pub const MAX_BYTES: usize = 4 << 20;

/// Why a Session ends from our side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The agent is told why.
    Refuse(SessionRefusal),
    /// The agent did not take what was sent to it, so it cannot be told.
    NotReading,
}

/// What waits to be sent to one agent.
#[derive(Debug, Default)]
pub struct Outbox {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    messages: Vec<Utf8Bytes>,
    bytes: usize,
    /// When the first of them came.
    since: Option<Instant>,
    ending: Option<Ending>,
}

/// The message was not taken: the Session is over, or ends because of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotTaken;

/// What the sender does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Send these, the first of which has waited since then.
    Send(Vec<Utf8Bytes>, Instant),
    /// End the Session.
    End(Ending),
    /// Wait.
    Wait,
}

impl Outbox {
    /// Adds a message.
    ///
    /// # Errors
    /// [`NotTaken`] when the Session is ending, or is made to end because it is full.
    pub fn push(&self, message: Utf8Bytes) -> Result<(), NotTaken> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.ending.is_some() {
            return Err(NotTaken);
        }
        let bytes = state.bytes + message.len();
        if state.messages.len() >= MAX_MESSAGES || bytes > MAX_BYTES {
            state.end(Ending::NotReading);
            self.changed.notify_one();
            return Err(NotTaken);
        }
        state.bytes = bytes;
        state.since.get_or_insert_with(Instant::now);
        state.messages.push(message);
        self.changed.notify_one();
        Ok(())
    }

    /// Ends the Session; the first reason stands.
    pub fn end(&self, ending: Ending) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).end(ending);
        self.changed.notify_one();
    }

    /// What to do now. Asked by the one task that owns the socket.
    pub fn next(&self) -> Next {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ending) = &state.ending {
            return Next::End(ending.clone());
        }
        if state.messages.is_empty() {
            return Next::Wait;
        }
        state.bytes = 0;
        let since = state.since.take().unwrap_or_else(Instant::now);
        Next::Send(std::mem::take(&mut state.messages), since)
    }

    /// Whether the Session is to end.
    pub fn is_ending(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ending.is_some()
    }

    /// Returns once something changed since the last [`Outbox::next`]. Nothing is lost when it is dropped early.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl State {
    fn end(&mut self, ending: Ending) {
        if self.ending.is_none() {
            self.ending = Some(ending);
            self.messages = Vec::new();
            self.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_in_order_and_once() {
        let outbox = Outbox::default();
        outbox.push("a".into()).unwrap();
        outbox.push("b".into()).unwrap();
        let Next::Send(messages, _) = outbox.next() else { panic!("nothing to send") };
        assert_eq!(messages, ["a", "b"]);
        assert_eq!(outbox.next(), Next::Wait);
    }

    #[test]
    fn too_many_messages_or_bytes_end_the_session() {
        let many = Outbox::default();
        for _ in 0..MAX_MESSAGES {
            many.push("x".into()).unwrap();
        }
        assert_eq!(many.push("x".into()), Err(NotTaken));
        assert_eq!(many.next(), Next::End(Ending::NotReading));
        let large = Outbox::default();
        for _ in 0..4 {
            large.push("x".repeat(1 << 20).into()).unwrap();
        }
        assert_eq!(large.push("x".into()), Err(NotTaken));
    }

    #[test]
    fn the_first_reason_to_end_stands() {
        let outbox = Outbox::default();
        outbox.end(Ending::Refuse(SessionRefusal::Replaced));
        outbox.end(Ending::NotReading);
        assert_eq!(outbox.push("x".into()), Err(NotTaken));
        assert_eq!(outbox.next(), Next::End(Ending::Refuse(SessionRefusal::Replaced)));
    }
}
