//! The ports of an operator: for agents, for the API, for probes and metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::error::RunError;
use super::tasks::Tasks;
use crate::config::any_loopback_port;
use crate::gateway::Gateway;
use crate::http::api::Api;
use crate::http::guard::{Access, Door};
use crate::http::routes as api_routes;
use crate::metrics::Registry as MetricsRegistry;
use crate::server::tls::Tls;
use crate::server::{Exposure, Limits, Server};

/// Where the HTTP API is.
#[derive(Debug)]
pub enum ApiAt {
    /// At a loopback address, open to every process that can connect.
    Open(SocketAddr),
    /// At these listeners, each with its door. The first is the one whose address is shown.
    Servers(Vec<(Server, Door)>),
}

impl From<SocketAddr> for ApiAt {
    fn from(addr: SocketAddr) -> Self {
        Self::Open(addr)
    }
}

impl ApiAt {
    async fn servers(self, metrics: &MetricsRegistry) -> Result<Vec<(Server, Door)>, RunError> {
        match self {
            Self::Servers(servers) => Ok(servers),
            Self::Open(addr) => {
                let limits = Limits::of_people();
                let server = Server::bind("api", addr, Exposure::NO_PEOPLE, limits, metrics).await?;
                let door = Door::of_api(Access::Open);
                Ok(vec![(server, door)])
            }
        }
    }
}

/// Where to listen.
pub(super) struct ListenAt {
    pub(super) gateway: SocketAddr,
    pub(super) gateway_tls: Option<Tls>,
    pub(super) api: ApiAt,
    pub(super) metrics: Option<(Server, Door)>,
}

/// The addresses of the listeners, with the ports that the system chose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) gateway: SocketAddr,
    pub(super) api: SocketAddr,
    pub(super) metrics: Option<SocketAddr>,
}

/// Open ports that nothing serves yet.
pub(super) struct Listeners {
    gateway: Server,
    api: Vec<(Server, Door)>,
    metrics: Option<(Server, Door)>,
}

impl Listeners {
    /// Opens every port.
    ///
    /// # Errors
    /// [`RunError`] when a port cannot be opened; then none is open.
    pub(super) async fn bind(
        at: ListenAt,
        exposure: Exposure,
        metrics: &MetricsRegistry,
    ) -> Result<Self, RunError> {
        // On loopback every agent has the same address.
        let limits = if exposure == Exposure::Anywhere { Limits::of_agents() } else { Limits::default() };
        let mut gateway = Server::bind("gateway", at.gateway, exposure, limits, metrics).await?;
        if let Some(tls) = at.gateway_tls {
            gateway = gateway.with_tls(tls);
        }
        let api = at.api.servers(metrics).await?;
        Ok(Self { gateway, api, metrics: at.metrics })
    }

    /// Where they listen.
    pub(super) fn addresses(&self) -> Addresses {
        Addresses {
            gateway: self.gateway.local_addr(),
            api: self.api.first().map_or_else(any_loopback_port, |(server, _)| server.local_addr()),
            metrics: self.metrics.as_ref().map(|(server, _)| server.local_addr()),
        }
    }

    /// Serves until `stop`.
    pub(super) fn serve(self, tasks: &mut Tasks, gateway: Gateway, api: Arc<Api>, stop: &CancellationToken) {
        let agents = crate::gateway::routes::service(gateway);
        tasks.spawn("the gateway", self.gateway.serve(agents, stop.clone()));
        for (server, door) in self.api {
            tasks.spawn("the API", server.serve(api_routes::service(api.clone(), door), stop.clone()));
        }
        if let Some((server, door)) = self.metrics {
            let probes = api_routes::service(api, door);
            tasks.spawn("the metrics listener", server.serve(probes, stop.clone()));
        }
    }
}
