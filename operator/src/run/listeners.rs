//! The ports of an operator: for agents, for the API, for probes and metrics.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::error::RunError;
use super::tasks::Tasks;
use crate::config::{TlsFiles, any_loopback_port};
use crate::gateway::Gateway;
use crate::http::api::Api;
use crate::http::guard::{Access, Door, Surface};
use crate::http::routes as api_routes;
use crate::metrics::Registry as MetricsRegistry;
use crate::server::tls::TlsSource;
use crate::server::{Exposure, Limits, Server};

/// How often changed certificates are reloaded.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(30);

/// Where the HTTP API is.
#[derive(Debug)]
pub enum ApiAt {
    /// At a loopback address, open to every process that can connect.
    Open(SocketAddr),
    /// At these listeners, each with its callers. The first is the one whose address is shown.
    Servers(Vec<(Server, Access)>),
}

impl From<SocketAddr> for ApiAt {
    fn from(addr: SocketAddr) -> Self {
        Self::Open(addr)
    }
}

impl ApiAt {
    async fn servers(self, metrics: &MetricsRegistry) -> Result<Vec<(Server, Access)>, RunError> {
        match self {
            Self::Servers(servers) => Ok(servers),
            Self::Open(addr) => {
                let limits = Limits::of_people();
                let server = Server::bind("api", addr, Exposure::NO_PEOPLE, limits, metrics).await?;
                Ok(vec![(server, Access::Open)])
            }
        }
    }
}

/// Where to listen.
pub(super) struct ListenAt {
    pub(super) gateway: SocketAddr,
    pub(super) gateway_tls: Option<TlsFiles>,
    pub(super) api: ApiAt,
    pub(super) metrics: Option<SocketAddr>,
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
    certificate: Option<TlsSource>,
    api: Vec<(Server, Access)>,
    metrics: Option<Server>,
}

impl Listeners {
    /// Opens every port.
    ///
    /// # Errors
    /// [`RunError`] when a port cannot be opened or the certificate cannot be used; then none is open.
    pub(super) async fn bind(
        at: ListenAt,
        exposure: Exposure,
        metrics: &MetricsRegistry,
    ) -> Result<Self, RunError> {
        // On loopback every agent has the same address.
        let limits = if exposure == Exposure::Anywhere { Limits::of_agents() } else { Limits::default() };
        let mut gateway = Server::bind("gateway", at.gateway, exposure, limits, metrics).await?;
        let certificate = at.gateway_tls.as_ref().map(open_certificate).transpose()?;
        if let Some(certificate) = &certificate {
            gateway = gateway.with_tls(certificate.clone());
        }
        let api = at.api.servers(metrics).await?;
        let metrics = match at.metrics {
            Some(addr) => {
                let limits = Limits::of_probes();
                Some(Server::bind("metrics", addr, Exposure::Anywhere, limits, metrics).await?)
            }
            None => None,
        };
        Ok(Self { gateway, certificate, api, metrics })
    }

    /// Where they listen.
    pub(super) fn addresses(&self) -> Addresses {
        Addresses {
            gateway: self.gateway.local_addr(),
            api: self.api.first().map_or_else(any_loopback_port, |(server, _)| server.local_addr()),
            metrics: self.metrics.as_ref().map(Server::local_addr),
        }
    }

    /// Serves until `stop`.
    pub(super) fn serve(self, tasks: &mut Tasks, gateway: Gateway, api: Arc<Api>, stop: &CancellationToken) {
        if let Some(certificate) = self.certificate {
            tasks.spawn(
                "the certificate",
                certificate.keep_current(CERTIFICATES_EVERY, api.metrics.clone(), stop.clone()),
            );
        }
        let agents = crate::gateway::routes::service(gateway);
        tasks.spawn("the gateway", self.gateway.serve(agents, stop.clone()));
        for (server, access) in self.api {
            let door = Door { surface: Surface::Everything, access };
            tasks.spawn("the API", server.serve(api_routes::service(api.clone(), door), stop.clone()));
        }
        if let Some(server) = self.metrics {
            let door = Door { surface: Surface::ProbesAndMetrics, access: Access::Open };
            let probes = api_routes::service(api, door);
            tasks.spawn("the metrics listener", server.serve(probes, stop.clone()));
        }
    }
}

fn open_certificate(files: &TlsFiles) -> Result<TlsSource, RunError> {
    let files =
        crate::server::tls::CertificateFiles { certificate: files.cert.clone(), key: files.key.clone() };
    TlsSource::open(files).map_err(|error| RunError::Certificate(Box::new(error)))
}
