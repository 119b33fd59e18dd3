//! The wire protocol between the operator and the node agents.
//!
//! Everything here is a value or its encoding: no clock, no I/O, no async. `docs/protocol.md` describes the protocol
//! for people; `tests/protocol_page.rs` fails when a message or a field is missing there.
//!
//! An agent opens two WebSockets to the gateway:
//!
//! * the **control** socket (`/agent/v1/control`): JSON text frames, [`to_operator::ToOperator`] one way and
//!   [`to_agent::ToAgent`] the other;
//! * the **log** socket (`/agent/v1/logs`), open while there is output: binary frames of
//!   [`log::LogRecord`] from the agent, text frames of [`log::LogControl`] in both directions. It is separate so that
//!   output can never delay a heartbeat or a result.
//!
//! Every message is level-triggered: a [`to_operator::Report`] carries the current state of an Attempt, a
//! [`log::LogControl::Credit`] the position up to which the agent may send. Losing, repeating, delaying or reordering
//! one is harmless, because the next one carries the whole state again.
//!
//! The modules, in reading order:

pub mod unique;
mod tagged;
pub mod ids;
pub mod text;
pub mod shown;
pub mod time;
pub mod human;
pub mod version;
pub mod product;
pub mod request;
pub mod requester;
pub mod signed;
pub mod stage;
pub mod trace;
pub mod secret;
pub mod signal;
pub mod outcome;
pub mod exit;
pub mod refusal;
pub mod metrics;
pub mod audit;
pub mod to_agent;
pub mod to_operator;
pub mod log;
pub mod limits;
pub mod codec;
pub mod duration;
pub mod quantity;
pub mod present;
