//! One small process per Attempt, the same binary executed again, which needs nothing from the agent to finish.
//!
//! ```text
//! agent                     supervisor                                             command
//! Launcher ── path ──►      lock the Attempt, read its state again
//!                           check program, user, group, directory
//!                           note `Starting` (synced) ── fork ──►                   own session, user, exec
//!                           note `Running` (synced)
//!                           pipes → Spool, clocks, cancel  ◄── stdout, stderr ──
//!                           TERM … grace … KILL, until nothing is left
//!                           exit record (synced), end
//! ```
//!
//! Invariants:
//!
//! * Single-threaded, no runtime: one blocking `poll` over pipes, child signals, the Attempt's directory and the
//!   next deadline. So forking is safe, and cheap because the process is small.
//! * After it took its Attempt it shares no pipe with the agent, so the agent may die at any moment.
//! * It holds the kernel lock on the Attempt's directory until it ends. It starts nothing unless it has read
//!   *accepted* under that lock, and nothing before *starting* is on the disk.
//! * An Attempt owns its process tree: the supervisor is its subreaper, and the exit record is written when no
//!   process of it is left, when the Task keeps what is left, or when one would not die; the record has which.
//! * `unsafe` is in one place: [`child`], between fork and exec.

mod cgroup;
mod child;
mod clocks;
mod entry;
mod exit_record;
mod identity;
mod kill;
mod launch;
mod leftovers;
mod limits;
mod liveness;
mod output;
mod outside;
mod program;
mod reap;
mod root;
mod spawn;
mod stdin;
mod supervise;
mod survival;

pub use entry::{is_requested, main};
pub use kill::{Remains, end_tree};
pub use launch::{Host, LaunchError, Launcher, Warm};
pub use liveness::{Liveness, liveness};
pub use root::check_environment;
pub use survival::{Survival, Tie, sees_the_machine, survival};
