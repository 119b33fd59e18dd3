//! placeholder

pub mod clock;
pub mod cluster;
pub mod config;
pub mod controller;
pub mod history;
pub mod http;
pub mod leader;
pub mod metrics;
pub mod presence;
pub mod resource;
pub mod server;
