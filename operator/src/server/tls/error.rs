//! Why a certificate cannot be used.

use std::path::PathBuf;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("unable to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: std::io::Error,
    },
    /// A text does not contain what it should.
    #[error("{of} holds no usable {what}")]
    Pem {
        /// The file, or the Secret.
        of: String,
        /// What it should contain.
        what: &'static str,
        /// The parser's error.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The two do not match, or the key is of an unsupported kind.
    #[error("the key of {of} cannot be used with its certificate")]
    Pair {
        /// The files, or the Secret.
        of: String,
        /// The error of rustls.
        #[source]
        source: rustls::Error,
    },
    /// The certificates of client authorities cannot be used.
    #[error("{of} holds no usable certificate of an authority: {why}")]
    Authorities {
        /// The file, or the `ConfigMap`.
        of: String,
        /// The reason.
        why: String,
    },
    /// rustls refused the configuration.
    #[error("failed to set TLS up")]
    Setup {
        /// The error of rustls.
        #[source]
        source: rustls::Error,
    },
}

impl TlsError {
    /// The kind of error, one of a fixed set: metric label.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Read { .. } => "Read",
            Self::Pem { .. } => "Pem",
            Self::Pair { .. } => "Pair",
            Self::Authorities { .. } => "Authorities",
            Self::Setup { .. } => "Setup",
        }
    }

    /// Whether reading again can succeed: the files may be in the middle of a rotation.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Setup { .. })
    }
}
