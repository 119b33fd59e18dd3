//! The output of Attempts on its way from node to reader.
//!
//! [`outflow`] decides what the agent sends next, [`credit`] how much the operator lets it send, and [`tail`] what the
//! operator keeps in memory and where a reader continues. [`lines`] numbers the lines of a log, and [`window`] makes some
//! of them of its records.

pub mod credit;
pub mod lines;
pub mod outflow;
pub mod tail;
pub mod window;
