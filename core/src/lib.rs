//! The thinking of Sentinel Node: what is decided, apart from what is done.
//!
//! There is no clock here, no I/O, no environment, no randomness and nothing asynchronous: time and identity come
//! in as arguments, and what is to be done goes out as values. That is what lets the tests put every part of the
//! system through loss, repetition, restarts and clock jumps without starting a process.
//!
//! Three state machines live here:
//!
//! * [`reconcile::decide`], the operator's: what a Task's Run should do next, from what is known about it;
//! * [`agent::Agent::step`], a node's: what to do about a message, a change on disk or time passing;
//! * [`stream::outflow::Outflow`], the log link's: whose output may be sent now, and from where.
//!
//! Two smaller ones stand beside them: [`lease`] (leader election) and [`stream::credit`] (flow control). A Task
//! enters as a validated [`plan::TaskPlan`].

pub mod agent;
pub mod lease;
pub mod plan;
pub mod reconcile;
pub mod stream;
pub mod time;
