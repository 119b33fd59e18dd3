//! Values of the configuration, and how they are written.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use crate::credentials::Credentials;
use crate::http::guard::Secret;

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
    /// The authorities that clients verify it by, and where they are published.
    pub published: Option<PublishedAuthorities>,
}

/// A file of authorities, and the `ConfigMap` in which clients find them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedAuthorities {
    /// The file, PEM.
    pub file: PathBuf,
    /// The `ConfigMap`, in the operator's namespace.
    pub config_map: String,
    /// The `MutatingWebhookConfiguration` that needs them too.
    pub webhook: Option<String>,
}

/// The certificate of every listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// None: nothing is served beyond loopback.
    None,
    /// None, by the administrator's decision.
    Plaintext,
    /// From files, which are read again when they change.
    Files(TlsFiles),
    /// Made by the operator.
    Generated(GeneratedCertificate),
}

/// A certificate and its authority that the operator makes, keeps in a Secret, and renews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedCertificate {
    /// The Secret, in the operator's namespace.
    pub secret: String,
    /// DNS names of the certificate.
    pub names: Vec<String>,
    /// The `ConfigMap` with the authorities to trust.
    pub config_map: Option<String>,
    /// The `APIService` whose bundle of authorities is kept current.
    pub api_service: Option<String>,
    /// The `MutatingWebhookConfiguration` whose bundle of authorities is kept current.
    pub webhook: Option<String>,
    /// How long the certificate is valid.
    pub lifetime: Duration,
    /// How long the authority is valid.
    pub authority_lifetime: Duration,
}

/// The admission webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Its address.
    pub listen: SocketAddr,
    /// The Secret with its key, in the operator's namespace.
    pub secret: String,
    /// The `MutatingWebhookConfiguration` that is kept current.
    pub webhook: Option<String>,
}

/// Who may use the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiAuth {
    /// Every process that can connect.
    Open,
    /// Holders of this token.
    Token(Secret),
    /// People whom the API server knows, as far as it allows what they ask.
    Kubernetes {
        /// Audience of their tokens; `None` for that of the API server.
        audience: Option<String>,
        /// Further origins of pages.
        origins: Vec<String>,
        /// A proxy that signs people in.
        proxy: Option<TrustedProxy>,
    },
}

/// A proxy that signs people in, and names them in headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxy {
    /// Authorities of its client certificate.
    pub ca_file: PathBuf,
    /// Common names of that certificate.
    pub names: Vec<String>,
    /// The header with the user name.
    pub user: HeaderName,
    /// The header with a group.
    pub group: HeaderName,
    /// What separates several groups in one header.
    pub separator: Option<char>,
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
