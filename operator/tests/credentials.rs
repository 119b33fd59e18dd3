//! MongoDB and Redis over TLS with client certificates: what is refused and how that is reported, and credentials that
//! are replaced under load.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "it is a test")]

#[path = "../../tests/src/certificates.rs"]
#[allow(dead_code, unreachable_pub, clippy::expect_used, reason = "the tests on real parts use more of it")]
mod certificates;
#[path = "credentials/mongodb.rs"]
mod mongodb;
#[path = "credentials/redis.rs"]
mod redis;
#[path = "credentials/refusals.rs"]
mod refusals;
#[path = "credentials/reloads.rs"]
mod reloads;
#[path = "credentials/servers.rs"]
mod servers;
mod stores;
