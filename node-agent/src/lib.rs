//! Hands on the node: takes Attempts from the operator, runs each under a supervisor process, streams its output
//! and reports how it ended. It never talks to the Kubernetes API.
//!
//! [`run()`] is an agent from its config to its end; it may be used many times in one process.
//!
//! The modules, in reading order:

pub mod baseline;
pub mod host;
pub mod kill_point;
pub mod journal;
pub mod private_dir;
pub mod process;
pub mod shortage;
pub mod spool;
pub mod supervisor;

pub mod config;
pub mod health;
pub mod heartbeat;
pub mod run;
pub mod telemetry;

mod agent;
mod link;
mod vitals;

pub use config::AgentConfig;
pub use link::{Backoff, DialError, Endpoint, InvalidUrl, Timing, Token};
pub use run::{AgentError, run};
pub use sentinel_core::agent::Rules;
