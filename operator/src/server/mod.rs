//! Our own listener and accept loop, for every port of the operator.
//!
//! warp's server has no time limit on headers, no connection limit and no TLS, and its small writes wait for Nagle; so
//! it is never used. What is here knows nothing of routes: it serves whatever HTTP service it is given, over
//! HTTP/1.1 only, and tells that service who dials ([`Peer`], a request extension).
//!
//! It refuses to listen beyond loopback where nothing authenticates those who would dial ([`Exposure`]). A Unix socket
//! is for its own user and root alone. Connections are counted for each client ([`Shares`]), and one whose other end
//! does not read is ended.

mod accept;
mod shares;
mod stream;
pub mod tls;
mod waiting;

pub use self::accept::{Exposure, Limits, Local, Peer, Server, ServerError};
pub(crate) use self::shares::network;
pub use self::shares::{Client, Share, Shares};
pub use self::waiting::Waiting;
