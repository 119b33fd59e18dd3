//! Makes Attempts durable whose results wait for long, so that the write-ahead log has room for others. Most are forgotten before, and
//! never cost the disk more than their slot.

use std::collections::VecDeque;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::journal::{AttemptDir, StateDir};
use crate::shortage::describe;

/// How long the result of an Attempt waits before its directory is made durable.
const AFTER: Duration = Duration::from_secs(1);

/// Attempts that have ended, and the thread that makes some of them durable.
#[derive(Default)]
pub(super) struct Checkpointer {
    /// With the time at which they ended, oldest first.
    ended: VecDeque<(Instant, AttemptDir)>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Notes an Attempt that may still have a slot of the log.
    pub(super) fn note_ended(&mut self, dir: AttemptDir) {
        self.ended.push_back((Instant::now(), dir));
    }

    /// Starts a thread for those that have waited long enough, unless one is at work.
    pub(super) fn run(&mut self, journal: &StateDir) {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let Some(checkpoints) = journal.checkpoints() else { return self.ended.clear() };
        self.ended.retain(|(_, dir)| checkpoints.needs(dir));
        let waiting = self.ended.iter().take_while(|(at, _)| at.elapsed() >= AFTER);
        let due: Vec<AttemptDir> = waiting.map(|(_, dir)| dir.clone()).collect();
        let count = due.len();
        if count == 0 {
            return;
        }
        let making = move || {
            for dir in due {
                if let Err(error) = checkpoints.make(&dir) {
                    tracing::warn!(
                        attempt = dir.name(),
                        category = error.category().as_str(),
                        error = describe(&error),
                        "unable to make an ended attempt durable in its directory; its slot of the log stays in use"
                    );
                }
            }
        };
        // Where no thread can be started, they are due again. Those whose sync fails are not: a second one would prove nothing.
        if let Ok(thread) = thread::Builder::new().name("checkpoint".to_owned()).spawn(making) {
            self.thread = Some(thread);
            self.ended.drain(..count);
        }
    }
}
