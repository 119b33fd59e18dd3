//! The agent's thread: carries out what [`sentinel_core::agent`] decides.
//!
//! It is a plain thread that waits in one `poll(2)` for an input, a wake-up by a supervisor, or the next second. The
//! link runs elsewhere, so that a slow disk can delay an Attempt but never a heartbeat; and between the socket and the
//! supervisor a `Start` passes through only one thread.
//!
//! * [`agent_loop`]: select → step → perform.
//! * [`performer`]: one function per effect.
//! * [`tree_enders`]: threads that end what a dead supervisor has left.
//! * [`permission`]: whether a command may start, by the node's policy.
//! * [`deliveries`]: what was acknowledged, until it is written.
//! * [`outgoing`]: what is sent, once it is durable.
//! * [`checkpointer`] and [`compactor`]: what may take its time, after an Attempt has ended and after it is forgotten.
//! * [`trail`]: the audit records of all of this.
//! * [`inspect`]: files and locks to evidence; [`conversion`]: records of the Journal to values of `core` and back.

mod agent_loop;
mod checkpointer;
mod compactor;
mod conversion;
mod deliveries;
mod held_secrets;
mod inspect;
mod outgoing;
mod performer;
mod permission;
mod trail;
mod tree_enders;

pub(crate) use agent_loop::AgentLoop;
pub(crate) use performer::{Guards, Performer};
pub(crate) use trail::Trail;
