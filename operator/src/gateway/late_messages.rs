//! Messages in no hurry: each waits a while in the outbox of its Session, so that it and what follows are one write.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::outbox::Outbox;

/// How long a message waits for others. An agent repeats a Report only after many seconds.
const WAIT: Duration = Duration::from_millis(20);

/// Outboxes with such messages, each once. Bounded by the number of Sessions.
#[derive(Debug, Default)]
pub(super) struct LateMessages {
    outboxes: Mutex<Vec<Arc<Outbox>>>,
    added: Notify,
}

impl LateMessages {
    /// To be called when a message waits for a flush.
    pub(super) fn add(&self, outbox: Arc<Outbox>) {
        self.outboxes.lock().unwrap_or_else(PoisonError::into_inner).push(outbox);
        self.added.notify_one();
    }

    /// Flushes each outbox after a while.
    pub(super) async fn run(&self) -> Infallible {
        loop {
            self.added.notified().await;
            tokio::time::sleep(WAIT).await;
            let outboxes = std::mem::take(&mut *self.outboxes.lock().unwrap_or_else(PoisonError::into_inner));
            for outbox in outboxes {
                outbox.flush();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outbox_is_flushed_after_a_while() {
        let (late, outbox) = (Arc::new(LateMessages::default()), Arc::new(Outbox::default()));
        let running = late.clone();
        let running = tokio::spawn(async move { running.run().await });
        for _ in 0..2 {
            outbox.push_later("ack".into()).unwrap();
            late.add(outbox.clone());
            tokio::time::sleep(WAIT / 2).await;
            assert!(outbox.changed().now_or_never().is_none());
            outbox.changed().await;
            outbox.next_action();
        }
        running.abort();
    }
}
