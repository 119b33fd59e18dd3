//! Client certificates: whose authorities sign them, and what a request learns of them.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::default_provider;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::error::TlsError;

/// The certificate of a client, whose chain is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The common name of its subject, where it has exactly one.
    pub common_name: Option<String>,
}

impl ClientCertificate {
    /// Reads a verified certificate.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        let parsed = X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed);
        let names: Vec<String> = parsed
            .iter()
            .flat_map(|parsed| parsed.subject().iter_common_name())
            .map(|name| name.as_str().unwrap_or_default().to_owned())
            .collect();
        let common_name = if let [name] = names.as_slice() { Some(name.clone()) } else { None };
        Self { common_name }
    }
}

/// The authorities that sign certificates of clients. Clones share them; replaced ones count for handshakes from then on.
#[derive(Clone)]
pub struct ClientAuthorities(Arc<RwLock<Arc<dyn ClientCertVerifier>>>);

impl ClientAuthorities {
    /// From certificates of authorities, PEM. `of` names their origin in errors.
    ///
    /// # Errors
    /// [`TlsError::Authorities`] when there is none that can be used.
    pub fn from_pem(of: &str, pem: &[u8]) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(RwLock::new(verifier(of, pem)?))))
    }

    /// Replaces them.
    ///
    /// # Errors
    /// [`TlsError::Authorities`] when there is none that can be used; the current ones stay.
    pub fn replace(&self, of: &str, pem: &[u8]) -> Result<(), TlsError> {
        let next = verifier(of, pem)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    pub(super) fn verifier(self, is_required: bool) -> Arc<dyn ClientCertVerifier> {
        Arc::new(LiveVerifier { authorities: self, is_required })
    }

    fn now(&self) -> Arc<dyn ClientCertVerifier> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for ClientAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientAuthorities")
    }
}

fn verifier(of: &str, pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let unusable = |why: String| TlsError::Authorities { of: of.to_owned(), why };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    let provider = Arc::new(default_provider());
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let verifier: Arc<dyn ClientCertVerifier> = built.map_err(|error| unusable(error.to_string()))?;
    Ok(verifier)
}

/// Verifies by the authorities of the moment.
#[derive(Debug)]
struct LiveVerifier {
    authorities: ClientAuthorities,
    is_required: bool,
}

impl ClientCertVerifier for LiveVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A hint must outlive this call, and the authorities may change; clients have one certificate.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.authorities.now().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
