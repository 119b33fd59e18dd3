//! The server's certificate, reloaded when its files change.
//!
//! The files are polled: the kubelet swaps a symbolic link, which a watch on the file itself would miss. A pair that
//! cannot be used is reported, and the current one stays.

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

use crate::metrics::Registry as MetricsRegistry;

/// Largest file of a certificate chain or key, bytes.
const MAX_FILE: u64 = 1 << 20;

/// The two files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
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
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: std::io::Error,
    },
    /// A file does not contain what it should.
    #[error("{} holds no usable {what}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should contain.
        what: &'static str,
        /// The parser's error.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The two do not match, or the key is of an unsupported kind.
    #[error("the key in {} cannot be used with the certificate in {}", key.display(), certificate.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The error of rustls.
        #[source]
        source: rustls::Error,
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
            Self::Setup { .. } => "Setup",
        }
    }

    /// Whether reading the files again can succeed: they may be in the middle of a rotation.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Setup { .. })
    }
}

/// The certificate of a listener. Clones share it.
#[derive(Clone)]
pub struct TlsSource {
    resolver: Arc<CertificateResolver>,
    acceptor: TlsAcceptor,
}

struct CertificateResolver {
    files: CertificateFiles,
    loaded: RwLock<LoadedPair>,
}

struct LoadedPair {
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
    pub fn open(files: CertificateFiles) -> Result<Self, TlsError> {
        let loaded = RwLock::new(load(&files)?);
        let resolver = Arc::new(CertificateResolver { files, loaded });
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Setup { source })?
            .with_no_client_auth()
            .with_cert_resolver(resolver.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.send_tls13_tickets = 1;
        Ok(Self { resolver, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// For the handshake of one connection.
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Reads the files once; `true` when a new certificate is in use.
    ///
    /// # Errors
    /// [`TlsError`] when they changed and cannot be used; the current certificate stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let next = load(&self.resolver.files)?;
        let mut loaded = self.resolver.loaded.write().unwrap_or_else(PoisonError::into_inner);
        if loaded.certificate == next.certificate && loaded.key == next.key {
            return Ok(false);
        }
        *loaded = next;
        Ok(true)
    }

    /// Reads the files every `every` until `stop`, and counts each reload and each kind of failure.
    pub async fn keep_current(self, every: Duration, metrics: MetricsRegistry, stop: CancellationToken) {
        let count = |result| {
            let help = "Certificates reloaded, and attempts that failed, by result.";
            let name = "sentinel_server_certificate_reloads_total";
            metrics.counter_with(name, help, &[("result", result)]).add(1);
        };
        let mut failing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            let source = self.clone();
            match tokio::task::spawn_blocking(move || source.reload()).await {
                Ok(Ok(changed)) => {
                    failing = false;
                    if changed {
                        count("Reloaded");
                        let certificate = self.resolver.files.certificate.display();
                        tracing::info!(%certificate, "certificate reloaded");
                    }
                }
                Ok(Err(error)) => {
                    count(error.category());
                    // Logged once until a reload succeeds, not at every attempt.
                    if !failing {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "unable to reload the certificate; the current one stays in use"
                        );
                    }
                    failing = true;
                }
                Err(error) => {
                    count("Panicked");
                    tracing::error!(%error, "the certificate reload panicked; the current one stays in use");
                }
            }
        }
    }
}

impl fmt::Debug for TlsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSource").field("files", &self.resolver.files).finish_non_exhaustive()
    }
}

impl fmt::Debug for CertificateResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateResolver").field("files", &self.files).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.loaded.read().unwrap_or_else(PoisonError::into_inner).pair.clone())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    crate::files::read(path, MAX_FILE).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn load(files: &CertificateFiles) -> Result<LoadedPair, TlsError> {
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
    Ok(LoadedPair { pair: Arc::new(pair), certificate, key })
}
