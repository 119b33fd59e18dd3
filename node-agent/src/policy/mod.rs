//! The node's policy: its file, its kill switch, and what they decide about each `Start`.
//!
//! * [`gate`]: what is allowed now.
//! * [`examiner`]: what the node knows about a request, within a time.
//! * [`file`]: the policy as it is on the disk; [`digests`]: of programs.
//! * [`commands`]: `node-agent policy lint` and `test`.

mod commands;
mod digests;
mod examiner;
mod file;
mod gate;

pub use commands::{PolicyCommand, Print, run};
pub use digests::Digests;
pub use examiner::examined;
pub use file::read;
pub use gate::{PolicyFiles, PolicyGate};
