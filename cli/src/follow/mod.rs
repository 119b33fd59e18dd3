//! A Run on the screen: the output of all its nodes as it comes, then how it ended.
//!
//! [`run`] follows a Task's events and opens a log for each node ([`node_log`]); both go on where they were when the
//! connection breaks. [`summary`] gives what came of it, in words, as JSON and as an
//! exit code; [`waiting`] reports nodes on which nothing begins; [`link`] reports a server that is gone.

mod hint;
mod link;
mod node_log;
mod output;
mod run;
mod summary;
mod waiting;

use hint::hint;
pub(crate) use link::while_watching;
pub(crate) use node_log::{Attempts, Look, NodeLog};
pub(crate) use output::Form;
pub(crate) use run::{Followed, Subject, Which, follow, log_path};
pub(crate) use summary::{advice, exit_code, report, summarize};
