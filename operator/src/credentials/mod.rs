//! What a connection to a store needs: its URL, the CA that its server is verified by, and the client certificate. All
//! of them are files, such as those of a mounted Secret, and are read again when they change.
//!
//! A changed file does not interrupt anything: a new client is made beside the one in use, proven, and swapped in;
//! operations in flight finish on the old one. Credentials that cannot be used are reported once, and the old ones stay.

mod advice;
mod error;
mod files;
mod reload;
mod store;
mod url;

pub use self::error::CredentialError;
pub use self::files::{ClientFiles, ClientPem, CredentialFiles, Credentials};
pub use self::reload::{Reconnect, ReconnectError, Reload, ReloadMetrics};
pub use self::store::Store;
pub use self::url::Transport;
