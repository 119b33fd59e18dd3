//! The node agent: takes Attempts from the operator, runs each under a supervisor process, streams its output and
//! reports how it ended. It never talks to the Kubernetes API.
//!
//! [`run()`] is an agent from its configuration to its exit; a process may run many.
//!
//! The modules, in reading order. `tests/boundaries.rs` holds which of them may use which:

pub mod error_category;
pub mod host;
pub mod kill_point;
pub mod private_dir;
pub mod process;

pub mod baseline;
pub mod journal;
pub mod shortage;
pub mod spool;
pub mod supervisor;
pub mod policy;

mod agent_metrics;
mod channel;
mod spans;

mod agent;
mod link;

pub mod config;
pub mod health;
pub mod heartbeat;
pub mod run;

pub use config::AgentConfig;
pub use error_category::ErrorCategory;
pub use link::{DialError, Endpoint, InvalidUrl, ReconnectBackoff, Timing, Token};
pub use policy::PolicyFiles;
pub use run::{AgentError, run};
pub use sentinel_core::agent::Rules;
