//! Values of the configuration, and how they are written.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::credentials::Credentials;

/// A Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseName {
    /// Its name.
    pub name: String,
    /// Its namespace; `None` for the operator's.
    pub namespace: Option<String>,
}

/// A ServiceAccount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Store of Runs, results and output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// One SQLite file in this directory.
    Embedded {
        /// The directory.
        directory: PathBuf,
    },
    /// MongoDB.
    Mongodb {
        /// Its URL and what TLS needs.
        credentials: Box<Credentials>,
        /// The database.
        database: String,
    },
}

/// A Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// Its URL and what TLS needs.
    pub credentials: Credentials,
    /// Prefix of every key.
    pub prefix: String,
}

/// Files of a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// A loopback address with a port that the system chooses.
pub fn any_loopback_port() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

/// `NAMESPACE/NAME`.
pub(super) fn parse_service_account(text: &str) -> Result<ServiceAccount, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err("expected NAMESPACE/NAME, for example sentinel-system/sentinel-node-agent".to_owned()),
    }
}

/// A duration: a number with `ms`, `s`, `m`, `h` or `d`, or several of them from the largest unit to the smallest, for
/// example `1h30m`.
///
/// # Errors
/// A message that names what is allowed.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    sentinel_protocol::duration::parse(text).map_err(|error| error.to_string())
}
