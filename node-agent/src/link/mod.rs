//! The link to the operator: two WebSockets, dialled by the agent.
//!
//! * [`endpoint`]: the operator's address; [`dial`]: TCP, TLS, token, upgrade; [`socket`]: reading and writing with
//!   deadlines, the same on both sockets.
//! * [`timing`]: deadlines and backoff.
//! * [`control`]: one Session on the control socket; [`reconnect`]: the loop that keeps one.
//! * [`logs`]: the log socket, open while there is output; [`spool_readers`] reads the Spools for it.
//!
//! Both sockets are served on one thread and never wait for the disk: the control socket reaches the agent's thread
//! through a bounded mailbox, and the log socket has the Spools read on a blocking thread.

mod control;
mod dial;
mod endpoint;
mod logs;
mod reconnect;
mod socket;
mod spool_readers;
mod timing;

pub(crate) use control::ControlLink;
pub(crate) use dial::Dialer;
pub use dial::{DialError, Token};
pub use endpoint::{Endpoint, InvalidUrl};
pub(crate) use logs::{LogLink, run_log_link};
pub(crate) use reconnect::run_control_link;
pub use timing::{ReconnectBackoff, Timing};
