//! The thinking of Sentinel Node: what is decided, apart from what is done.
//!
//! There is no clock here, no I/O, no environment, no randomness and nothing asynchronous: time and identity come
//! in as arguments, and what is to be done goes out as values. That is what lets the tests put every part of the
//! system through loss, repetition, restarts and clock jumps without starting a process.
//!
//! Three machines live here:
//!
//! * [`reconcile::decide`], the operator's: what a Task's Run should do next, from what is known about it;
//! * [`agent::Agent::step`], a node's: what to do about a message, a change on disk or a moment passing;
//! * [`outflow::Outflow`], the log link's: whose output may be sent now, and from where.
//!
//! In reading order:

pub mod agent;
pub mod conditions;
pub mod credit;
pub mod execution;
pub mod lease;
pub mod ledger;
pub mod moment;
pub mod outflow;
pub mod plan;
pub mod reconcile;
pub mod recovery;
pub mod retry;
pub mod rollout;
pub mod settle;
pub mod status;
pub mod stray;
pub mod tail;
pub mod targets;
pub mod trigger;
