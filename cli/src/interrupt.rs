//! Ctrl-C: the first one detaches, a second one soon after cancels.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;

/// How long after the first Ctrl-C a second one cancels.
pub(crate) const SECOND_WITHIN: Duration = Duration::from_secs(2);

/// How interruptible work ended.
#[derive(Debug)]
pub(crate) enum Interruptible<T> {
    /// It completed.
    Done(T),
    /// Ctrl-C came first.
    Interrupted,
}

/// Presses of Ctrl-C since it was made: one that comes before anything waits for it is not lost, and ends no process.
#[derive(Debug)]
pub(crate) struct Interrupts(Signal);

impl Interrupts {
    /// Takes over what Ctrl-C does.
    pub(crate) fn listen() -> Result<Self, Failure> {
        signal(SignalKind::interrupt())
            .map(Self)
            .map_err(|error| Failure::new(format!("failed to listen for Ctrl-C: {error}")))
    }

    /// Runs the work until it completes or Ctrl-C is pressed.
    pub(crate) async fn until<T>(&mut self, work: impl Future<Output = T>) -> Interruptible<T> {
        tokio::select! {
            done = work => Interruptible::Done(done),
            _ = self.0.recv() => Interruptible::Interrupted,
        }
    }

    /// Whether Ctrl-C is pressed again within [`SECOND_WITHIN`].
    pub(crate) async fn pressed_again(&mut self) -> bool {
        tokio::time::timeout(SECOND_WITHIN, self.0.recv()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ui` printed that Ctrl-C ends its wait before it listened. Ctrl-C ended the process, and the link stayed on the disk.
    #[tokio::test]
    async fn a_press_before_anything_waits_is_noticed_once() {
        let mut interrupts = Interrupts::listen().unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT).unwrap();
        assert!(matches!(interrupts.until(std::future::pending::<()>()).await, Interruptible::Interrupted));
        assert!(matches!(interrupts.until(std::future::ready(7)).await, Interruptible::Done(7)));
    }
}
