//! The TLS of a listener: the server's certificate, and which client certificates it takes. Both can be replaced while
//! connections are open; a handshake uses those of the moment when it begins.

mod clients;
mod error;
mod files;
mod reload;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

pub use self::clients::{ClientAuthorities, ClientCertificate};
pub use self::error::TlsError;
pub use self::files::{CertificateFiles, FileAuthorities, FileCertificate};
pub use self::reload::{Reloaded, Reloads};

/// The certificate that a server presents. Clones share it.
#[derive(Clone)]
pub struct ServerCertificate(Arc<RwLock<Arc<CertifiedKey>>>);

impl ServerCertificate {
    /// From a chain and its key, both PEM. `of` names their origin in errors.
    ///
    /// # Errors
    /// [`TlsError`] when they cannot be used.
    pub fn from_pem(of: &str, chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(RwLock::new(Arc::new(pair(of, chain, key)?)))))
    }

    /// Replaces it, for handshakes from now on.
    ///
    /// # Errors
    /// [`TlsError`] when they cannot be used; the current one stays.
    pub fn replace(&self, of: &str, chain: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let next = Arc::new(pair(of, chain, key)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerCertificate")
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn pair(of: &str, chain: &[u8], key: &[u8]) -> Result<CertifiedKey, TlsError> {
    let bad = |what| move |source| TlsError::Pem { of: of.to_owned(), what, source };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(bad("certificate"))?;
    if chain.is_empty() {
        return Err(bad("certificate")(rustls::pki_types::pem::Error::NoItemsFound));
    }
    let private = PrivateKeyDer::from_pem_slice(key).map_err(bad("private key"))?;
    CertifiedKey::from_der(chain, private, &default_provider())
        .map_err(|source| TlsError::Pair { of: of.to_owned(), source })
}

/// The client certificates that a listener takes.
#[derive(Debug, Clone)]
pub enum Clients {
    /// None: clients prove themselves in requests.
    Unasked,
    /// One of these authorities, for a client that has one.
    Optional(ClientAuthorities),
    /// One of these authorities; no handshake without.
    Required(ClientAuthorities),
}

/// The TLS of a listener. Clones share it.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
}

impl Tls {
    /// Presents this certificate, and takes certificates of these clients.
    ///
    /// # Errors
    /// [`TlsError::Setup`] when rustls refuses the configuration.
    pub fn new(certificate: ServerCertificate, clients: Clients) -> Result<Self, TlsError> {
        let builder = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Setup { source })?;
        let asks_clients = !matches!(clients, Clients::Unasked);
        let builder = match clients {
            Clients::Unasked => builder.with_no_client_auth(),
            Clients::Optional(of) => builder.with_client_cert_verifier(of.verifier(false)),
            Clients::Required(of) => builder.with_client_cert_verifier(of.verifier(true)),
        };
        let mut config = builder.with_cert_resolver(Arc::new(certificate));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.send_tls13_tickets = 1;
        // A resumed session presents no certificate again, and so would outlive its authority.
        if asks_clients {
            config.send_tls13_tickets = 0;
            config.session_storage = Arc::new(NoServerSessionStorage {});
        }
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// For the handshake of one connection.
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}
