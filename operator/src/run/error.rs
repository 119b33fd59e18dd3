//! Why an operator could not start, or had to exit.

use crate::admission::keys::KeysError;
use crate::audit::AuditError;
use crate::certificates::keeper::KeepError;
use crate::history::HistoryError;
use crate::identity::front_proxy::FrontProxyError;
use crate::lock::LockError;
use crate::presence::PresenceError;
use crate::server::ServerError;
use crate::server::tls::TlsError;

/// Why the operator could not start, or had to exit.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The cluster's address or credentials cannot be used.
    #[error("failed to find a Kubernetes cluster; give --kubeconfig, or run in a pod with a service account")]
    Kubeconfig(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// History cannot be used.
    #[error("failed to use History")]
    History(#[source] Box<HistoryError>),
    /// Presence cannot be used.
    #[error("failed to use presence")]
    Presence(#[source] Box<PresenceError>),
    /// The directory of the embedded History cannot be created.
    #[error("failed to make the data directory {directory}")]
    DataDirectory {
        /// The directory.
        directory: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The directory of the embedded History cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A port cannot be opened.
    #[error(transparent)]
    Server(Box<ServerError>),
    /// The certificate cannot be used.
    #[error("failed to use the certificate of the listeners")]
    Certificate(#[source] Box<TlsError>),
    /// The certificate cannot be made or kept.
    #[error("failed to make the certificate of the listeners")]
    Certificates(#[source] Box<KeepError>),
    /// The API server's front proxy is not known.
    #[error("failed to serve the aggregated API")]
    FrontProxy(#[source] Box<FrontProxyError>),
    /// The key by which Tasks are stamped cannot be read or made.
    #[error("failed to set up the admission webhook")]
    AdmissionKeys(#[source] Box<KeysError>),
    /// Signal handlers cannot be installed.
    #[error("failed to listen for signals")]
    Signals(#[source] std::io::Error),
    /// Traces cannot be sent.
    #[error("failed to set up traces")]
    Traces(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Audit records cannot be kept.
    #[error("failed to set up audit records")]
    Audit(#[source] Box<AuditError>),
    /// A component returned, which it must not.
    #[error("{part} exited")]
    Exited {
        /// The component.
        part: &'static str,
    },
    /// A component panicked.
    #[error("{part} failed: {message}")]
    Panicked {
        /// The component.
        part: &'static str,
        /// The panic.
        message: String,
    },
}

impl RunError {
    /// A label for logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Kubeconfig(_) => "kubeconfig",
            Self::History(_) => "history",
            Self::Presence(_) => "presence",
            Self::DataDirectory { .. } => "data_directory",
            Self::Lock(error) => error.category(),
            Self::Server(_) => "server",
            Self::Certificate(_) | Self::Certificates(_) => "certificate",
            Self::FrontProxy(_) => "front_proxy",
            Self::AdmissionKeys(_) => "admission",
            Self::Signals(_) => "signals",
            Self::Traces(_) => "traces",
            Self::Audit(error) => error.category(),
            Self::Exited { .. } => "exited",
            Self::Panicked { .. } => "panic",
        }
    }

    /// Whether a restart with the same configuration may succeed.
    pub fn is_retryable(&self) -> bool {
        !self.is_configuration()
    }

    /// Whether other flags or files are needed.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Kubeconfig(_) | Self::Certificate(_) | Self::Traces(_) | Self::DataDirectory { .. } => true,
            Self::History(error) => {
                matches!(**error, HistoryError::InvalidUri { .. } | HistoryError::Open { .. })
            }
            Self::Presence(error) => matches!(**error, PresenceError::InvalidUrl { .. }),
            Self::Server(error) => matches!(**error, ServerError::Exposed { .. } | ServerError::Tls { .. }),
            Self::Audit(error) => !error.is_retryable(),
            _ => false,
        }
    }
}

impl From<ServerError> for RunError {
    fn from(error: ServerError) -> Self {
        Self::Server(Box::new(error))
    }
}
