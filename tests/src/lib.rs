//! The kit of the tests on real parts: where the parts are, a namespace and nodes of a test's own, our programs as
//! real processes, and waiting for conditions with a deadline.
//!
//! Everything here asks for `SENTINEL_PARTS`, the file that `tests/parts/with-parts` writes; a test that cannot find
//! it fails with a message on how to get it, so that no test passes without having run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    reason = "a test kit: what does not work is a failed test"
)]

pub mod parts;
pub mod wait;
pub mod cluster;
pub mod journal;
pub mod ports;
pub mod programs;
pub mod certificates;
pub mod requests;
pub mod command_lines;
pub mod earlier;
pub mod images;
pub mod testbed;
pub mod memory;
pub mod machines;
pub mod chaos;
pub mod attacks;
pub mod bench;
pub mod gitops;
