//! The way to the operator where the API server does not serve the aggregated API: a forwarded port, and inside of it TLS to
//! the operator itself, with the CA that the operator publishes. The API server sees neither the requests nor the token.
//!
//! The operator asks the API server who the caller is, by the caller's bearer token. A client certificate cannot be passed on
//! that way.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, ListParams};
use kube::client::ConfigExt as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use sentinel_api::aggregated::API_SERVICE;
use sentinel_api::client::transport::{Body, boxed};
use sentinel_api::client::{ClientError, Server};
use sentinel_telemetry::causes;
use tokio::io::DuplexStream;
use tokio_rustls::client::TlsStream;
use tower::{BoxError, Layer as _, ServiceExt as _};

use super::exchange::{kept, unauthorized};
use super::status::shown;
use super::{Cluster, INSTALL_NAMESPACE, OPERATOR_LABELS};

/// The port of the operator's API.
const PORT: u16 = 7980;

/// The end of the name of its Service.
const SERVICE_SUFFIX: &str = "-api";

/// The end of the name of the Service that the `APIService` names.
const AGGREGATED_SUFFIX: &str = "-aggregated";

/// The key of the CA in its `ConfigMap`.
const CA_KEY: &str = "ca.crt";

/// A way to the operator.
#[derive(Debug)]
pub(super) struct Forward {
    cluster: Cluster,
    operator: Operator,
    pool: Pool<Connector, Full<Bytes>>,
    /// The `Authorization` of the caller, until it is refused.
    bearer: Mutex<Option<HeaderValue>>,
}

/// Where the operator is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operator {
    /// The namespace of the installation.
    pub(crate) namespace: String,
    /// The name of the installation, with which the names of its objects begin.
    pub(crate) fullname: String,
}

/// Why the group is not served, and a way around it was tried.
fn unserved(cluster: &Cluster, why: &str, advice: impl Into<String>, is_retryable: bool) -> ClientError {
    let name = &cluster.name;
    ClientError::Cluster {
        message: format!(
            "{} ({}) does not serve the API of Sentinel Node (APIService {API_SERVICE}), and {why}",
            name.address, name.source
        ),
        advice: advice.into(),
        is_retryable,
    }
}

/// Finds the operator, and prepares the way to it. Each connection is a forwarded port of its own.
///
/// # Errors
/// [`ClientError::Cluster`], with what is missing.
pub(super) async fn open(cluster: &Cluster) -> Result<Forward, ClientError> {
    let operator = find(cluster).await?;
    let pod = ready_pod(cluster, &operator).await?;
    let tls = trust(cluster, &operator).await?;
    let bearer = authorization(cluster).await?;
    let host = format!("{}{SERVICE_SUFFIX}.{}.svc", operator.fullname, operator.namespace);
    let name = ServerName::try_from(host.clone()).map_err(|error| {
        unserved(cluster, &format!("{host} is not a name of a server: {error}"), check_advice(), false)
    })?;
    let pods = Api::namespaced(cluster.client.clone(), &operator.namespace);
    let connector = Connector { pods, pod, tls, name };
    let pool = Pool::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
    Ok(Forward { cluster: cluster.clone(), operator, pool, bearer: Mutex::new(Some(bearer)) })
}

fn check_advice() -> String {
    "See what is wrong with: sentinel check".to_owned()
}

/// The rights that the way by a forwarded port needs.
fn rights_advice(namespace: &str) -> String {
    format!(
        "Ask for the rights that a forwarded port needs, in namespace {namespace}: list services and pods, get configmaps, get and \
         create pods/portforward (docs/access.md). Or have the APIService repaired: sentinel check"
    )
}

/// The installation of this cluster that serves the API group; without one, the first.
///
/// # Errors
/// When there is none, or the caller may not list Services.
pub(crate) async fn find(cluster: &Cluster) -> Result<Operator, ClientError> {
    let mut all = installations(cluster).await?;
    if all.is_empty() {
        let advice = "Install it with its Helm chart, or name another context with --context. Before that: sentinel check --pre";
        let why = "it is not installed: no Service has the labels of its operator";
        return Err(unserved(cluster, why, advice, false));
    }
    let serving = if all.len() > 1 { serving(cluster).await } else { None };
    let at = all.iter().position(|one| serving.as_ref() == Some(one)).unwrap_or(0);
    Ok(all.swap_remove(at))
}

/// The installation whose Service the `APIService` names, where the caller may read that.
pub(crate) async fn serving(cluster: &Cluster) -> Option<Operator> {
    let services: Api<APIService> = Api::all(cluster.client.clone());
    let service = services.get_opt(API_SERVICE).await.ok()??.spec?.service?;
    let fullname = service.name?.strip_suffix(AGGREGATED_SUFFIX)?.to_owned();
    Some(Operator { namespace: service.namespace?, fullname })
}

