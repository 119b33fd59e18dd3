//! Follows a Run: prints the output of all its nodes, then how it ended.
//!
//! [`run`] reads the events of a Task, and [`node_logs`] opens a log ([`node_log`]) for each node; both resume after a
//! broken connection. [`waiting`] reports nodes that do not start, [`server_watch`] a server that does not answer. At
//! the end, [`archived`] completes the result from History; [`summary`], [`report`] and [`exit_code`] present it as
//! text, as JSON and as an exit code. [`line_logs`] prints lines as JSON, those of several nodes by time.

mod archived;
mod drops;
mod exit_code;
mod followed;
mod hint;
mod line_logs;
mod node_log;
mod node_logs;
mod output;
mod report;
mod request;
mod run;
mod server_watch;
mod settling;
mod summary;
mod waiting;

pub(crate) use exit_code::{advice, exit_code};
pub(crate) use followed::{FollowEnd, FollowedRun};
pub(crate) use line_logs::{FollowedLines, follow_lines, print_lines, with_run};
pub(crate) use node_log::{AttemptSelector, NodeLog};
pub(crate) use report::report;
pub(crate) use request::{FollowRequest, LogOptions, RunSelector};
pub(crate) use run::{follow, follow_silently};
pub(crate) use sentinel_api::path::log as log_path;
pub(crate) use server_watch::with_server_watch;
pub(crate) use summary::{summarize, summarize_failures};
