//! Which server a command line is for, and the connection to it.

use std::path::PathBuf;
use std::sync::Arc;

use sentinel_api::client::dev_socket;

use crate::client::{Client, Server, connect as connect_to, warn};
use crate::cluster::{ApiServer, Cluster, Settings, settings};
use crate::exit::Failure;

/// The port of a dev mode, unless it is given another.
const DEV_PORT: u16 = 7980;

/// The namespace where nothing names one.
const NAMESPACE: &str = "default";

/// Where the requests of a command line go.
#[derive(Debug)]
pub(crate) enum Target {
    /// To a server with an address, or a dev mode.
    Direct(Server),
    /// To the operator of a cluster.
    Cluster(Settings),
}

/// A server, and where in it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// The namespace of Tasks that name none.
    pub(crate) namespace: String,
    /// The cluster, and the way to its operator.
    pub(crate) cluster: Option<(Arc<Cluster>, Arc<ApiServer>)>,
}

/// What a command line has about its server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    /// The server that is named.
    pub(crate) server: Option<Server>,
    /// The file with the authorities of its certificate.
    pub(crate) authority: Option<PathBuf>,
    /// The kubeconfig that is named.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Its context.
    pub(crate) context: Option<String>,
    /// Whom to act as.
    pub(crate) as_user: Option<String>,
    /// The groups to act as.
    pub(crate) as_group: Vec<String>,
    /// The file with the token for the server.
    pub(crate) token_file: Option<PathBuf>,
    /// The namespace that is named.
    pub(crate) namespace: Option<String>,
}

impl Place {
    /// What the flags have about a cluster.
    fn settings(&self) -> Settings {
        Settings {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone().filter(|name| !name.is_empty()),
            user: self.as_user.clone(),
            groups: self.as_group.clone(),
        }
    }

    /// The server: the one that is named, a dev mode that runs, the cluster of the kubeconfig; in this order.
    pub(crate) fn target(&self) -> Target {
        let settings = self.settings();
        if let Some(server) = &self.server {
            return Target::Direct(server.clone());
        }
        if settings.is_given() || (!dev_socket::is_running(DEV_PORT) && settings::is_configured()) {
            return Target::Cluster(settings);
        }
        Target::Direct(Server::default())
    }

    /// The namespace that is named; an empty value counts as unset.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref().filter(|name| !name.is_empty())
    }

    /// The namespace without a cluster.
    pub(crate) fn local_namespace(&self) -> &str {
        self.namespace().unwrap_or(NAMESPACE)
    }
}

/// Prepares the connection; nothing is sent yet. `force` is whether an apply takes over fields of other managers.
///
/// # Errors
/// When a token or a kubeconfig cannot be read.
pub(crate) async fn connect(place: &Place, force: bool) -> Result<Connection, Failure> {
    match place.target() {
        Target::Direct(server) => {
            let client = connect_to(server, place.token_file.as_deref(), place.authority.as_deref())?;
            Ok(Connection { client, namespace: place.local_namespace().to_owned(), cluster: None })
        }
        Target::Cluster(settings) => {
            if let Some(path) = &place.token_file {
                let message = format!("--token-file {} is for --server", path.display());
                return Err(Failure::usage(message).hint("The kubeconfig has the credentials for a cluster"));
            }
            if let Some(path) = &place.authority {
                let message = format!("--certificate-authority {} is for --server https://…", path.display());
                return Err(Failure::usage(message).hint("The kubeconfig has the authority of a cluster"));
            }
            let cluster = Arc::new(settings.connect().await?);
            let namespace = place.namespace().unwrap_or(&cluster.config.default_namespace).to_owned();
            let server = Arc::new(ApiServer::new(Arc::clone(&cluster), &namespace, force));
            let client = Client::over(Server::Cluster(cluster.name.clone()), Arc::clone(&server) as _);
            Ok(Connection { client: client.on_warning(warn), namespace, cluster: Some((cluster, server)) })
        }
    }
}
