//! The authorities by which the API server verifies the admission webhook.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Api;
use kube::api::Patch;
use serde_json::json;

use crate::cluster::client::{OPERATOR_MANAGER, patches_as};

/// The kind of object, for errors.
pub(super) const KIND: &str = "MutatingWebhookConfiguration";

/// Gives every webhook of a configuration these authorities, PEM; `true` when one had others. One that does not exist needs
/// none.
///
/// # Errors
/// The API server refused, or did not answer.
pub(super) async fn publish(
    all: &Api<MutatingWebhookConfiguration>,
    name: &str,
    bundle: &str,
) -> kube::Result<bool> {
    let Some(found) = all.get_opt(name).await? else { return Ok(false) };
    let encoded = ByteString(bundle.as_bytes().to_vec());
    let others = found.webhooks.iter().flatten();
    let others = others.filter(|webhook| webhook.client_config.ca_bundle.as_ref() != Some(&encoded));
    let others: Vec<_> =
        others.map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": encoded}})).collect();
    if others.is_empty() {
        return Ok(false);
    }
    let patch = Patch::Strategic(json!({"webhooks": others}));
    all.patch(name, &patches_as(OPERATOR_MANAGER), &patch).await?;
    Ok(true)
}
