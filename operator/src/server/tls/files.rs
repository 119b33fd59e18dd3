//! The server's certificate, reloaded when its files change.
//!
//! The files are polled: the kubelet swaps a symbolic link, which a watch on the file itself would miss. A pair that
//! cannot be used is reported, and the current one stays.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ServerCertificate;
use super::error::TlsError;
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

/// A certificate whose files are read again. Clones share it.
#[derive(Debug, Clone)]
pub struct FileCertificate {
    files: CertificateFiles,
    certificate: ServerCertificate,
    loaded: Arc<Mutex<Loaded>>,
}

/// The content of both files, which is the certificate in use.
#[derive(PartialEq, Eq)]
struct Loaded {
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loaded")
    }
}

impl FileCertificate {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// [`TlsError`] when they cannot be used.
    pub fn open(files: CertificateFiles) -> Result<Self, TlsError> {
        let loaded = load(&files)?;
        let certificate = ServerCertificate::from_pem(&files.to_string(), &loaded.chain, &loaded.key)?;
        Ok(Self { files, certificate, loaded: Arc::new(Mutex::new(loaded)) })
    }

    /// The certificate, which changes with the files.
    pub fn certificate(&self) -> ServerCertificate {
        self.certificate.clone()
    }

    /// Reads the files once; `true` when a new certificate is in use.
    ///
    /// # Errors
    /// [`TlsError`] when they changed and cannot be used; the current certificate stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let next = load(&self.files)?;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if *loaded == next {
            return Ok(false);
        }
        self.certificate.replace(&self.files.to_string(), &next.chain, &next.key)?;
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
                        let certificate = self.files.certificate.display();
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

impl fmt::Display for CertificateFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {}", self.certificate.display(), self.key.display())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    crate::files::read(path, MAX_FILE).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn load(files: &CertificateFiles) -> Result<Loaded, TlsError> {
    Ok(Loaded { chain: read(&files.certificate)?, key: read(&files.key)? })
}
