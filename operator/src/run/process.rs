//! The operator process for a Kubernetes cluster: adapters from the configuration, then an [`Operator`] until a signal.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use sentinel_core::lease::{Candidate, Timing};
use sentinel_protocol::ids::Epoch;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::admission::{self, Keyed};
use super::election::{Election, LeaseElection};
use super::error::RunError;
use super::listeners::ApiAt;
use super::operator::{Operator, Options, Seams};
use super::people::{self, PeopleParts};
use super::stores::Stores;
use super::traces;
use super::transport;
use crate::audit::Audit;
use crate::clock::Clock;
use crate::cluster::{CallersOfKube, KubeCluster};
use crate::config::{Config, Storage};
use crate::files;
use crate::gateway::{Settings, TokenReviews, TokenRules};
use crate::lock::Lock;
use crate::metrics::Registry as MetricsRegistry;
use crate::server::tls::{Clients, Tls};
use crate::server::{Exposure, Place};
use crate::signals::Hangup;

/// How long the last audit records may take at the end.
const AUDIT_WITHIN: Duration = Duration::from_secs(5);

/// Largest kubeconfig file that is read, bytes.
const MAX_KUBECONFIG: u64 = 8 << 20;

/// Runs an operator for a Kubernetes cluster until SIGTERM, SIGINT, SIGQUIT, or SIGHUP where that is not ignored.
///
/// # Errors
/// [`RunError`] when it could not start, or when a component exited.
pub async fn run(config: Config) -> Result<(), RunError> {
    let metrics = MetricsRegistry::new();
    transport::register(&metrics);
    // Before any listener: a second process on the same directory must not answer for the first.
    let _lock = data_lock(&config.storage)?;
    let kubernetes = kube_config(config.kubeconfig.as_deref()).await?;
    let cluster = KubeCluster::new(kubernetes.clone(), host_name(), &metrics).map_err(unusable_config)?;
    let namespace = own_namespace(&config, &kubernetes);
    let keys = admission::keys(config.admission.as_ref(), client(&kubernetes, &metrics)?, &namespace);
    let keyed = keys.await?;
    let cluster =
        cluster.within(config.watch_namespace.clone()).with_own_secrets(&namespace, &config.own_secrets());
    let cluster = Arc::new(cluster.stamping(keyed.stamps.clone()));
    let stores = Stores::open(&config, &metrics).await?;
    let (traces, sending) = traces::start(config.trace_otlp_endpoint.as_deref(), host_name(), &metrics)?;
    let audit = audit(&config, &metrics)?;
    let by_caller = CallersOfKube::new(&kubernetes, config.watch_namespace.clone(), &metrics);
    let seams = Seams {
        // A client of its own: token reviews and the controller must not wait for each other.
        auth: Arc::new(TokenReviews::new(client(&kubernetes, &metrics)?, token_rules(&config), &metrics)),
        cluster,
        history: stores.history.clone(),
        presence: stores.presence.clone(),
        by_caller: Some(Arc::new(by_caller)),
        owner: None,
        exposure: Exposure::Anywhere,
        clock: Clock::system(),
        metrics: metrics.clone(),
        traces,
        audit: audit.clone(),
        ceilings: config.ceilings.clone(),
    };
    let mut options = options(&config, &kubernetes, &keyed, &metrics).await?;
    options.background.extend(keyed.keep);
    let stop = signals()?;
    let operator = Operator::start(seams, options).await?;
    tracing::info!(
        gateway = %operator.gateway_addr(), api = %operator.api_addr(), metrics = ?operator.metrics_addr(),
        "the operator is running"
    );
    let end = CancellationToken::new();
    let _end = end.clone().drop_guard();
    stores.keep_current(&end);
    let result = operator.run_until(stop).await;
    sending.stop().await;
    // A disk that hangs must not hold up the exit.
    let closed = tokio::task::spawn_blocking(move || audit.close());
    if tokio::time::timeout(AUDIT_WITHIN, closed).await.is_err() {
        tracing::error!("audit records could not be written in time; the last ones are missing");
    }
    result
}

/// The election, the listeners, and what keeps their certificates current.
async fn options(
    config: &Config,
    kubernetes: &kube::Config,
    keyed: &Keyed,
    metrics: &MetricsRegistry,
) -> Result<Options, RunError> {
    let (places_in, places) = watch::channel(Place::Unknown);
    let election = election(config, kubernetes, (places_in, metrics));
    let namespace = own_namespace(config, kubernetes);
    let kept = transport::certificate(&config.certificate, (kubernetes, &namespace), metrics).await?;
    let (certificate, mut background): (_, Vec<_>) =
        kept.map_or_else(|| (None, Vec::new()), |(certificate, keep)| (Some(certificate), keep));
    let parts = PeopleParts {
        config,
        client: client(kubernetes, metrics)?,
        certificate: certificate.as_ref(),
        places,
        metrics,
    };
    let people = people::bind(parts).await?;
    background.extend(people.background);
    let webhook = admission::listen(config.admission.as_ref(), keyed, certificate.as_ref(), metrics);
    background.extend(webhook.await?);
    let gateway_tls = certificate
        .map(|certificate| Tls::new(certificate, Clients::Unasked))
        .transpose()
        .map_err(|error| RunError::Certificate(Box::new(error)))?;
    Ok(Options {
        gateway: config.gateway_listen,
        gateway_tls,
        api: ApiAt::Servers(people.api),
        base_path: config.base_path.clone(),
        metrics: Some(people.metrics),
        background,
        drain: config.drain,
        settings: Settings::default(),
        election,
    })
}

