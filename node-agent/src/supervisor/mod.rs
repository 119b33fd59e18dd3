//! One small process per Attempt, the same binary executed again, which needs nothing from the agent to finish.

mod entry;
mod kill;
mod launch;
mod liveness;

pub use entry::{is_requested, main};
pub use kill::{Remains, end_tree};
pub use launch::{LaunchError, Launcher, Warm};
pub use liveness::{Liveness, liveness};
