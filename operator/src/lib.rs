//! placeholder

pub mod clock;
pub mod cluster;
pub mod config;
pub mod controller;
pub mod gateway;
pub mod health;
pub mod history;
pub mod http;
pub mod leader;
pub mod logs;
pub mod metrics;
pub mod presence;
pub mod resource;
pub mod run;
pub mod server;
pub mod telemetry;
