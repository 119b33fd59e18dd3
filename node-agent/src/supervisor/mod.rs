//! The supervisor: one small process per Attempt, the same binary executed again, which does not need the agent to
//! finish.
//!
//! ```text
//! agent                     supervisor                                             command
//! Launcher ── path ──►      lock the Attempt, read its state again
//!                           check program, user, group, directory
//!                           record *starting* (synced) ── fork ──►                 own session, user, exec
//!                           record *running* (synced)
//!                           pipes → Spool, clocks, cancel  ◄── stdout, stderr ──
//!                           TERM … grace … KILL, until nothing is left
//!                           exit record (synced), end
//! ```
//!
//! Invariants:
//!
//! * Single-threaded, no runtime: one blocking `poll` over pipes, child signals, the Attempt's directory and the
//!   next deadline. So forking is safe, and cheap because the process is small.
//! * Once it has its Attempt it shares no pipe with the agent, so the agent may die at any moment.
//! * It holds the kernel lock on the Attempt's directory until it ends. It starts nothing unless it has read
//!   *accepted* under that lock, and nothing before *starting* is on the disk.
//! * An Attempt owns its process tree: the supervisor is its subreaper. The exit record is written when no process of the
//!   tree is left, when the Task keeps what is left, or when a process survived KILL; it names which.
//! * `unsafe` is in one place: [`child`], between fork and exec.
//!
//! In reading order: [`invocation`] and [`launch`] (the agent's side), [`main`], [`supervise`], [`start`], [`supervision`].

mod cgroup;
mod cgroup_v1;
mod child;
mod clocks;
mod exec_plan;
mod exit_record;
mod identity;
mod invocation;
mod kill;
mod launch;
mod leftovers;
mod limits;
mod liveness;
mod log;
mod main;
mod output;
mod pod_cgroup;
mod program;
mod progress;
mod reap;
mod root;
mod spawn;
mod standby;
mod start;
mod start_error;
mod stdin;
mod supervise;
mod supervision;
mod survival;
mod termination;
mod zygote;

pub use invocation::{HostNamespaces, is_requested};
pub use kill::end_tree;
pub use launch::{LaunchError, Launcher, Prefork, StartRecord, Unconfirmed};
pub use liveness::{Liveness, liveness};
pub use main::main;
pub use root::check_environment;
pub use survival::{Survival, Tie, check_host_pid_namespace, survival};
