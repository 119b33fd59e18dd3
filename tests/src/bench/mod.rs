//! Figures of this build, each beside its limit on the same machine, measured in the same run.
//!
//! ```text
//! bench ──┬── operator   (a real operator over embedded stores)      ◄── node-agent, a real one
//!         ├── agents     (simulated: they only speak the protocol)       ──► operator
//!         ├── limits     (the same work by the plainest programs: spawner, echoes, copy)
//!         └── others     (servers and peers: Redis, nats-server, node)
//! ```
//!
//! Whatever is measured runs in a process of its own; this one submits, reads and keeps time. In reading order:
//! `sections` (which there are), `arguments` (what a run is asked for), `operator` (the child), `setup` (operator and
//! agent), `dispatch`, `apply`, `fanout`, `output`, `streams`, `latency`, `archive`, `readers`, `first_byte`, `memory`,
//! `restart`, `scale`, `heartbeats`, `status`, `soak`, `peers` (one section each), `crowd` (many readers), `events` (when
//! Runs end), `gateway` (a bare one, for the agent alone), `simulated_agents`, `limits` (the plainest programs), `worker`
//! (child processes), `figures`, `table` (what is printed), `baseline` (figures of an earlier run), `progress`, `quiet`
//! (what others do to the machine).
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]

mod apply;
mod archive;
mod arguments;
mod baseline;
mod crowd;
pub(crate) mod simulated_agents;
mod dispatch;
mod events;
mod fanout;
mod figures;
mod first_byte;
mod gateway;
mod heartbeats;
mod latency;
mod limits;
mod memory;
mod operator;
mod output;
mod peers;
mod progress;
mod quiet;
mod readers;
mod restart;
mod scale;
mod setup;
mod soak;
mod status;
mod streams;
mod worker;
mod sections;
mod table;

pub use sections::main;
