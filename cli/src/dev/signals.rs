//! The signals that stop dev mode: SIGINT, SIGTERM, SIGHUP (unless it is ignored, as under `nohup`) and SIGQUIT.
//!
//! They are caught before anything is created and until everything is removed, so that a signal at any time, or a second
//! one, leaves nothing behind.

use sentinel_operator::signals::Hangup;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;

/// The caught signals.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Hangup,
    quit: Signal,
}

impl Signals {
    /// Starts to catch them.
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

    /// Waits for the next signal; returns its name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
            () = self.hangup.recv() => "SIGHUP",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }
}
