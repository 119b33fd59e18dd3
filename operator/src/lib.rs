//! placeholder

pub mod clock;
pub mod cluster;
pub mod controller;
pub mod gateway;
pub mod health;
pub mod history;
pub mod logs;
pub mod metrics;
pub mod presence;
pub mod resource;
pub mod server;
pub mod telemetry;
