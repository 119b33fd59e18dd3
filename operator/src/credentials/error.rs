//! Why the files of credentials cannot be used.

use std::path::PathBuf;

use super::store::Store;

/// Why the files of credentials cannot be used. Never contains the content of a file.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file could not be read.
    #[error("failed to read the file of --{flag}, {}: {source}", path.display())]
    Unreadable {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file has invalid content.
    #[error("the file of --{flag}, {}, does not hold {expected}: {found}", path.display())]
    Content {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is expected.
        expected: &'static str,
        /// What was found, without the content.
        found: String,
    },
    /// The URL has an option that is a flag here, or that verifies no server.
    #[error("the URL in the file of --{}, {}, has the option {option}: {instead}", store.url_flag(), path.display())]
    UrlOption {
        /// The store.
        store: Store,
        /// The file.
        path: PathBuf,
        /// Name of the option.
        option: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// A CA or a client certificate is given, but the connection would not be encrypted.
    #[error(
        "--{flag} needs TLS, and the URL in the file of --{}, {}, does not use it: {}",
        store.url_flag(), path.display(), store.how_to_use_tls()
    )]
    NoTls {
        /// The store.
        store: Store,
        /// The flag that needs TLS.
        flag: &'static str,
        /// The file of the URL.
        path: PathBuf,
    },
    /// Certificate and key do not belong together, or the key is of an unsupported kind.
    #[error(
        "the key in the file of --{}, {}, cannot be used with the certificate in the file of --{}, {}: {source}",
        store.key_flag(), key.display(), store.certificate_flag(), certificate.display()
    )]
    Pair {
        /// The store.
        store: Store,
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The error of rustls.
        #[source]
        source: rustls::Error,
    },
}

impl CredentialError {
    /// The kind of error, one of a fixed set: metric label.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "Unreadable",
            Self::Content { .. } | Self::UrlOption { .. } | Self::NoTls { .. } | Self::Pair { .. } => {
                "Invalid"
            }
        }
    }

    /// Whether reading the files again can succeed: they may be in the middle of a rotation.
    pub fn is_retryable(&self) -> bool {
        true
    }
}
