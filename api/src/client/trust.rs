//! Which certificates of servers a client accepts. The name in a certificate is always checked.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// The authorities whose certificates a client accepts. Clones share them.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

/// Why authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The text has none.
    #[error("it holds no certificate in PEM form")]
    Empty,
    /// The text has what is not one.
    #[error("it holds what is not a certificate of an authority: {0}")]
    Content(String),
    /// Those of the system cannot be read.
    #[error("unable to read the authorities of this system: {0}")]
    System(#[source] rustls::Error),
}

impl Trust {
    /// Those of the system; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others, as for OpenSSL.
    ///
    /// # Errors
    /// [`TrustError::System`] when it has none.
    pub fn of_system() -> Result<Self, TrustError> {
        let builder = Self::builder().map_err(TrustError::System)?;
        let builder = builder.with_platform_verifier().map_err(TrustError::System)?;
        Ok(Self::over_http1(builder.with_no_client_auth()))
    }

    /// These alone, PEM.
    ///
    /// # Errors
    /// [`TrustError`] when the text has no certificate of an authority.
    pub fn of_pem(pem: &[u8]) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| TrustError::Content(error.to_string()))?;
            roots.add(certificate).map_err(|error| TrustError::Content(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(TrustError::Empty);
        }
        let builder = Self::builder().map_err(TrustError::System)?;
        Ok(Self::over_http1(builder.with_root_certificates(roots).with_no_client_auth()))
    }

    fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
    }

    fn over_http1(mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self(Arc::new(config))
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_a_certificate_is_refused() {
        assert!(matches!(Trust::of_pem(b"").unwrap_err(), TrustError::Empty));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(Trust::of_pem(broken).unwrap_err(), TrustError::Content(_)));
    }
}