/// The installations of this cluster, by the labels of the operator's Service; where the caller may not list those of all
/// namespaces, of the usual one or of the caller's own.
///
/// # Errors
/// When the caller may list neither.
pub(crate) async fn installations(cluster: &Cluster) -> Result<Vec<Operator>, ClientError> {
    let labelled = ListParams::default().labels(OPERATOR_LABELS);
    let everywhere: Api<Service> = Api::all(cluster.client.clone());
    let within = |name: &str| Api::<Service>::namespaced(cluster.client.clone(), name);
    let mut listed = everywhere.list(&labelled).await;
    for namespace in [INSTALL_NAMESPACE, cluster.config.default_namespace.as_str()] {
        if listed.as_ref().is_ok_and(|listed| !listed.items.is_empty()) {
            break;
        }
        if let Ok(there) = within(namespace).list(&labelled).await {
            listed = Ok(there);
        }
    }
    let listed = listed.map_err(|error| {
        let why = format!("its Service cannot be found by its labels: {}", shown(&error));
        unserved(cluster, &why, rights_advice(INSTALL_NAMESPACE), false)
    })?;
    let named = |service: &Service| {
        let fullname = service.metadata.name.as_deref()?.strip_suffix(SERVICE_SUFFIX)?;
        Some(Operator { namespace: service.metadata.namespace.clone()?, fullname: fullname.to_owned() })
    };
    Ok(listed.items.iter().filter_map(named).collect())
}

/// A pod of the operator that is ready.
async fn ready_pod(cluster: &Cluster, operator: &Operator) -> Result<String, ClientError> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &operator.namespace);
    let listed = pods.list(&ListParams::default().labels(OPERATOR_LABELS)).await.map_err(|error| {
        unserved(
            cluster,
            &format!("the pods of its operator cannot be listed: {}", shown(&error)),
            rights_advice(&operator.namespace),
            false,
        )
    })?;
    let is_ready = |pod: &&Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
    };
    let ready = listed.items.iter().find(is_ready).and_then(|pod| pod.metadata.name.clone());
    ready.ok_or_else(|| {
        let pods = match listed.items.len() {
            0 => "its operator has no pod".to_owned(),
            1 => "the pod of its operator is not ready".to_owned(),
            count => format!("none of the {count} pods of its operator is ready"),
        };
        let why = format!("{pods} in namespace {}", operator.namespace);
        let advice = format!("See why: kubectl -n {} describe pods -l {OPERATOR_LABELS}", operator.namespace);
        unserved(cluster, &why, advice, true)
    })
}

/// TLS that accepts the operator's certificate only.
async fn trust(cluster: &Cluster, operator: &Operator) -> Result<tokio_rustls::TlsConnector, ClientError> {
    let name = format!("{}-ca", operator.fullname);
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &operator.namespace);
    let unknown = |why: String, advice: String| {
        let why =
            format!("the CA of its operator is not known: ConfigMap {}/{name}: {why}", operator.namespace);
        unserved(cluster, &why, advice, false)
    };
    let refused = |why: String| unknown(why, check_advice());
    let map =
        maps.get(&name).await.map_err(|error| unknown(shown(&error), rights_advice(&operator.namespace)))?;
    let pem = map.data.and_then(|mut data| data.remove(CA_KEY)).unwrap_or_default();
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate =
            certificate.map_err(|error| refused(format!("{CA_KEY} cannot be read: {error}")))?;
        roots
            .add(certificate)
            .map_err(|error| refused(format!("{CA_KEY} has an invalid certificate: {error}")))?;
    }
    if roots.is_empty() {
        return Err(refused(format!("its key {CA_KEY} has no certificate yet")));
    }
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)))
}

/// The `Authorization` that kube sends for this user: of a token, a file, an exec plugin or a provider of OIDC.
async fn authorization(cluster: &Cluster) -> Result<HeaderValue, ClientError> {
    let failed =
        |why: String| unserved(cluster, &why, "Sign in again, as for kubectl: kubectl auth whoami", false);
    let config = cluster.config.clone();
    // A plugin blocks its thread.
    let asked =
        tokio::task::spawn_blocking(move || tokio::runtime::Handle::current().block_on(header(&config)));
    let header = match asked.await {
        Ok(header) => header.map_err(failed)?,
        Err(error) => return Err(failed(format!("there is no token: {error}"))),
    };
    let is_bearer = |header: &HeaderValue| header.as_bytes().starts_with(b"Bearer ");
    if cluster.config.auth_info.impersonate.is_some() {
        let why = "only the API server can act as another user (--as)";
        return Err(unserved(
            cluster,
            why,
            "Leave --as out, or have the APIService repaired: sentinel check",
            false,
        ));
    }
    header.filter(is_bearer).ok_or_else(|| {
        let why = "its operator can be reached by a forwarded port with a bearer token only, which this user (a client \
                   certificate) does not have";
        let advice = "Have the APIService repaired (sentinel check), or use a token: kubectl create token SERVICEACCOUNT > token; \
                      kubectl -n NAMESPACE port-forward svc/NAME-api 7980:443";
        unserved(cluster, why, advice, false)
    })
}

