//! The client of the API server, and the names by which the operator writes.

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::api::{PatchParams, PostParams};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use sentinel_protocol::product::user_agent;

use super::api_calls::CountCalls;
use crate::metrics::Registry;

/// The field manager of what the operator writes: status, finalizer, target lists, events, the Lease. Also its name in
/// events and, with its version, in `User-Agent`.
pub const OPERATOR_MANAGER: &str = "sentinel-operator";

/// The field manager of what people write through the HTTP API, and so through the command line.
pub const API_MANAGER: &str = "sentinel-operator-api";

/// A client that names itself and does not retry: the election and every call have deadlines of their own. Its calls are counted.
///
/// # Errors
/// When no client can be made of the configuration.
pub fn client(mut config: Config, metrics: &Registry) -> kube::Result<Client> {
    config.default_retry = false;
    if let Ok(agent) = HeaderValue::try_from(user_agent(OPERATOR_MANAGER)) {
        config.headers.push((USER_AGENT, agent));
    }
    let calls = CountCalls::new(metrics, &config.cluster_url);
    Ok(ClientBuilder::try_from(config)?.with_layer(&calls).build())
}

/// Parameters of a write under this field manager; without one the managed fields have no manager.
pub fn writes_as(manager: &str) -> PostParams {
    PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() }
}

/// Parameters of a patch under this field manager.
pub fn patches_as(manager: &str) -> PatchParams {
    PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() }
}
