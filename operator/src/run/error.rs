//! Why an operator could not begin, or had to end.

use crate::history::HistoryError;
use crate::lock::LockError;
use crate::presence::PresenceError;
use crate::server::ServerError;
use crate::server::tls::TlsError;

/// Why the operator could not begin, or had to end.
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
    /// The directory of the embedded History cannot be made.
    #[error("failed to make the data directory {directory}")]
    DataDirectory {
        /// The directory.
        directory: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The directory of the embedded History is another process's.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A port could not be had.
    #[error(transparent)]
    Server(Box<ServerError>),
    /// The certificate cannot be used.
    #[error("failed to use the gateway's certificate")]
    Certificate(#[source] Box<TlsError>),
    /// Signals cannot be listened for.
    #[error("failed to listen for signals")]
    Signals(#[source] std::io::Error),
    /// A part that must never end ended.
    #[error("{part} ended by itself")]
    Ended {
        /// Which.
        part: &'static str,
    },
    /// A part broke an invariant of its own; the log has its words.
    #[error("{part} failed: {message}")]
    Broke {
        /// Which.
        part: &'static str,
        /// What it said last.
        message: String,
    },
}

impl RunError {
    /// Whether other flags or files would help, and trying again would not.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Kubeconfig(_) | Self::Certificate(_) | Self::DataDirectory { .. } => true,
            Self::History(error) => {
                matches!(**error, HistoryError::InvalidUri { .. } | HistoryError::Open { .. })
            }
            Self::Presence(error) => matches!(**error, PresenceError::InvalidUrl { .. }),
            Self::Server(error) => matches!(**error, ServerError::Exposed { .. } | ServerError::Tls { .. }),
            _ => false,
        }
    }
}

impl From<ServerError> for RunError {
    fn from(error: ServerError) -> Self {
        Self::Server(Box::new(error))
    }
}
