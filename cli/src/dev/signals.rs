//! The signals that end dev mode: all that can be caught and mean it, but for a SIGHUP
//! that is ignored from the start (`nohup`). Caught from before anything is made until after
//! everything is removed, so that a second one, or one at a bad moment, leaves nothing behind.

use sentinel_operator::signals::Hangup;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;

/// The signals, once they are caught.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Hangup,
    quit: Signal,
}

impl Signals {
    /// Begins to catch them.
    pub(super) fn catch() -> Result<Self, Failure> {
        let failed = |error| Failure::new(format!("failed to listen for signals: {error}"));
        let catch = |kind| signal(kind).map_err(failed);
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hangup: Hangup::catch().map_err(failed)?,
            quit: catch(SignalKind::quit())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
            () = self.hangup.recv() => "SIGHUP",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }
}
