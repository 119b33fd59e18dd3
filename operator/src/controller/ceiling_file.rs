//! The ceilings of now: from a file, read again and again.
//!
//! The file is polled: the kubelet swaps a symbolic link, which a watch on the file itself would miss. A file that cannot be used
//! closes: no Run begins until it can, since the limits that its author has written may be narrower than those of before.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sentinel_core::reconcile::ceiling::Ceilings;
use tokio_util::sync::CancellationToken;

use super::metrics::unreadable_ceilings;
use super::run_store::RunStore;
use crate::metrics::{Gauge, Registry};
use crate::resource::ceilings::{CeilingsError, read};

/// How often the file is read.
const READ_EVERY: Duration = Duration::from_secs(2);

/// The ceilings of now. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct CurrentCeilings {
    file: Option<PathBuf>,
    current: Arc<RwLock<Arc<Ceilings>>>,
}

impl CurrentCeilings {
    /// Those of a file, which is read at once.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn of_file(file: PathBuf) -> Result<Self, CeilingsError> {
        let rules = read(&file)?;
        let current = Arc::new(RwLock::new(Arc::new(Ceilings::Set(rules))));
        Ok(Self { file: Some(file), current })
    }

    /// The ceilings of now.
    pub fn get(&self) -> Arc<Ceilings> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces them; whether they are others.
    pub fn set(&self, ceilings: Ceilings) -> bool {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let changed = **current != ceilings;
        if changed {
            *current = Arc::new(ceilings);
        }
        changed
    }

    /// Reads the file again and again until `stop`; Tasks that wait are reconciled when it has changed.
    pub async fn keep_current(self, runs: RunStore, metrics: Registry, stop: CancellationToken) {
        let unreadable = unreadable_ceilings(&metrics);
        let Some(file) = self.file.clone() else { return stop.cancelled().await };
        let polls = async {
            loop {
                tokio::time::sleep(READ_EVERY).await;
                self.poll(&file, &runs, &unreadable).await;
            }
        };
        stop.run_until_cancelled(polls).await;
    }

    async fn poll(&self, file: &Path, runs: &RunStore, unreadable: &Gauge) {
        let path = file.to_owned();
        // With lines of the file in the log, and without them in the conditions of Tasks.
        let (ceilings, why) = match tokio::task::spawn_blocking(move || read(&path)).await {
            Ok(Ok(rules)) => (Ceilings::Set(rules), None),
            Ok(Err(error)) => (Ceilings::Unreadable(error.without_excerpt()), Some(error.to_string())),
            Err(error) => {
                let why = format!("unable to read the ceilings: {error}");
                (Ceilings::Unreadable(why.clone()), Some(why))
            }
        };
        unreadable.set(i64::from(why.is_some()));
        if !self.set(ceilings) {
            return;
        }
        if let Some(error) = why {
            tracing::error!(error, file = %file.display(), "no Run begins until the ceilings can be read");
        } else {
            tracing::info!(file = %file.display(), "the ceilings were read again");
        }
        runs.ceilings_changed();
    }
}
