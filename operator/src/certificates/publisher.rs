//! Publishes the authority of a certificate that others make, as a mounted Secret has it: a client that may read the Secret
//! could read the key too, and needs the authority alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Patch;
use kube::{Api, Client};
use sentinel_telemetry::causes;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use x509_parser::pem::Pem;

use super::keeper::BUNDLE_KEY;
use super::webhook;
use crate::cluster::CallError;
use crate::cluster::client::{OPERATOR_MANAGER, patches_as};
use crate::files;

/// Largest file of authorities, bytes.
const MAX_FILE: u64 = 1 << 20;

/// Why the authorities of a file are not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The file could not be read.
    #[error("unable to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It has no certificate, or more than certificates.
    #[error("{} is not published, since it {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, without the content.
        why: &'static str,
    },
    /// The API server refused, or did not answer.
    #[error(transparent)]
    Cluster(#[from] CallError),
}

impl PublishError {
    /// The kind of error, one of a fixed set: log field.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Read { .. } => "Read",
            Self::Content { .. } => "Content",
            Self::Cluster(_) => "Cluster",
        }
    }

    /// Always: the file may be in the middle of a rotation.
    pub fn is_retryable(&self) -> bool {
        true
    }
}

/// Keeps a `ConfigMap` equal to a file of authorities.
#[derive(Debug)]
pub struct Publisher {
    webhooks: Api<MutatingWebhookConfiguration>,
    maps: Api<ConfigMap>,
    name: String,
    /// The `MutatingWebhookConfiguration` that needs them too.
    webhook: Option<String>,
    file: PathBuf,
}

impl Publisher {
    /// Publishes this file in this `ConfigMap`, which exists.
    pub fn new(client: Client, namespace: &str, name: String, file: PathBuf) -> Self {
        let maps = Api::namespaced(client.clone(), namespace);
        Self { webhooks: Api::all(client), maps, name, webhook: None, file }
    }

    /// Publishes it in this `MutatingWebhookConfiguration` too, while that exists.
    #[must_use]
    pub fn with_webhook(self, webhook: Option<String>) -> Self {
        Self { webhook, ..self }
    }

    /// Publishes it, and again every `every` where one of the two has changed, until `stop`.
    pub async fn run(self, every: Duration, stop: CancellationToken) {
        let mut failing = false;
        loop {
            match self.publish().await {
                Ok(changed) => {
                    failing = false;
                    if changed {
                        let (file, config_map) = (self.file.display(), &self.name);
                        tracing::info!(%file, %config_map, "authorities published");
                    }
                }
                // Logged once until it succeeds, not at every attempt.
                Err(error) if !failing => {
                    failing = true;
                    let category = error.category();
                    let error = causes(&error);
                    tracing::warn!(error, category, "unable to publish the authorities of the certificate");
                }
                Err(_) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    /// Publishes it once; `true` when another one, or none, was published before.
    ///
    /// # Errors
    /// [`PublishError`]; what is published stays.
    pub async fn publish(&self) -> Result<bool, PublishError> {
        let pem = read(&self.file)?;
        let mut changed = self.publish_to_map(&pem).await?;
        if let Some(name) = &self.webhook {
            let published = webhook::publish(&self.webhooks, name, &pem).await;
            changed |= published.map_err(CallError::of("publish authorities in", webhook::KIND, name))?;
        }
        Ok(changed)
    }

    async fn publish_to_map(&self, pem: &str) -> Result<bool, PublishError> {
        let failed = |doing| CallError::of(doing, "ConfigMap", &self.name);
        let map = self.maps.get(&self.name).await.map_err(failed("read"))?;
        let published = map.data.and_then(|mut data| data.remove(BUNDLE_KEY));
        if published.as_deref() == Some(pem) {
            return Ok(false);
        }
        let patch = Patch::Merge(json!({"data": {BUNDLE_KEY: pem}}));
        self.maps.patch(&self.name, &patches_as(OPERATOR_MANAGER), &patch).await.map_err(failed("write"))?;
        Ok(true)
    }
}

/// The certificates of a file; nothing of one that has more than certificates, such as a key.
fn read(path: &Path) -> Result<String, PublishError> {
    let unusable = |why| PublishError::Content { path: path.to_owned(), why };
    let text = files::read_text(path, MAX_FILE)
        .map_err(|source| PublishError::Read { path: path.to_owned(), source })?;
    let mut count = 0;
    for part in Pem::iter_from_buffer(text.as_bytes()) {
        let part = part.map_err(|_| unusable("is not in PEM form"))?;
        if part.label != "CERTIFICATE" || part.parse_x509().is_err() {
            return Err(unusable("has more than certificates"));
        }
        count += 1;
    }
    match count {
        0 => Err(unusable("has no certificate")),
        _ if text.contains("PRIVATE KEY") => Err(unusable("has more than certificates")),
        _ => Ok(text),
    }
}
