//! Why the configuration is invalid.

use std::net::SocketAddr;

use crate::credentials::CredentialError;
use crate::resource::ceilings::CeilingsError;

/// Why the configuration is invalid. Never contains the content of a file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A required flag is missing.
    #[error("--{needed} is missing: --{flag} needs it")]
    Missing {
        /// The flag that requires it.
        flag: &'static str,
        /// The missing flag.
        needed: &'static str,
    },
    /// The file of a token or of the credentials of a store cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The API must not be reachable from other hosts.
    #[error(
        "--api-listen {address} is not a loopback address, and no client is asked who it is: any one that reaches it could run commands on every node; set --api-auth kubernetes, or listen on 127.0.0.1 or [::1]"
    )]
    ApiNotLoopback {
        /// The address given.
        address: SocketAddr,
    },
    /// A listener beyond loopback has no certificate.
    #[error(
        "--{flag} {address} is not a loopback address, and would be served without a certificate: a host on the way can read tokens and output; set --tls-secret or --tls-cert-file, or --allow-plaintext where something else encrypts"
    )]
    Plaintext {
        /// The flag.
        flag: &'static str,
        /// The address given.
        address: SocketAddr,
    },
    /// The ceilings cannot be used.
    #[error("--ceilings-file cannot be used, and nothing would limit what Tasks reach: {0}")]
    Ceilings(#[from] CeilingsError),
    /// Two listeners have the same address.
    #[error("--{one} and --{other} are both {address}")]
    SameAddress {
        /// A flag.
        one: &'static str,
        /// Another flag.
        other: &'static str,
        /// The address given to both.
        address: SocketAddr,
    },
}

impl ConfigError {
    /// A label for logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing_flag",
            Self::Credentials(CredentialError::Unreadable { .. }) => "unreadable_file",
            Self::Credentials(_) => "invalid_file",
            Self::ApiNotLoopback { .. } => "exposed_api",
            Self::Plaintext { .. } => "plaintext",
            Self::Ceilings(CeilingsError::Read { .. }) => "unreadable_file",
            Self::Ceilings(_) => "invalid_file",
            Self::SameAddress { .. } => "same_address",
        }
    }

    /// Never: the configuration has to change.
    pub fn is_retryable(&self) -> bool {
        false
    }
}
