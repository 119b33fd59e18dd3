//! Reads the files of credentials again and again, and hands changed ones to their store.
//!
//! The files are polled: the kubelet swaps a symbolic link, which a watch on the file itself would miss.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::error::CredentialError;
use super::files::Credentials;
use super::store::Store;
use crate::expiry::{self, Expiries, Purpose};
use crate::metrics::{Counter, Gauge, Registry};

/// Why a store does not accept credentials: the error of its client.
pub type ReconnectError = Box<dyn std::error::Error + Send + Sync>;

/// A store that changes its credentials while it is in use.
pub trait Reconnect: Send + Sync + 'static {
    /// Makes a client with these credentials, proves that the store accepts it, and uses it for every operation that
    /// begins from then on. What began before finishes on the client that it began with.
    ///
    /// # Errors
    /// When the client cannot be made or proven; then the client in use stays.
    fn reconnect(&self, credentials: Arc<Credentials>) -> BoxFuture<'_, Result<(), ReconnectError>>;
}

/// Why changed files are not in use.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    /// The files cannot be used.
    #[error(transparent)]
    Files(#[from] CredentialError),
    /// The store does not accept their content, or does not answer.
    #[error(transparent)]
    Rejected(ReconnectError),
    /// A defect of ours.
    #[error("the attempt panicked: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

impl ReloadError {
    /// The kind of error, one of [`RESULTS`].
    fn category(&self) -> &'static str {
        match self {
            Self::Files(error) => error.category(),
            Self::Rejected(_) => "Rejected",
            Self::Panicked(_) => "Panicked",
        }
    }
}

const RELOADED: &str = "Reloaded";

/// Values of the metric label `result`.
const RESULTS: [&str; 5] = [RELOADED, "Unreadable", "Invalid", "Rejected", "Panicked"];

/// The metrics of the credentials of all stores.
#[derive(Debug, Clone)]
pub struct ReloadMetrics(Registry);

impl ReloadMetrics {
    /// Registers them, with all label values.
    pub fn new(registry: &Registry) -> Self {
        let metrics = Self(registry.clone());
        for store in Store::ALL {
            for result in RESULTS {
                metrics.attempts(store, result);
            }
            metrics.stale(store);
        }
        metrics
    }

    fn attempts(&self, store: Store, result: &'static str) -> Counter {
        let help =
            "Changed credentials of a store that were taken into use, and attempts that failed, by result.";
        let name = "sentinel_store_credentials_reloads_total";
        self.0.counter_with(name, help, &[("store", store.label()), ("result", result)])
    }

    /// These credentials are in use from now on.
    fn used(&self, store: Store, credentials: &Credentials) {
        let (client, authority) = match store {
            Store::Mongodb => (Purpose::MongodbClient, Purpose::MongodbAuthority),
            Store::Redis => (Purpose::RedisClient, Purpose::RedisAuthority),
        };
        let expiries = Expiries::new(&self.0);
        expiries.set(client, credentials.client().and_then(|client| expiry::of_chain(&client.certificate)));
        expiries.set(authority, credentials.ca().and_then(expiry::of_authorities));
    }

    fn stale(&self, store: Store) -> Gauge {
        let help = "1 while the credentials in the files of a store cannot be used and older ones are in use, else 0.";
        self.0.gauge_with("sentinel_store_credentials_stale", help, &[("store", store.label())])
    }
}

/// Keeps the credentials of one store current.
pub struct Reload {
    name: Store,
    store: Arc<dyn Reconnect>,
    used: Arc<Credentials>,
    /// The failure that was logged last; `None` after a success.
    reported: Option<String>,
    metrics: ReloadMetrics,
}

impl Reload {
    /// For a store that uses these credentials.
    pub fn new(name: Store, store: Arc<dyn Reconnect>, used: Credentials, metrics: ReloadMetrics) -> Self {
        metrics.used(name, &used);
        Self { name, store, used: Arc::new(used), reported: None, metrics }
    }

    /// Reads the files every `every` until `stop`.
    pub async fn run(mut self, every: Duration, stop: CancellationToken) {
        let polls = async {
            loop {
                tokio::time::sleep(every).await;
                self.poll().await;
            }
        };
        stop.run_until_cancelled(polls).await;
    }

    /// Reads the files once; a failure is logged when it is another one than the last, not at every attempt.
    async fn poll(&mut self) {
        let store = self.name;
        match self.reload().await {
            Ok(changed) => {
                self.reported = None;
                self.metrics.stale(store).set(0);
                if changed {
                    self.metrics.attempts(store, RELOADED).add(1);
                    tracing::info!(store = store.label(), "credentials reloaded");
                }
            }
            Err(error) => {
                self.metrics.attempts(store, error.category()).add(1);
                self.metrics.stale(store).set(1);
                let text = error.to_string();
                if self.reported.as_ref() != Some(&text) {
                    tracing::warn!(
                        store = store.label(),
                        category = error.category(),
                        error = text,
                        "unable to use the changed credentials; the previous ones stay in use"
                    );
                }
                self.reported = Some(text);
            }
        }
    }

    /// Whether other credentials are in use now.
    async fn reload(&mut self) -> Result<bool, ReloadError> {
        let Some(files) = self.used.files().cloned() else { return Ok(false) };
        let next = Arc::new(tokio::task::spawn_blocking(move || files.read()).await??);
        if next == self.used {
            return Ok(false);
        }
        let (store, credentials) = (self.store.clone(), next.clone());
        // A task of its own, so that a panic of a driver ends this attempt alone.
        let attempt = tokio::spawn(async move { store.reconnect(credentials).await });
        AbortOnDropHandle::new(attempt).await?.map_err(ReloadError::Rejected)?;
        self.metrics.used(self.name, &next);
        self.used = next;
        Ok(true)
    }
}
