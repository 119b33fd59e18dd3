//! Tasks and where they live: what is refused, the contract of both clusters, and our definitions on a real API server.
//! The real one is tested where `SENTINEL_PARTS` is set (`tests/parts/with-parts`), and always in CI.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "it is a test"
)]

mod api_server;
mod bad_tasks;
mod battery;
mod contract;
mod kit;
mod lease;
mod power_cuts;
mod refusals;
mod scripted;
mod validation;
mod writers;
