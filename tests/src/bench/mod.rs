//! Figures of this build, each beside its limit on the same machine, measured in the same run.
//!
//! ```text
//! bench ──┬── operator   (a real operator over embedded stores)      ◄── node-agent, a real one
//!         ├── crowd      (agents that only speak the protocol)       ──► operator
//!         └── limits     (the same work by the plainest programs: spawner, echoes, copy)
//! ```
//!
//! Whatever is measured runs in a process of its own; this one submits, reads and keeps time. In reading order:
//! `sections` (which there are), `rig` (operator and agent), `dispatch`, `apply`, `fanout`, `output`, `memory` (one
//! section each), `gateway` (a bare one, for the agent alone), `crowd` (simulated agents), `limits` (the plainest
//! programs), `role` (child processes), `figures`, `table` (what is printed), `quiet` (what
//! others do to the machine).
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]

mod apply;
pub(crate) mod crowd;
mod dispatch;
mod fanout;
mod figures;
mod gateway;
mod limits;
mod memory;
mod output;
mod quiet;
mod rig;
mod role;
mod sections;
mod table;

pub use sections::main;
