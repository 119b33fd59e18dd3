//! The policy: what rules match, what a file may not be, that no field of a request is left undecided, and what `lint` finds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod bad_files;
mod chart;
mod closed_world;
mod kit;
mod lint;
mod rules;
mod signatures;
