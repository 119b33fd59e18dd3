//! Where a listener may bind, and why binding failed.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::tls::TlsError;

/// Where a listener may bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// Any address: clients are authenticated.
    Anywhere,
    /// Loopback only.
    Loopback {
        /// The reason, as the end of a sentence that begins with "only loopback addresses are allowed while".
        while_: &'static str,
    },
}

impl Exposure {
    /// The rule while people are not authenticated.
    pub const NO_PEOPLE: Self = Self::Loopback { while_: "no authentication of people is configured" };
    /// The rule for a listener without TLS.
    pub const NO_TLS: Self = Self::Loopback {
        while_: "no certificate is configured (--tls-secret, --tls-cert-file; --allow-plaintext goes without)",
    };
    /// The rule while agents' tokens are not reviewed by an API server.
    pub const NO_TOKEN_REVIEW: Self =
        Self::Loopback { while_: "agents are not authenticated by TokenReview" };
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is reachable from other machines, which [`Exposure`] forbids.
    #[error(
        "failed to listen on {addr} for {what}: only loopback addresses (127.0.0.1, [::1]) are allowed while {while_}"
    )]
    Exposed {
        /// Name of the listener.
        what: &'static str,
        /// The address asked for.
        addr: SocketAddr,
        /// The reason for the rule.
        while_: &'static str,
    },
    /// The kernel refused the address.
    #[error("failed to listen on {addr} for {what}")]
    Bind {
        /// Name of the listener.
        what: &'static str,
        /// The address asked for.
        addr: SocketAddr,
        /// The kernel's error.
        #[source]
        source: std::io::Error,
    },
    /// The Unix socket cannot be created.
    #[error("failed to listen on {} for {what}", path.display())]
    BindSocket {
        /// Name of the listener.
        what: &'static str,
        /// The path asked for.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: std::io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("failed to serve {what} over TLS")]
    Tls {
        /// Name of the listener.
        what: &'static str,
        /// The cause.
        #[source]
        source: TlsError,
    },
}

impl ServerError {
    /// The kind of error, one of a fixed set: metric label and log field.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Exposed { .. } => "Exposed",
            Self::Bind { .. } | Self::BindSocket { .. } => "Bind",
            Self::Tls { source, .. } => source.category(),
        }
    }

    /// Whether the same attempt can succeed later: another process may release the address, and a mounted
    /// certificate may be replaced.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Exposed { .. } => false,
            Self::Bind { .. } | Self::BindSocket { .. } => true,
            Self::Tls { source, .. } => source.is_retryable(),
        }
    }
}
