//! The operator process for a Kubernetes cluster: adapters from the configuration, then an [`Operator`] until a signal.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use sentinel_core::lease::{Candidate, Timing};
use sentinel_protocol::ids::Epoch;
use tokio_util::sync::CancellationToken;

use super::election::{Election, LeaseElection};
use super::error::RunError;
use super::listeners::ApiAt;
use super::operator::{Operator, Options, Seams};
use super::stores::Stores;
use crate::clock::Clock;
use crate::cluster::KubeCluster;
use crate::config::{Config, Storage};
use crate::files;
use crate::gateway::{Settings, TokenReviews, TokenRules};
use crate::http::guard::Access;
use crate::lock::Lock;
use crate::metrics::Registry as MetricsRegistry;
use crate::server::{Exposure, Limits, Server};
use crate::signals::Hangup;

/// Largest kubeconfig file that is read, bytes.
const MAX_KUBECONFIG: u64 = 8 << 20;

/// Runs an operator for a Kubernetes cluster until SIGTERM, SIGINT, SIGQUIT, or SIGHUP where that is not ignored.
///
/// # Errors
/// [`RunError`] when it could not start, or when a component exited.
pub async fn run(config: Config) -> Result<(), RunError> {
    let metrics = MetricsRegistry::new();
    // Before any listener: a second process on the same directory must not answer for the first.
    let _lock = data_lock(&config.storage)?;
    let cluster = kubernetes(config.kubeconfig.as_deref()).await?;
    let cluster = Arc::new(cluster.within(config.watch_namespace.clone()));
    let account = &config.agent_service_account;
    let rules = TokenRules {
        audience: config.token_audience.clone(),
        ..TokenRules::new(&account.namespace, &account.name)
    };
    let stores = Stores::open(&config, &metrics).await?;
    let seams = Seams {
        // A client of its own: token reviews and the controller must not wait for each other.
        auth: Arc::new(TokenReviews::new(client(&config).await?, rules, &metrics)),
        cluster,
        history: stores.history.clone(),
        presence: stores.presence.clone(),
        exposure: Exposure::Anywhere,
        clock: Clock::system(),
        metrics: metrics.clone(),
    };
    let election = election(&config).await?;
    let api = api(&config, &metrics).await?;
    let options = Options {
        gateway: config.gateway_listen,
        gateway_tls: config.gateway_tls,
        api,
        base_path: config.base_path,
        metrics: Some(config.metrics_listen),
        drain: config.drain,
        settings: Settings::default(),
        election,
    };
    let stop = signals()?;
    let operator = Operator::start(seams, options).await?;
    tracing::info!(
        gateway = %operator.gateway_addr(), api = %operator.api_addr(), metrics = ?operator.metrics_addr(),
        "the operator is running"
    );
    let end = CancellationToken::new();
    let _end = end.clone().drop_guard();
    stores.keep_current(&end);
    operator.run_until(stop).await
}

/// The listeners of the API: its port, and its socket where one is configured.
async fn api(config: &Config, metrics: &MetricsRegistry) -> Result<ApiAt, RunError> {
    let limits = Limits::of_people();
    let server = Server::bind("api", config.api_listen, Exposure::NO_PEOPLE, limits, metrics).await?;
    let access = config.api_token.clone().map_or(Access::Open, Access::Bearer);
    let mut servers = vec![(server, access)];
    if let Some(path) = &config.api_socket {
        servers.push((Server::bind_socket("api", path, limits, metrics).await?, Access::Socket));
    }
    Ok(ApiAt::Servers(servers))
}

/// Creates the data directory, for the operator's own user only, and locks it.
fn data_lock(storage: &Storage) -> Result<Option<Lock>, RunError> {
    let Storage::Embedded { directory } = storage else { return Ok(None) };
    let mut maker = std::fs::DirBuilder::new();
    maker
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| RunError::DataDirectory { directory: directory.display().to_string(), source })?;
    Ok(Some(Lock::take(directory)?))
}

/// The election by a Lease, unless it is switched off.
async fn election(config: &Config) -> Result<Election, RunError> {
    let Some(lease) = &config.lease else { return Ok(Election::Alone(Epoch::from(1))) };
    let kubernetes = kube_config(config.kubeconfig.as_deref()).await?;
    let namespace = lease.namespace.clone().unwrap_or_else(|| kubernetes.default_namespace.clone());
    let suffix = uuid::Uuid::new_v4();
    let identity = format!("{}_{suffix}", host_name().unwrap_or_else(|| "operator".to_owned()));
    let candidate = Candidate::new(identity, config.advertise.clone(), Timing::DEFAULT);
    let name = lease.name.clone();
    Ok(Election::Lease(Box::new(LeaseElection { kubernetes, namespace, name, candidate })))
}

async fn client(config: &Config) -> Result<kube::Client, RunError> {
    let config = kube_config(config.kubeconfig.as_deref()).await?;
    crate::cluster::client::client(config).map_err(|error| RunError::Kubeconfig(error.into()))
}

async fn kubernetes(kubeconfig: Option<&Path>) -> Result<KubeCluster, RunError> {
    let config = kube_config(kubeconfig).await?;
    KubeCluster::new(config, host_name()).map_err(|error| RunError::Kubeconfig(error.into()))
}

async fn kube_config(kubeconfig: Option<&Path>) -> Result<kube::Config, RunError> {
    use kube::config::{KubeConfigOptions, Kubeconfig};
    let unusable = |error: Box<dyn std::error::Error + Send + Sync>| RunError::Kubeconfig(error);
    match kubeconfig {
        Some(path) => {
            let named = |error| unusable(format!("failed to read {}: {error}", path.display()).into());
            files::check(path, MAX_KUBECONFIG).map_err(named)?;
            let kubeconfig = Kubeconfig::read_from(path).map_err(|error| unusable(error.into()))?;
            let options = KubeConfigOptions::default();
            kube::Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(|error| unusable(error.into()))
        }
        None => kube::Config::infer().await.map_err(|error| unusable(error.into())),
    }
}

/// The host name of this process, which is the name of its pod.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Completes at SIGTERM, SIGINT, SIGQUIT, or SIGHUP where that is not ignored.
fn signals() -> Result<impl Future<Output = ()>, RunError> {
    use tokio::signal::unix::{SignalKind, signal};
    let of = |kind| signal(kind).map_err(RunError::Signals);
    let (mut terminate, mut interrupt) = (of(SignalKind::terminate())?, of(SignalKind::interrupt())?);
    let mut hangup = Hangup::catch().map_err(RunError::Signals)?;
    let mut quit = of(SignalKind::quit())?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = hangup.recv() => "SIGHUP",
            _ = quit.recv() => "SIGQUIT",
        };
        tracing::info!(signal = name, "received a signal; shutting down");
    })
}
