//! What the operator and a node agent say to each other.
//!
//! Everything here is a value or the bytes of one: no clock, no I/O, nothing asynchronous.
//!
//! An agent opens two WebSockets to the gateway:
//!
//! * the **control** socket (`/agent/v1/control`): JSON text frames, [`to_operator::ToOperator`] one way and
//!   [`to_agent::ToAgent`] the other;
//! * the **log** socket (`/agent/v1/logs`), open while there is output: binary frames of
//!   [`log::LogRecord`] from the agent, text frames of [`log::LogControl`] in both directions. It is a socket
//!   of its own so that output can never delay a heartbeat or a result.
//!
//! Every statement is *level* and not *edge*: a [`to_operator::Report`] says what an Attempt **is**, a
//! [`log::LogControl::Credit`] says how far the agent **may** send. Losing, repeating, delaying or reordering one
//! is harmless, because the next one says everything again.
//!
//! The modules, in reading order:

pub mod ids;
pub mod text;
pub mod time;
pub mod version;
pub mod product;
pub mod request;
pub mod outcome;
pub mod exit;
pub mod refusal;
pub mod metrics;
pub mod to_agent;
pub mod to_operator;
pub mod log;
pub mod limits;
pub mod codec;
