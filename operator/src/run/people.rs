//! The listeners of the API, each with the people whom it serves.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::error::RunError;
use super::operator::Background;
use super::transport::FILES_EVERY;
use crate::config::{ApiAuth, Config, MetricsAuth, TrustedProxy};
use crate::http::guard::{Access, Door, Surface};
use crate::identity::access_review::AccessReviews;
use crate::identity::front_proxy::{self, FrontProxy};
use crate::identity::people::{self, People};
use crate::identity::proxy::ProxyRules;
use crate::metrics::Registry as MetricsRegistry;
use crate::server::tls::{Clients, FileAuthorities, ServerCertificate, Tls, TlsError};
use crate::server::{Exposure, Limits, Places, Server};

/// How long it may take to read for the first time who the front proxy is.
const FIRST_WITHIN: Duration = Duration::from_mins(1);

/// What the listeners of people are made of.
pub(super) struct PeopleParts<'a> {
    pub(super) config: &'a Config,
    pub(super) client: kube::Client,
    pub(super) certificate: Option<&'a ServerCertificate>,
    /// Where connections are served, in a cluster with several operators.
    pub(super) places: Places,
    pub(super) metrics: &'a MetricsRegistry,
}

/// The listeners of people, not served yet.
pub(super) struct PeopleListeners {
    /// Those of the API; the first one's address is shown.
    pub(super) api: Vec<(Server, Door)>,
    /// The one of probes and metrics.
    pub(super) metrics: (Server, Door),
    /// What keeps them current.
    pub(super) background: Vec<Background>,
}

/// Binds the listeners of people.
///
/// # Errors
/// [`RunError`] when a port cannot be opened, or what it needs is not there.
pub(super) async fn bind(parts: PeopleParts<'_>) -> Result<PeopleListeners, RunError> {
    let access = Arc::new(AccessReviews::new(parts.client.clone(), parts.metrics));
    let _ = people::counters(parts.metrics);
    let mut background = Vec::new();
    let mut api = vec![api(&parts, &access, &mut background).await?];
    if let Some(path) = &parts.config.api_socket {
        let socket = Server::bind_socket("api", path, Limits::of_people(), parts.metrics).await?;
        api.push((socket, Door::of_api(Access::Socket)));
    }
    if let (Some(address), Some(certificate)) = (parts.config.aggregated_listen, parts.certificate) {
        let front_proxy = FrontProxy::first(parts.client.clone(), FIRST_WITHIN, parts.metrics).await;
        let front_proxy = front_proxy.map_err(|error| RunError::FrontProxy(Box::new(error)))?;
        let tls = tls(certificate, Clients::Required(front_proxy.authorities()))?;
        let limits = Limits::of_proxy();
        let server = Server::bind("aggregated", address, Exposure::Anywhere, limits, parts.metrics).await?;
        let people = People::by_front_proxy(front_proxy.rules(), access.clone());
        let door = Door { surface: Surface::Aggregated, access: Access::People(Arc::new(people)) };
        api.push((server.with_tls(tls).with_places(parts.places.clone()), door));
        let keep = move |stop| front_proxy.keep_current(front_proxy::EVERY, stop).boxed();
        background.push(("the front proxy's certificate", Box::new(keep) as _));
    }
    let metrics = metrics(&parts, &access).await?;
    Ok(PeopleListeners { api, metrics, background })
}

/// The listener of the API, for people with tokens, or as it is configured; `background` gets what keeps it current.
async fn api(
    parts: &PeopleParts<'_>,
    access: &Arc<AccessReviews>,
    background: &mut Vec<Background>,
) -> Result<(Server, Door), RunError> {
    let PeopleParts { config, client, certificate, places, metrics } = parts;
    let (access, clients) = match &config.api_auth {
        ApiAuth::Open => (Access::Open, Clients::Unasked),
        ApiAuth::Token(token) => (Access::Bearer(token.clone()), Clients::Unasked),
        ApiAuth::Kubernetes { audience, origins, proxy } => {
            let rules = proxy.as_ref().map(rules_of);
            let people = People::by_token(client.clone(), audience.clone(), rules, access.clone(), metrics);
            let clients = match proxy {
                Some(proxy) => {
                    let file = FileAuthorities::open(proxy.ca_file.clone(), metrics).map_err(unusable)?;
                    let authorities = file.authorities();
                    let keep = move |stop| file.keep_current(FILES_EVERY, stop).boxed();
                    background.push(("the trusted proxy's authorities", Box::new(keep)));
                    Clients::Optional(authorities)
                }
                None => Clients::Unasked,
            };
            (Access::People(Arc::new(people.with_origins(origins.clone()))), clients)
        }
    };
    let is_for_people = matches!(access, Access::People(_) | Access::Bearer(_));
    let exposure = if is_for_people { Exposure::Anywhere } else { Exposure::NO_PEOPLE };
    let mut server = Server::bind("api", config.api_listen, exposure, Limits::of_people(), metrics).await?;
    // On loopback a client and its operator share the machine, and no port is that of another operator. A proxy beside the
    // operator needs TLS there too, to present its certificate.
    let is_loopback = config.api_listen.ip().is_loopback();
    if !is_loopback {
        server = server.with_places(places.clone());
    }
    if let Some(certificate) = certificate.filter(|_| !is_loopback || !matches!(clients, Clients::Unasked)) {
        server = server.with_tls(tls(certificate, clients)?);
    }
    Ok((server, Door::of_api(access)))
}

/// The listener of probes and metrics.
async fn metrics(parts: &PeopleParts<'_>, access: &Arc<AccessReviews>) -> Result<(Server, Door), RunError> {
    let PeopleParts { config, client, certificate, metrics, .. } = parts;
    let limits = Limits::of_probes();
    let mut server =
        Server::bind("metrics", config.metrics_listen, Exposure::Anywhere, limits, metrics).await?;
    if let Some(certificate) = certificate.filter(|_| !config.metrics_listen.ip().is_loopback()) {
        server = server.with_tls(tls(certificate, Clients::Unasked)?);
    }
    let access = match config.metrics_auth {
        MetricsAuth::None => Access::Open,
        MetricsAuth::Kubernetes => {
            let people = People::by_token(client.clone(), None, None, access.clone(), metrics);
            Access::People(Arc::new(people))
        }
    };
    Ok((server, Door { surface: Surface::ProbesAndMetrics, access }))
}

fn tls(certificate: &ServerCertificate, clients: Clients) -> Result<Tls, RunError> {
    Tls::new(certificate.clone(), clients).map_err(unusable)
}

fn unusable(error: TlsError) -> RunError {
    RunError::Certificate(Box::new(error))
}

fn rules_of(proxy: &TrustedProxy) -> ProxyRules {
    ProxyRules {
        names: proxy.names.clone(),
        user: vec![proxy.user.clone()],
        groups: vec![proxy.group.clone()],
        separator: proxy.separator,
        extra: Vec::new(),
        uid: Vec::new(),
    }
}
