//! Hands on the node: takes Attempts from the operator, runs each under a supervisor process, streams its output
//! and reports how it ended. It never talks to the Kubernetes API.
//!
//! The modules, in reading order:

pub mod host;
pub mod journal;
pub mod process;
pub mod spool;
pub mod supervisor;
