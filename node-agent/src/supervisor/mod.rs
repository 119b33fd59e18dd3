//! The supervisor: one small process per Attempt, forked by a server that has executed the same binary again, which does not need
//! the agent to finish.
//!
//! ```text
//! agent                     child, which becomes the command       supervisor, its parent
//!                           forked in its session and cgroup       directory, lock and pipes prepared
//! start ──► log
//! Launcher ── path ──►      check the clocks and cancellation ──►  open the Spool
//! sync the log              record *starting*
//!                           check program, user, group, directory
//!          ── durable ──►   exec                            ──►    record *running*
//!                           stdout, stderr                  ──►    pipes → Spool, clocks, cancel
//!                                                                  TERM … grace … KILL, until nothing is left
//!                                                                  exit record (durable), end
//! ```
//!
//! Invariants:
//!
//! * Single-threaded, no runtime: one blocking `poll` over pipes, child signals, the Attempt's directory and the
//!   next deadline. So forking is safe, and cheap because the process is small.
//! * Once it has its Attempt it shares no pipe with the agent, so the agent may die at any moment.
//! * It holds the kernel lock on the Attempt's directory until it ends. Nothing is executed unless the Attempt was *accepted* and
//!   not begun under that lock, before its start is durable, or once the supervisor has ended.
//! * An Attempt owns its process tree: the supervisor is its subreaper. The exit record is written when no process of the
//!   tree is left, when the Task keeps what is left, or when a process survived KILL; it names which.
//! * `unsafe` is at fork and exec, and where the policy changes: [`fork_server`], [`scheduling`], [`zygote`], [`child`], [`exec_plan`], [`sandbox`].
//!
//! In reading order: [`invocation`] and [`launch`] (the agent's side), [`fork_server`], [`main`], [`standby`], [`zygote`], [`child`] and what it reports
//! ([`progress`]), [`supervise`], [`start`], [`supervision`].

mod cgroup;
mod cgroup_v1;
mod child;
mod clocks;
mod encodings;
mod environment;
mod examine;
mod exec_plan;
mod exit_record;
mod fork_server;
mod found;
mod identity;
mod interpreter;
mod invocation;
mod kill;
mod launch;
mod leftovers;
mod limits;
mod liveness;
mod log;
mod main;
mod mask;
mod output;
mod permitted;
mod pod_cgroup;
mod program;
mod progress;
mod reap;
mod root;
mod sandbox;
mod scheduling;
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

pub use examine::{Compared, DigestOf, Examined, OpenContent, examine, refused_program, sha256_of};
pub use invocation::{HostNamespaces, is_requested};
pub use kill::end_tree;
pub use launch::{LaunchError, Launcher, Prefork, StartRecord, Unconfirmed};
pub use liveness::{Liveness, liveness};
pub use main::main;
pub use root::check_environment;
pub use sandbox::{Separation, separation};
pub(crate) use scheduling::let_others_run_first;
pub use survival::{Survival, Tie, check_host_pid_namespace, survival};
