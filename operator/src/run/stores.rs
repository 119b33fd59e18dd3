//! The stores from the configuration, and the credentials that are read again while they are in use.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::error::RunError;
use crate::clock::Clock;
use crate::config::{Config, Redis, Storage};
use crate::credentials::{Credentials, Reconnect, Reload, ReloadMetrics, Store};
use crate::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use crate::history::mongo::{MongoHistory, MongoOptions};
use crate::history::{History, HistoryError};
use crate::metrics::Registry;
use crate::presence::Presence;
use crate::presence::memory::MemoryPresence;
use crate::presence::redis::{RedisOptions, RedisPresence};

/// How often the files of credentials are read.
const CREDENTIALS_EVERY: Duration = Duration::from_secs(30);

/// The stores of an operator.
pub(super) struct Stores {
    pub(super) history: Arc<dyn History>,
    pub(super) presence: Arc<dyn Presence>,
    reloads: Vec<Reload>,
}

impl Stores {
    /// Opens them. MongoDB and Redis need not answer.
    ///
    /// # Errors
    /// [`RunError`] when the file of the embedded History, a URL or a certificate cannot be used.
    pub(super) async fn open(config: &Config, metrics: &Registry) -> Result<Self, RunError> {
        // Registered for every store, so that an alert on them never lacks its metric.
        let mut reloads = Reloads { metrics: ReloadMetrics::new(metrics), all: Vec::new() };
        let history: Arc<dyn History> = match &config.storage {
            Storage::Embedded { directory } => {
                let options = EmbeddedOptions { retention: config.retention, ..EmbeddedOptions::default() };
                let file = directory.join("history.db");
                Arc::new(EmbeddedHistory::open(file, options).map_err(unusable_history)?)
            }
            Storage::Mongodb { credentials, database } => {
                let options = MongoOptions {
                    retention: config.retention,
                    database: Some(database.clone()),
                    ..MongoOptions::default()
                };
                let history = MongoHistory::connect(credentials, options).await.map_err(unusable_history)?;
                let history = Arc::new(history);
                reloads.add(Store::Mongodb, history.clone(), credentials);
                history
            }
        };
        let presence: Arc<dyn Presence> = match &config.redis {
            None => Arc::new(MemoryPresence::new(Clock::system())),
            Some(Redis { credentials, prefix }) => {
                let options = RedisOptions { prefix: prefix.clone(), ..RedisOptions::default() };
                let presence = RedisPresence::connect(credentials, options)
                    .map_err(|error| RunError::Presence(Box::new(error)))?;
                let presence = Arc::new(presence);
                reloads.add(Store::Redis, presence.clone(), credentials);
                presence
            }
        };
        Ok(Self { history, presence, reloads: reloads.all })
    }

    /// Reads the files of their credentials until `stop`.
    pub(super) fn keep_current(self, stop: &CancellationToken) {
        for reload in self.reloads {
            tokio::spawn(reload.run(CREDENTIALS_EVERY, stop.clone()));
        }
    }
}

struct Reloads {
    metrics: ReloadMetrics,
    all: Vec<Reload>,
}

impl Reloads {
    fn add(&mut self, name: Store, store: Arc<dyn Reconnect>, credentials: &Credentials) {
        self.all.push(Reload::new(name, store, credentials.clone(), self.metrics.clone()));
    }
}

fn unusable_history(error: HistoryError) -> RunError {
    RunError::History(Box::new(error))
}
