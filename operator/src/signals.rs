//! Termination signals, and those that the parent has made this process ignore.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGHUP, unless the process was started with it ignored, as under `nohup`: then it stays ignored.
#[derive(Debug)]
pub struct Hangup(Option<Signal>);

impl Hangup {
    /// Installs the handler, unless the signal is ignored.
    ///
    /// # Errors
    /// The handler cannot be installed.
    pub fn catch() -> io::Result<Self> {
        if is_ignored() {
            Ok(Self(None))
        } else {
            signal(SignalKind::hangup()).map(|signal| Self(Some(signal)))
        }
    }

    /// Completes at the next SIGHUP; never where it is ignored.
    pub async fn recv(&mut self) {
        match &mut self.0 {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Whether this process ignores SIGHUP; false where `/proc` cannot be read.
fn is_ignored() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hangup(&status))
}

/// Whether `SigIgn` has the bit of signal 1. Source: `proc_pid_status(5)`.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sighup_is_the_lowest_bit_of_the_mask() {
        assert!(ignores_hangup("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("SigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\n"));
        assert!(!ignores_hangup(""));
    }
}
