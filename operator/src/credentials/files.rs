//! Credentials, and the files that hold them.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::error::CredentialError;
use super::store::Store;
use super::url::{self, Transport};
use crate::files;

/// Longest file of a URL, bytes.
const MAX_URL: u64 = 64 << 10;

/// Largest file of certificates or of a key, bytes.
const MAX_PEM: u64 = 1 << 20;

/// The files of a store's credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialFiles {
    /// The store.
    pub store: Store,
    /// The URL, which may hold a password.
    pub url: PathBuf,
    /// Certificates of the CAs that the server is verified by, PEM. Without it, the public CAs that Mozilla trusts.
    pub ca: Option<PathBuf>,
    /// The client certificate.
    pub client: Option<ClientFiles>,
}

/// The files of a client certificate; one file may hold both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM, without a passphrase.
    pub key: PathBuf,
}

/// The content of [`CredentialFiles`]. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    store: Store,
    files: Option<CredentialFiles>,
    url: String,
    ca: Option<Vec<u8>>,
    client: Option<ClientPem>,
}

/// A client certificate, PEM. Without a `Debug` form.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientPem {
    /// The certificate chain.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
}

impl Credentials {
    /// A URL alone, which no file holds.
    pub fn of_url(store: Store, url: &str) -> Self {
        Self { store, files: None, url: url.to_owned(), ca: None, client: None }
    }

    /// The URL; may hold a password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The files that they come from.
    pub fn files(&self) -> Option<&CredentialFiles> {
        self.files.as_ref()
    }

    /// How the URL asks to connect.
    pub fn transport(&self) -> Transport {
        url::transport(self.store, &self.url)
    }

    /// The CA certificates, PEM.
    pub fn ca(&self) -> Option<&[u8]> {
        self.ca.as_deref()
    }

    /// The client certificate.
    pub fn client(&self) -> Option<&ClientPem> {
        self.client.as_ref()
    }

    /// Logs a warning if the connection to one of these hosts is readable on its way although the URL does not ask for
    /// that.
    pub fn warn_if_readable<'a>(&self, mut hosts: impl Iterator<Item = &'a str>) {
        if self.transport() == Transport::Plain && hosts.any(|host| !is_local(host)) {
            tracing::warn!(
                store = self.store.label(),
                url_file = self.files.as_ref().map(|files| files.url.display().to_string()),
                advice = self.store.how_to_use_tls(),
                "the connection to {} is not encrypted: passwords and data can be read on the way",
                self.store.name()
            );
        }
    }
}

/// Whether a connection to this host stays on this machine.
fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || host.starts_with('/') || address.is_ok_and(|address| address.is_loopback())
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("store", &self.store)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl CredentialFiles {
    /// Reads and checks them.
    ///
    /// # Errors
    /// [`CredentialError`], which names flag and file.
    pub fn read(&self) -> Result<Credentials, CredentialError> {
        let store = self.store;
        let unreadable =
            |source| CredentialError::Unreadable { flag: store.url_flag(), path: self.url.clone(), source };
        let url = url::check(store, &self.url, &files::read_text(&self.url, MAX_URL).map_err(unreadable)?)?;
        let ca = self.ca.as_deref().map(|path| read_ca(store, path)).transpose()?;
        let client = self.client.as_ref().map(|client| client.read(store)).transpose()?;
        let needs_tls = self.client.as_ref().map(|_| store.certificate_flag());
        if let Some(flag) = needs_tls.or(self.ca.as_ref().map(|_| store.ca_flag()))
            && url::transport(store, &url) != Transport::Tls
        {
            return Err(CredentialError::NoTls { store, flag, path: self.url.clone() });
        }
        Ok(Credentials { store, files: Some(self.clone()), url, ca, client })
    }
}

impl ClientFiles {
    fn read(&self, store: Store) -> Result<ClientPem, CredentialError> {
        const CERTIFICATE: &str = "a certificate in PEM form";
        let (of_certificate, of_key) = (store.certificate_flag(), store.key_flag());
        let certificate = read_pem(of_certificate, &self.certificate)?;
        let key = read_pem(of_key, &self.key)?;
        let chain = certificates(of_certificate, &self.certificate, CERTIFICATE, &certificate)?;
        let private = PrivateKeyDer::from_pem_slice(&key).map_err(|error| CredentialError::Content {
            flag: of_key,
            path: self.key.clone(),
            expected: "a private key in PEM form, without a passphrase",
            found: error.to_string(),
        })?;
        CertifiedKey::from_der(chain, private, &default_provider()).map_err(|source| {
            CredentialError::Pair {
                store,
                certificate: self.certificate.clone(),
                key: self.key.clone(),
                source,
            }
        })?;
        Ok(ClientPem { certificate, key })
    }
}

fn read_pem(flag: &'static str, path: &Path) -> Result<Vec<u8>, CredentialError> {
    files::read(path, MAX_PEM).map_err(|source| CredentialError::Unreadable {
        flag,
        path: path.to_owned(),
        source,
    })
}

fn read_ca(store: Store, path: &Path) -> Result<Vec<u8>, CredentialError> {
    const CA: &str = "certificates of CAs in PEM form";
    let flag = store.ca_flag();
    let pem = read_pem(flag, path)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(flag, path, CA, &pem)? {
        roots.add(certificate).map_err(|error| CredentialError::Content {
            flag,
            path: path.to_owned(),
            expected: CA,
            found: error.to_string(),
        })?;
    }
    Ok(pem)
}

/// The certificates of a file; at least one.
fn certificates(
    flag: &'static str,
    path: &Path,
    expected: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let wrong = |found| CredentialError::Content { flag, path: path.to_owned(), expected, found };
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| wrong(error.to_string()))?;
    if all.is_empty() { Err(wrong("it has no certificate".to_owned())) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_this_machine_are_recognized() {
        for host in ["localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]", "/run/redis.sock"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["10.0.0.1", "db", "localhost.example", "::2", "0.0.0.0"] {
            assert!(!is_local(host), "{host}");
        }
    }
}
