//! The decisions of Sentinel Node, without side effects.
//!
//! This crate has no clock, I/O, environment, randomness or async code: time and identity are arguments, and actions are
//! return values. So tests can put the whole system through loss, repetition, restarts and clock jumps without starting
//! a process.
//!
//! Three state machines live here:
//!
//! * [`reconcile::decide`], the operator's: what a Task's Run should do next, from what is known about it;
//! * [`agent::Agent::step`], a node's: what to do about a message, a change on disk or time passing;
//! * [`stream::outflow::Outflow`], the log link's: whose output may be sent now, and from where.
//!
//! Smaller ones: [`lease`] (leader election), [`stream::credit`] (flow control) and [`samples`] (metrics for charts). A Task
//! enters as a validated [`plan::TaskPlan`].

pub mod agent;
pub mod lease;
pub mod plan;
pub mod reconcile;
pub mod samples;
pub mod stream;
pub mod time;