/// Where audit records go, for this process.
fn audit(config: &Config, metrics: &MetricsRegistry) -> Result<Audit, RunError> {
    let host = host_name().unwrap_or_else(|| "-".to_owned());
    Audit::start(config.audit.clone(), &host, &Clock::system(), metrics)
        .map_err(|error| RunError::Audit(Box::new(error)))
}

/// Whose tokens are agents'.
fn token_rules(config: &Config) -> TokenRules {
    let account = &config.agent_service_account;
    TokenRules {
        audience: config.token_audience.clone(),
        ..TokenRules::new(&account.namespace, &account.name)
    }
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

/// The election by a Lease, unless it is switched off. It publishes where connections are served.
fn election(
    config: &Config,
    kubernetes: &kube::Config,
    (places, metrics): (watch::Sender<Place>, &MetricsRegistry),
) -> Election {
    let Some(lease) = &config.lease else {
        places.send_replace(Place::Here);
        return Election::Alone(Epoch::from(1));
    };
    let namespace = own_namespace(config, kubernetes);
    let suffix = uuid::Uuid::new_v4();
    let identity = format!("{}_{suffix}", host_name().unwrap_or_else(|| "operator".to_owned()));
    let candidate = Candidate::new(identity, config.advertise.clone(), Timing::DEFAULT);
    let (kubernetes, name) = (kubernetes.clone(), lease.name.clone());
    let (metrics, places) = (metrics.clone(), Some(places));
    Election::Lease(Box::new(LeaseElection { kubernetes, namespace, name, candidate, metrics, places }))
}

/// The operator's own namespace: of its Lease, and of the Secret with its certificate.
fn own_namespace(config: &Config, kubernetes: &kube::Config) -> String {
    let configured = config.lease.as_ref().and_then(|lease| lease.namespace.clone());
    configured.unwrap_or_else(|| kubernetes.default_namespace.clone())
}

fn client(kubernetes: &kube::Config, metrics: &MetricsRegistry) -> Result<kube::Client, RunError> {
    crate::cluster::client::client(kubernetes.clone(), metrics).map_err(unusable_config)
}

fn unusable_config(error: kube::Error) -> RunError {
    RunError::Kubeconfig(error.into())
}

async fn kube_config(kubeconfig: Option<&Path>) -> Result<kube::Config, RunError> {
    let unusable = |error: Box<dyn std::error::Error + Send + Sync>| RunError::Kubeconfig(error);
    match kubeconfig {
        Some(path) => {
            let named = |error| unusable(format!("failed to read {}: {error}", path.display()).into());
            files::check(path, MAX_KUBECONFIG).map_err(named)?;
            let kubeconfig = Kubeconfig::read_from(path).map_err(|error| unusable(error.into()))?;
            let authority = authority_file(&kubeconfig);
            let options = KubeConfigOptions::default();
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
            let mut config = config.map_err(|error| unusable(error.into()))?;
            // Read again while it is in use, as kube does with that of a service account.
            config.root_cert_file = authority;
            Ok(config)
        }
        None => kube::Config::infer().await.map_err(|error| unusable(error.into())),
    }
}

/// The file with the authority of the API server that the current context names.
fn authority_file(kubeconfig: &Kubeconfig) -> Option<PathBuf> {
    let named = kubeconfig.current_context.as_deref()?;
    let context = kubeconfig.contexts.iter().find(|context| context.name == named)?.context.as_ref()?;
    let cluster = kubeconfig.clusters.iter().find(|cluster| cluster.name == context.cluster)?;
    let cluster = cluster.cluster.as_ref()?;
    // Data counts before a file, in kubectl too.
    if cluster.certificate_authority_data.is_some() {
        return None;
    }
    cluster.certificate_authority.as_ref().map(PathBuf::from)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_in_a_file_of_a_kubeconfig_is_read_again_and_not_that_in_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let of = |cluster: &str| {
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: b\ncontexts: [{{name: a, context: {{cluster: a, user: u}}}}, \
                 {{name: b, context: {{cluster: b, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\nclusters: \
                 [{{name: a, cluster: {{server: 'https://a', certificate-authority: a.crt}}}}, {{name: b, cluster: {cluster}}}]\n"
            );
            std::fs::write(&path, text).unwrap();
            authority_file(&Kubeconfig::read_from(&path).unwrap())
        };
        assert_eq!(
            of("{server: 'https://b', certificate-authority: b.crt}"),
            Some(folder.path().join("b.crt"))
        );
        assert_eq!(
            of("{server: 'https://b', certificate-authority: b.crt, certificate-authority-data: eA==}"),
            None
        );
        assert_eq!(of("{server: 'https://b'}"), None);
    }
}
