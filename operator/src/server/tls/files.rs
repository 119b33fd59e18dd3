//! Certificates in files, which are read again when they change. A content that cannot be used is reported, and the current
//! one stays.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ServerCertificate;
use super::clients::ClientAuthorities;
use super::error::TlsError;
use super::reload::{Reload, Reloaded, Reloads, keep_current};
use crate::expiry::{self, Expiries, Purpose};
use crate::metrics::Registry as MetricsRegistry;

/// Largest file of certificates or of a key, bytes.
const MAX_FILE: u64 = 1 << 20;

/// The two files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// The certificate of the listeners, whose files are read again. Clones share it.
#[derive(Debug, Clone)]
pub struct FileCertificate {
    files: CertificateFiles,
    certificate: ServerCertificate,
    loaded: Arc<Mutex<Loaded>>,
    expiries: Expiries,
    reloads: Reloads,
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
    /// Reads the files for the first time. Reloads, and the time of expiry, are in these metrics.
    ///
    /// # Errors
    /// [`TlsError`] when they cannot be used.
    pub fn open(files: CertificateFiles, metrics: &MetricsRegistry) -> Result<Self, TlsError> {
        let loaded = load(&files)?;
        let certificate = ServerCertificate::from_pem(&files.to_string(), &loaded.chain, &loaded.key)?;
        let reloads = Reloads::new(metrics, Reloaded::ServerCertificate);
        let expiries = Expiries::new(metrics);
        expiries.set(Purpose::Server, expiry::of_chain(&loaded.chain));
        Ok(Self { files, certificate, loaded: Arc::new(Mutex::new(loaded)), expiries, reloads })
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
        self.expiries.set(Purpose::Server, expiry::of_chain(&next.chain));
        *loaded = next;
        Ok(true)
    }

    /// Reads the files every `every` until `stop`.
    pub async fn keep_current(self, every: Duration, stop: CancellationToken) {
        let reloads = self.reloads.clone();
        keep_current(self, every, reloads, stop).await;
    }
}

impl Reload for FileCertificate {
    const WHAT: &'static str = "certificate";

    fn file(&self) -> PathBuf {
        self.files.certificate.clone()
    }

    fn reload(&self) -> Result<bool, TlsError> {
        Self::reload(self)
    }
}

/// The authorities of a trusted proxy, whose file is read again. Clones share it.
#[derive(Debug, Clone)]
pub struct FileAuthorities {
    file: PathBuf,
    authorities: ClientAuthorities,
    loaded: Arc<Mutex<Vec<u8>>>,
    expiries: Expiries,
    reloads: Reloads,
}

impl FileAuthorities {
    /// Reads the file for the first time. Reloads, and the time of expiry, are in these metrics.
    ///
    /// # Errors
    /// [`TlsError`] when it cannot be used.
    pub fn open(file: PathBuf, metrics: &MetricsRegistry) -> Result<Self, TlsError> {
        let pem = read(&file)?;
        let authorities = ClientAuthorities::from_pem(&file.display().to_string(), &pem)?;
        let reloads = Reloads::new(metrics, Reloaded::TrustedProxy);
        let expiries = Expiries::new(metrics);
        expiries.set(Purpose::TrustedProxyAuthority, expiry::of_authorities(&pem));
        Ok(Self { file, authorities, loaded: Arc::new(Mutex::new(pem)), expiries, reloads })
    }

    /// The authorities, which change with the file.
    pub fn authorities(&self) -> ClientAuthorities {
        self.authorities.clone()
    }

    /// Reads the file every `every` until `stop`.
    pub async fn keep_current(self, every: Duration, stop: CancellationToken) {
        let reloads = self.reloads.clone();
        keep_current(self, every, reloads, stop).await;
    }
}

impl Reload for FileAuthorities {
    const WHAT: &'static str = "authorities of the trusted proxy";

    fn file(&self) -> PathBuf {
        self.file.clone()
    }

    fn reload(&self) -> Result<bool, TlsError> {
        let next = read(&self.file)?;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if *loaded == next {
            return Ok(false);
        }
        self.authorities.replace(&self.file.display().to_string(), &next)?;
        self.expiries.set(Purpose::TrustedProxyAuthority, expiry::of_authorities(&next));
        *loaded = next;
        Ok(true)
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
