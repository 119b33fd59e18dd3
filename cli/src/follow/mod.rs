//! A Run on the screen: the output of all its nodes as it comes, then how it ended.
//!
//! [`run`] follows a Task's events and opens a log for each node ([`node_log`]); both go on where they were when the
//! connection breaks. [`summary`] says what came of it, in words and as an exit code.

mod node_log;
mod run;
mod summary;

pub(crate) use node_log::{Attempts, Look, NodeLog};
pub(crate) use run::{Followed, Subject, Which, follow, log_path};
pub(crate) use summary::{exit_code, summarize};
