//! The output of Attempts on its way from node to reader.
//!
//! [`outflow`] decides what the agent sends next, [`credit`] how much the operator lets it send, and [`tail`] what the
//! operator keeps in memory and where a reader continues. [`lines`] numbers the lines of a log, and [`window`] makes some
//! of them of its records. [`merge`] joins the lines of several logs, and [`cursor`] is how far a reader of them is.

pub mod credit;
pub mod cursor;
pub mod lines;
pub mod merge;
pub mod outflow;
pub mod tail;
pub mod window;
