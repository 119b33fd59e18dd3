//! Threads that end what is left of commands whose supervisors have died. Each takes as long as the processes take to end.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use sentinel_core::agent::Event;
use sentinel_protocol::ids::AttemptId;

use crate::agent_metrics::AgentMetrics;
use crate::channel::{Input, Mailbox};
use crate::journal::AttemptDir;
use crate::shortage::describe;
use crate::spans::attempt_span;
use crate::supervisor::end_tree;

/// How long the processes of a dead supervisor's command may take to end after they were killed.
const TREE_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// The threads that have not been joined yet.
#[derive(Debug, Default)]
pub(super) struct TreeEnders(Vec<JoinHandle<()>>);

impl TreeEnders {
    /// Starts a thread, which sends [`Event::TreeEnded`]. If none can be started, the agent asks again.
    pub(super) fn start(&mut self, attempt: AttemptId, dir: AttemptDir, mailbox: Mailbox) {
        let ending = move || {
            let span = attempt_span(&attempt);
            let left = span.in_scope(|| match dir.state() {
                Ok(state) => end_tree(&state, TREE_ENDS_WITHIN),
                Err(error) => {
                    tracing::error!(error = describe(&error), "failed to find the processes of an attempt");
                    vec![]
                }
            });
            // Closed when the agent is exiting; the next one inspects the Attempt again.
            let _ = mailbox.blocking_send(Input::Event(Box::new(Event::TreeEnded { attempt, left })));
        };
        match thread::Builder::new().name("end-tree".to_owned()).spawn(ending) {
            Ok(thread) => self.0.push(thread),
            Err(error) => {
                tracing::error!(
                    error = describe(&error),
                    "unable to start a thread that ends a command; will retry"
                );
            }
        }
    }

    /// Joins the threads that have ended.
    pub(super) fn reap(&mut self, metrics: &AgentMetrics) {
        for ended in self.0.extract_if(.., |thread| thread.is_finished()) {
            // The agent asks for it again when no answer comes.
            if ended.join().is_err() {
                metrics.count_restart("end-tree");
            }
        }
    }
}
