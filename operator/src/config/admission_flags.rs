//! Flags of the admission webhook.

use std::net::SocketAddr;

use clap::Args;

use super::values::Admission;

/// Flags of the admission webhook.
#[derive(Debug, Args)]
#[group(skip)]
#[expect(clippy::struct_field_names, reason = "they are named as the flags")]
pub(super) struct AdmissionFlags {
    /// Address of the admission webhook, which stamps Tasks with who asked for them, for the API server. Requires a
    /// certificate.
    #[arg(long, env = "SENTINEL_ADMISSION_LISTEN", value_name = "ADDRESS", requires = "admission_secret")]
    pub(super) admission_listen: Option<SocketAddr>,

    /// Secret in the operator's namespace with the key by which stamps are signed; the operator makes the key.
    #[arg(long, env = "SENTINEL_ADMISSION_SECRET", value_name = "NAME", requires = "admission_listen")]
    pub(super) admission_secret: Option<String>,

    /// `MutatingWebhookConfiguration` whose path the operator keeps current, and with --tls-secret or --tls-ca-file its
    /// `caBundle`.
    #[arg(long, env = "SENTINEL_ADMISSION_WEBHOOK", value_name = "NAME", requires = "admission_listen")]
    pub(super) admission_webhook: Option<String>,
}

impl AdmissionFlags {
    /// The webhook, if there is one.
    pub(super) fn admission(&self) -> Option<Admission> {
        let (listen, secret) = self.admission_listen.zip(self.admission_secret.clone())?;
        Some(Admission { listen, secret, webhook: self.admission_webhook.clone() })
    }
}
