//! All components of an operator in one set: when one exits, the process does.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::error::RunError;
use crate::health::Health;

/// How long components get to exit when they are stopped.
const EXIT_WITHIN: Duration = Duration::from_secs(6);

/// All components, by name. None of them may exit while the operator runs, and each of them beats.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    set: JoinSet<()>,
    names: HashMap<tokio::task::Id, &'static str>,
    health: Health,
}

impl Tasks {
    /// No components yet; liveness is reported to `health`.
    pub(super) fn new(health: Health) -> Self {
        Self { health, ..Self::default() }
    }

    /// Starts a component, and watches that it is polled.
    pub(super) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let health = self.health.clone();
        let handle = self.set.spawn(async move { health.watched(name, task).await });
        self.names.insert(handle.id(), name);
    }

    /// Waits until one exits.
    pub(super) async fn first_exit(&mut self) -> RunError {
        match self.set.join_next_with_id().await {
            None => std::future::pending().await,
            Some(Ok((id, ()))) => RunError::Exited { part: self.name(id) },
            Some(Err(error)) => {
                RunError::Panicked { part: self.name(error.id()), message: error.to_string() }
            }
        }
    }

    fn name(&self, id: tokio::task::Id) -> &'static str {
        self.names.get(&id).copied().unwrap_or("a component")
    }

    /// Waits for those that exit when they are stopped, and aborts the rest.
    pub(super) async fn join(&mut self) {
        let all = async { while self.set.join_next().await.is_some() {} };
        if tokio::time::timeout(EXIT_WITHIN, all).await.is_err() {
            tracing::warn!(components = self.set.len(), "components did not exit in time; aborted");
            self.set.shutdown().await;
        }
    }
}

/// Completes with the work, or when stopped.
pub(super) async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_component_beats_and_an_exit_or_a_panic_is_reported_by_name() {
        let health = Health::new();
        let mut tasks = Tasks::new(health.clone());
        tasks.spawn("the archiver", std::future::pending());
        tasks.spawn("the gateway", tokio::time::sleep(Duration::from_mins(10)));
        tasks.spawn("the sweep", async {
            tokio::time::sleep(Duration::from_mins(20)).await;
            panic!("a bug")
        });
        tokio::time::sleep(Duration::from_mins(5)).await;
        assert_eq!(health.loops(), ["the archiver", "the gateway", "the sweep"]);
        assert!(health.alive().ok, "{:?}", health.alive());
        assert_eq!(tasks.first_exit().await.to_string(), "the gateway exited");
        let RunError::Panicked { part: "the sweep", .. } = tasks.first_exit().await else { panic!() };
        assert_eq!(health.loops(), ["the archiver"]);
    }
}
