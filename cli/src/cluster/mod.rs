//! The operator of a Kubernetes cluster as a server, with the kubeconfig that people have.
//!
//! * [`settings`]: which kubeconfig, context and user; whether there is a cluster at all;
//! * [`transport`]: requests of the API as requests of the aggregated API (`sentinel_api::aggregated`), and what is done
//!   where the cluster does not serve it;
//! * [`tasks`]: writes of Tasks, which go to the API server as objects, with the caller's own rights;
//! * [`forward`]: the way to the operator by a forwarded port;
//! * `exchange`: one request to the API server;
//! * [`status`]: errors of the API server as errors of this API.
//!
//! Everything is done with the caller's credentials, so that the API server decides what is allowed, and its audit log has who
//! did it.

pub(crate) mod exchange;
pub(crate) mod forward;
pub(crate) mod settings;
pub(crate) mod status;
mod tasks;
pub(crate) mod transport;

pub(crate) use settings::{Cluster, Settings};
pub(crate) use transport::ApiServer;

/// The labels of the objects of an installation.
pub(crate) const NAME_LABEL: &str = "app.kubernetes.io/name=sentinel-node";

/// The namespace of an installation, unless it was given another.
pub(crate) const INSTALL_NAMESPACE: &str = "sentinel-system";

/// The labels of the operator's objects.
pub(crate) const OPERATOR_LABELS: &str =
    "app.kubernetes.io/name=sentinel-node,app.kubernetes.io/component=operator";

/// The labels of the agents' objects.
pub(crate) const AGENT_LABELS: &str =
    "app.kubernetes.io/name=sentinel-node,app.kubernetes.io/component=agent";