/// The header of this user, as kube's own layer adds it to a request.
async fn header(config: &kube::Config) -> Result<Option<HeaderValue>, String> {
    let layer = config.auth_layer();
    let layer = layer.map_err(|error| format!("the credentials cannot be read: {}", causes(&error)))?;
    let Some(layer) = layer else { return Ok(None) };
    let read = tower::service_fn(|request: Request<Full<Bytes>>| async move {
        // Its layers answer with a response only.
        let mut echo = Response::new(Full::<Bytes>::default());
        if let Some(header) = request.headers().get(AUTHORIZATION) {
            echo.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        Ok::<_, BoxError>(echo)
    });
    let echo = layer.layer(read).oneshot(Request::new(Full::default())).await;
    let echo = echo.map_err(|error| format!("there is no token: {error}"))?;
    Ok(echo.headers().get(AUTHORIZATION).cloned())
}

impl Forward {
    /// The server, for messages.
    pub(super) fn server(&self) -> Server {
        let mut name = self.cluster.name.clone();
        name.source = format!(
            "{}, port-forward to {}/{}-operator",
            name.source, self.operator.namespace, self.operator.fullname
        );
        Server::Cluster(name)
    }

    /// Sends a native request to the operator.
    pub(super) async fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response<Body>, ClientError> {
        let first = self.attempt(method, path, headers, body).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return Ok(first);
        }
        // A token of a plugin has expired meanwhile.
        let fresh = authorization(&self.cluster).await?;
        let is_same =
            self.bearer.lock().unwrap_or_else(PoisonError::into_inner).replace(fresh.clone()) == Some(fresh);
        let last = if is_same { first } else { self.attempt(method, path, headers, body).await? };
        if last.status() == StatusCode::UNAUTHORIZED {
            return Err(unauthorized(&self.server()));
        }
        Ok(last)
    }

    async fn attempt(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response<Body>, ClientError> {
        let mut request = kept(method, &format!("https://operator{path}"), headers, body.clone())?;
        let bearer = self.bearer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(bearer) = bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        let host = format!("{}{SERVICE_SUFFIX}.{}.svc", self.operator.fullname, self.operator.namespace);
        if let Ok(host) = HeaderValue::try_from(host) {
            request.headers_mut().insert(http::header::HOST, host);
        }
        let answer = self.pool.request(request.map(Full::new)).await;
        Ok(answer.map_err(|error| self.failed(&error))?.map(boxed))
    }

    fn failed(&self, error: &hyper_util::client::legacy::Error) -> ClientError {
        let mut sources = std::iter::successors(std::error::Error::source(error), |error| error.source());
        if let Some(NotForwarded(why)) = sources.find_map(<dyn std::error::Error>::downcast_ref) {
            let why = format!("no port of its operator is forwarded: {why}");
            let advice = format!(
                "Ask for the verbs get and create on pods/portforward in namespace {}, or have the APIService repaired: \
                 sentinel check",
                self.operator.namespace
            );
            return unserved(&self.cluster, &why, advice, false);
        }
        let (server, cause) = (self.server(), causes(error));
        if error.is_connect() {
            ClientError::Unreachable { server, cause }
        } else {
            ClientError::Disconnected { server, cause }
        }
    }
}

/// Forwards the port of a pod, and opens TLS inside of it.
#[derive(Clone)]
struct Connector {
    pods: Api<Pod>,
    pod: String,
    tls: tokio_rustls::TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("pod", &self.pod).field("name", &self.name).finish_non_exhaustive()
    }
}

/// The API server does not let the caller forward a port.
#[derive(Debug)]
struct NotForwarded(String);

impl std::fmt::Display for NotForwarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotForwarded {}

impl Connector {
    async fn connect(self) -> Result<Link, BoxError> {
        let forwarded = self.pods.portforward(&self.pod, &[PORT]).await;
        let mut forwarder = forwarded.map_err(|error| -> BoxError {
            match error {
                kube::Error::Api(status) if status.code == 403 => NotForwarded(status.message).into(),
                error => error.into(),
            }
        })?;
        let stream = forwarder.take_stream(PORT).ok_or("the API server forwarded no port")?;
        let error = forwarder.take_error(PORT);
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, self.tls.connect(self.name, stream));
        match opened.await {
            Ok(Ok(stream)) => Ok(Link(TokioIo::new(stream))),
            Ok(Err(broken)) => {
                // What the kubelet reports explains more than the end of the stream.
                let reported = match error {
                    Some(error) => tokio::time::timeout(REPORT_TIMEOUT, error).await.ok().flatten(),
                    None => None,
                };
                Err(reported.map_or_else(|| broken.into(), Into::into))
            }
            Err(_) => Err("no TLS connection within 5 s".into()),
        }
    }
}

/// How long TLS may take through the forwarded port.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// How long a report about a forwarded port that broke may take.
const REPORT_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(200);

impl tower_service::Service<Uri> for Connector {
    type Response = Link;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Link, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// A connection.
struct Link(TokioIo<TlsStream<DuplexStream>>);

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Link {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Link {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
