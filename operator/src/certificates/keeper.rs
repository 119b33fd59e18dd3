//! Keeps the certificates: reads the Secret, does what the plan asks for, publishes the authorities, and puts the certificate
//! into use. Level, not edge: each round reads everything.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Patch, PostParams};
use kube::{Api, Client};
use sentinel_telemetry::causes;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::issue::IssueError;
use super::plan::{self, Step};
use super::secret::{Contents, Wanted};
use super::webhook;
use crate::clock::Clock;
use crate::cluster::CallError;
use crate::cluster::client::{OPERATOR_MANAGER, patches_as, writes_as};
use crate::config::GeneratedCertificate;
use crate::expiry::{Expiries, Purpose, Seconds};
use crate::metrics::Registry as MetricsRegistry;
use crate::server::tls::{Reloaded, Reloads, ServerCertificate, TlsError};

/// How often everything is read.
pub const EVERY: Duration = Duration::from_secs(30);

/// Pause after a failed round.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Steps of one round; a plan has at most five.
const MAX_STEPS: usize = 10;

/// The key of the `ConfigMap` with the authorities.
pub(super) const BUNDLE_KEY: &str = "ca.crt";

/// A round that failed.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The API server refused, or did not answer.
    #[error(transparent)]
    Cluster(#[from] CallError),
    /// An object is not there, and the operator has no right to make it: only to change the one of that name.
    #[error("{kind} {name} does not exist, and the operator may not make it: helm upgrade brings it back")]
    Absent {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A certificate could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// What the Secret has cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Others write the Secret all the time.
    #[error("failed to keep Secret {secret}: others have changed it {MAX_STEPS} times")]
    Contended {
        /// The Secret.
        secret: String,
    },
}

impl KeepError {
    /// The kind of error, one of a fixed set: metric label.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Cluster(_) => "Cluster",
            Self::Absent { .. } => "Absent",
            Self::Issue(error) => error.category(),
            Self::Tls(error) => error.category(),
            Self::Contended { .. } => "Contended",
        }
    }

    /// Whether the next round may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Issue(error) => error.is_retryable(),
            Self::Cluster(_) | Self::Absent { .. } | Self::Tls(_) | Self::Contended { .. } => true,
        }
    }
}

/// Keeps the certificates.
pub struct Keeper {
    client: Client,
    namespace: String,
    what: GeneratedCertificate,
    clock: Clock,
    reloads: Reloads,
    expiries: Expiries,
    /// What is in use.
    current: Option<Contents>,
    certificate: Option<ServerCertificate>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("secret", &self.what.secret).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Keeps these certificates in this namespace.
    pub fn new(
        client: Client,
        namespace: String,
        what: GeneratedCertificate,
        clock: Clock,
        metrics: &MetricsRegistry,
    ) -> Self {
        let (reloads, expiries) =
            (Reloads::new(metrics, Reloaded::ServerCertificate), Expiries::new(metrics));
        Self { client, namespace, what, clock, reloads, expiries, current: None, certificate: None }
    }

