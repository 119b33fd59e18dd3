//! The server's certificate, read again when its files change.
//!
//! The files are polled: the kubelet swaps a symbolic link, which a watch on the file itself would miss. A pair of
//! files that cannot be used is reported and the one before stays.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Largest file of a certificate chain or key, bytes.
const MAX_FILE: u64 = 1 << 20;

/// The two files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("unable to read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{} holds no usable {what}", path.display())]
    Pem {
        /// Which one.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The two do not fit each other, or the key is of a kind we cannot use.
    #[error("the key in {} cannot be used with the certificate in {}", key.display(), certificate.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
    /// TLS itself refused.
    #[error("failed to set TLS up")]
    Setup {
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// What a listener needs to speak TLS. Clones share the certificate.
#[derive(Clone)]
pub struct TlsSource {
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

struct Current {
    files: TlsFiles,
    state: RwLock<State>,
}

struct State {
    pair: Arc<CertifiedKey>,
    /// The bytes that `pair` was made from.
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl TlsSource {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// [`TlsError`] when they cannot be used.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let state = RwLock::new(load(&files)?);
        let current = Arc::new(Current { files, state });
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Setup { source })?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.send_tls13_tickets = 1;
        Ok(Self { current, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// For the handshake of one connection.
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Looks at the files once: `true` when another certificate is in use from now on.
    ///
    /// # Errors
    /// [`TlsError`] when they changed and cannot be used; the certificate before stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let next = load(&self.current.files)?;
        let mut state = self.current.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.certificate == next.certificate && state.key == next.key {
            return Ok(false);
        }
        *state = next;
        Ok(true)
    }

    /// Looks at the files every `every` until `stop`.
    pub async fn keep_current(self, every: Duration, stop: CancellationToken) {
        let mut failing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            let files = self.clone();
            let reloaded = tokio::task::spawn_blocking(move || files.reload()).await;
            let Ok(reloaded) = reloaded else { continue };
            match reloaded {
                Ok(changed) => {
                    failing = false;
                    if changed {
                        tracing::info!(certificate = %self.current.files.certificate.display(), "another certificate is in use");
                    }
                }
                // Said once per trouble and not at every look.
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "unable to take the new certificate; the one before stays in use"
                    );
                }
                Err(_) => {}
            }
        }
    }
}

impl fmt::Debug for TlsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSource").field("files", &self.current.files).finish_non_exhaustive()
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").field("files", &self.files).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.state.read().unwrap_or_else(PoisonError::into_inner).pair.clone())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    crate::files::read(path, MAX_FILE).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn load(files: &TlsFiles) -> Result<State, TlsError> {
    let certificate = read(&files.certificate)?;
    let key = read(&files.key)?;
    let bad = |path: &Path, what| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, what, source }
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<_, _>>()
        .map_err(bad(&files.certificate, "certificate"))?;
    if chain.is_empty() {
        return Err(bad(&files.certificate, "certificate")(rustls::pki_types::pem::Error::NoItemsFound));
    }
    let private = PrivateKeyDer::from_pem_slice(&key).map_err(bad(&files.key, "private key"))?;
    let pair = CertifiedKey::from_der(chain, private, &default_provider()).map_err(|source| {
        TlsError::Pair { certificate: files.certificate.clone(), key: files.key.clone(), source }
    })?;
    Ok(State { pair: Arc::new(pair), certificate, key })
}
