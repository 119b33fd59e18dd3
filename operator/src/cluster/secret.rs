//! Reads a Secret for a command.

use k8s_openapi::api::core::v1::Secret;
use kube::api::GetParams;
use kube::{Client, Resource};
use secrecy::{ExposeSecret, SecretString};
use sentinel_secrets::values::SecretValue;

use super::call::{Repeat, call};
use super::error::ClusterError;
use super::seams::SecretKeys;

/// The keys of a Secret and their values; `None` when it does not exist.
///
/// As text, and parsed here: the client logs an answer that it cannot parse.
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<SecretKeys>, ClusterError> {
    let doing = format!("read Secret {namespace}/{name}");
    let path = Secret::url_path(&(), Some(namespace));
    let text = || async {
        let request = kube::api::Request::new(path.clone()).get(name, &GetParams::default());
        let request = request.map_err(kube::Error::BuildRequest)?;
        client.request_text(request).await.map(SecretString::from)
    };
    let text = match call(&doing, Repeat::Idempotent, text).await {
        Ok(text) => text,
        Err(ClusterError::Gone { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    // Without the error of the parser, which could quote a part.
    let secret: Secret = serde_json::from_str(text.expose_secret())
        .map_err(|_| ClusterError::Unavailable { doing, source: "the answer cannot be parsed".into() })?;
    let keys = secret.data.unwrap_or_default().into_iter();
    Ok(Some(keys.map(|(key, value)| (key, SecretValue::new(value.0))).collect()))
}
