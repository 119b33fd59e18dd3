//! Hands in the cluster: decides who runs a Task and when, dispatches over WebSockets to the node agents, keeps what
//! they report, and serves it.
//!
//! The thinking is in `sentinel_core`; here is what touches the world. In reading order:

pub mod clock;
pub mod files;
pub mod kill_point;
pub mod lock;
pub mod signals;
pub mod resource;
pub mod cluster;
pub mod controller;
pub mod gateway;
pub mod logs;
pub mod history;
pub mod records;
pub mod presence;
pub mod leader;
pub mod server;
pub mod health;
pub mod metrics;
pub mod telemetry;
pub mod config;
pub mod http;
pub mod run;
