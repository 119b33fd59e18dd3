//! The operator: decides which nodes run a Task and when, dispatches over WebSockets to the node agents, keeps what they
//! report, and serves it.
//!
//! Decisions are made in `sentinel_core`; this crate has the I/O. In reading order:

pub mod clock;
pub mod backoff;
mod digest;
pub mod expiry;
pub mod files;
pub mod kill_point;
mod later;
pub mod lock;
pub mod signals;
pub mod audit;
pub mod resource;
pub mod cluster;
pub mod controller;
pub mod gateway;
pub mod logs;
pub mod credentials;
pub mod history;
pub mod records;
pub mod presence;
pub mod leader;
pub mod identity;
pub mod certificates;
pub mod server;
pub mod admission;
pub mod health;
pub mod metrics;
pub mod traces;
pub mod config;
pub mod http;
pub mod run;
