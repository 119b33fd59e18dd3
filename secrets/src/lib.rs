//! Values of Secrets on their way from the operator to a command.
//!
//! * [`values`]: the values, as a type that is erased when it is dropped, prints nothing and cannot be serialized by accident.
//! * [`sealed`]: the box in which they travel, which only the agent of one Session can open.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod sealed;
pub mod values;
