//! The link to the operator: two WebSockets, dialled from here.
//!
//! * [`endpoint`]: where the operator is; [`dial`]: TCP, TLS, token, upgrade.
//! * [`reconnect`]: when to dial, and whom: the one loop that keeps a Session.
//! * [`control`]: one Session on the control socket: Hello, Welcome, messages, heartbeats, deadlines.
//! * [`logs`]: the log socket, open while there is output; [`shelf`] reads the Spools for it.
//! * [`board`]: what the agent's thread wants the log socket to know.
//!
//! Both sockets live on one thread and never wait for the disk: the control socket talks to the agent's thread by a
//! bounded mailbox, and the log socket reads the Spools on a blocking thread.

mod board;
mod control;
mod dial;
mod endpoint;
mod logs;
mod reconnect;
mod shelf;

pub(crate) use board::Board;
pub(crate) use dial::Dialer;
pub use dial::{DialError, Token};
pub use endpoint::{Endpoint, InvalidUrl};
pub(crate) use logs::{Logs, carry_output};
pub use reconnect::{Backoff, Timing};
pub(crate) use reconnect::{Link, keep_connected};
