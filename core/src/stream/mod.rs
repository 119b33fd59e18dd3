//! The output of Attempts on its way from node to reader.
//!
//! [`outflow`] decides what the agent sends next, [`credit`] how much the operator lets it send, and [`tail`] what the
//! operator keeps in memory and where a reader continues.

pub mod credit;
pub mod outflow;
pub mod tail;
