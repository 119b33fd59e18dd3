//! The listener and accept loop of every port of the operator.
//!
//! warp's own server has no time limit on headers, no connection limit and no TLS, and leaves Nagle's algorithm on, so
//! it is not used. This module knows no routes: it serves any HTTP service, over HTTP/1.1 only, and attaches the
//! [`Peer`] to each request as an extension.
//!
//! It refuses to listen beyond loopback where clients are not authenticated ([`Exposure`]). A Unix socket is for its
//! own user and root. Connections are counted per client ([`Shares`]), and one whose client does not read is closed.
//!
//! In reading order: `accept` → `listener`, `limits`, `error` → `connection`, `peer` → [`tls`], `stream`, `shares`,
//! `unauthenticated` → `forward`.

mod accept;
mod connection;
mod error;
mod forward;
mod limits;
mod listener;
mod peer;
mod shares;
mod stream;
pub mod tls;
mod unauthenticated;

pub use self::accept::Server;
pub use self::connection::{HttpService, ResponseBody};
pub use self::error::{Exposure, ServerError};
pub use self::forward::{Place, Places};
pub use self::limits::Limits;
pub use self::listener::Local;
pub use self::peer::{ConnectionSlot, Peer};
pub(crate) use self::shares::network;
pub use self::shares::{Client, Share, Shares};
pub use self::tls::ClientCertificate;
pub use self::unauthenticated::UnauthenticatedSlot;