    /// The certificate, once it is made.
    ///
    /// # Errors
    /// [`KeepError`] of the last round, when there is none `within` that time.
    pub async fn first(&mut self, within: Duration) -> Result<ServerCertificate, KeepError> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let failed = match self.round().await {
                Ok(()) => match &self.certificate {
                    Some(certificate) => return Ok(certificate.clone()),
                    None => continue,
                },
                Err(error) => error,
            };
            if tokio::time::Instant::now() + AFTER_FAILURE > deadline {
                return Err(failed);
            }
            self.report(&failed);
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }

    /// Keeps them until `stop`, and reads everything `every` so often.
    pub async fn run(mut self, every: Duration, stop: CancellationToken) {
        let mut pause = every;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = match self.round().await {
                Ok(()) => every,
                Err(error) => {
                    self.report(&error);
                    AFTER_FAILURE.min(every)
                }
            };
        }
    }

    fn report(&self, error: &KeepError) {
        self.reloads.failed(error.category());
        let (secret, category) = (&self.what.secret, error.category());
        tracing::warn!(
            error = causes(error), %secret, category,
            "unable to keep the certificates current; those in use stay"
        );
    }

    fn now(&self) -> Seconds {
        self.clock.now().0 / 1_000
    }

    /// Reads everything once, and does what is to be done.
    async fn round(&mut self) -> Result<(), KeepError> {
        let published = self.published().await?;
        let contents = self.settle(&published).await?;
        // Before it is used: a client must not meet what it cannot trust yet.
        self.publish(&contents.bundle(), &published).await?;
        self.put_to_use(contents)
    }

    /// Does what the plan asks for; what the Secret has then.
    async fn settle(&self, published: &str) -> Result<Contents, KeepError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = &self.what.secret;
        let overlap = plan::overlap(self.what.authority_lifetime);
        for _ in 0..MAX_STEPS {
            let found = secrets.get_opt(name).await.map_err(CallError::of("read", "Secret", name))?;
            let exists = found.is_some();
            let mut secret = found.unwrap_or_default();
            let mut contents = Contents::read(secret.data.get_or_insert_default());
            let mut steps = Vec::new();
            loop {
                let held = contents.held(self.wanted(), published);
                match plan::next(&held, self.now(), overlap) {
                    Step::Rest => break,
                    step if steps.len() < MAX_STEPS => {
                        contents = contents.after(step, self.wanted(), self.now())?;
                        steps.push(step);
                    }
                    _ => break,
                }
            }
            if steps.is_empty() {
                return Ok(contents);
            }
            contents.write(secret.data.get_or_insert_default());
            secret.metadata.name = Some(name.clone());
            let params = writes_as(OPERATOR_MANAGER);
            let written = if exists {
                secrets.replace(name, &params, &secret).await
            } else {
                secrets.create(&PostParams { ..params }, &secret).await
            };
            match written {
                Ok(_) => {
                    tracing::info!(secret = %name, ?steps, "certificates made");
                    return Ok(contents);
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(kube::Error::Api(status)) if !exists && status.code == 403 => {
                    return Err(KeepError::Absent { kind: "Secret", name: name.clone() });
                }
                Err(error) => return Err(CallError::of("write", "Secret", name)(error).into()),
            }
        }
        Err(KeepError::Contended { secret: name.clone() })
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            names: &self.what.names,
            lifetime: self.what.lifetime,
            authority_lifetime: self.what.authority_lifetime,
        }
    }

    /// The bundle that clients read now.
    async fn published(&self) -> Result<String, KeepError> {
        let Some(name) = &self.what.config_map else { return Ok(String::new()) };
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let map = maps.get_opt(name).await.map_err(CallError::of("read", "ConfigMap", name))?;
        Ok(map.and_then(|map| map.data?.remove(BUNDLE_KEY)).unwrap_or_default())
    }

    /// Publishes the bundle, where it is not yet.
    async fn publish(&self, bundle: &str, published: &str) -> Result<(), KeepError> {
        let params = patches_as(OPERATOR_MANAGER);
        if let Some(name) = self.what.config_map.as_deref().filter(|_| bundle != published) {
            let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
            let patch = Patch::Merge(json!({"data": {BUNDLE_KEY: bundle}}));
            match maps.patch(name, &params, &patch).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    return Err(KeepError::Absent { kind: "ConfigMap", name: name.to_owned() });
                }
                patched => patched.map_err(CallError::of("publish authorities in", "ConfigMap", name))?,
            };
        }
        if let Some(name) = &self.what.webhook {
            let published = webhook::publish(&Api::all(self.client.clone()), name, bundle).await;
            published.map_err(CallError::of("publish authorities in", webhook::KIND, name))?;
        }
        if let Some(name) = &self.what.api_service {
            let services: Api<APIService> = Api::all(self.client.clone());
            let Some(found) =
                services.get_opt(name).await.map_err(CallError::of("read", "APIService", name))?
            else {
                return Ok(());
            };
            let current = found.spec.and_then(|spec| spec.ca_bundle).map(|bytes| bytes.0);
            if current.as_deref() != Some(bundle.as_bytes()) {
                let encoded = k8s_openapi::ByteString(bundle.as_bytes().to_vec());
                let patch = Patch::Merge(json!({"spec": {"caBundle": encoded}}));
                services.patch(name, &params, &patch).await.map_err(CallError::of(
                    "publish authorities in",
                    "APIService",
                    name,
                ))?;
            }
        }
        Ok(())
    }

    fn put_to_use(&mut self, contents: Contents) -> Result<(), KeepError> {
        let is_new = self.current.as_ref().map(Contents::server) != Some(contents.server());
        if let Some(server) = contents.server().filter(|_| is_new) {
            let of = format!("Secret {}", self.what.secret);
            let (chain, key) = (server.certificate.as_bytes(), server.key.as_bytes());
            match &self.certificate {
                Some(certificate) => {
                    certificate.replace(&of, chain, key)?;
                    self.reloads.succeeded();
                    tracing::info!(secret = %self.what.secret, "certificate reloaded");
                }
                None => self.certificate = Some(ServerCertificate::from_pem(&of, chain, key)?),
            }
        }
        let [server, authority] = contents.validity();
        self.expiries.set(Purpose::Server, server);
        self.expiries.set(Purpose::ServerAuthority, authority);
        self.current = Some(contents);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That of a missing object once had no counter.
    #[test]
    fn every_failure_of_a_round_has_a_counter_from_the_start() {
        let name = || "ca".to_owned();
        let unreadable = TlsError::Read { path: name().into(), source: std::io::ErrorKind::NotFound.into() };
        let failures = [
            CallError::of("read", "Secret", "ca")(kube::Error::LinesCodecMaxLineLengthExceeded).into(),
            KeepError::Absent { kind: "ConfigMap", name: name() },
            KeepError::Contended { secret: name() },
            unreadable.into(),
        ];
        let results = Reloaded::ServerCertificate.results();
        for failure in failures {
            assert!(results.contains(&failure.category()), "{failure}");
        }
    }
}
