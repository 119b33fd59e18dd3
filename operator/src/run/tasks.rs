//! All components of an operator in one set: when one exits, the process does.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::error::RunError;
use crate::health::Health;

/// How long components get to exit when they are stopped.
const EXIT_WITHIN: Duration = Duration::from_secs(6);

/// How long those that are aborted get.
const ABORT_WITHIN: Duration = Duration::from_secs(2);

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

    fn remaining(&self) -> String {
        let mut names: Vec<&str> = self.names.values().copied().collect();
        names.sort_unstable();
        names.join(", ")
    }

    /// Waits for those that exit when they are stopped, and aborts the rest.
    pub(super) async fn join(&mut self) {
        self.join_within(EXIT_WITHIN, ABORT_WITHIN).await;
    }

    async fn join_within(&mut self, exit: Duration, abort: Duration) {
        let all = async {
            while let Some(exited) = self.set.join_next_with_id().await {
                self.names.remove(&exited.map_or_else(|error| error.id(), |(id, ())| id));
            }
        };
        if tokio::time::timeout(exit, all).await.is_err() {
            tracing::warn!(components = self.remaining(), "components did not exit in time; aborted");
            // One that blocks its thread cannot be aborted, and must not hold up the exit.
            if tokio::time::timeout(abort, self.set.shutdown()).await.is_err() {
                tracing::warn!(components = self.remaining(), "components block their threads; left behind");
                self.set.detach_all();
            }
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

    /// Dev mode did not end: a component that blocks its thread was waited for without a limit.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_component_that_blocks_its_thread_does_not_hold_up_the_exit() {
        let mut tasks = Tasks::new(Health::new());
        let (release, blocked) = std::sync::mpsc::sync_channel::<()>(1);
        tasks.spawn("the blocked one", async move {
            let _ = blocked.recv();
        });
        let little = Duration::from_millis(50);
        tasks.join_within(little, little).await;
        assert_eq!(tasks.remaining(), "the blocked one");
        drop(release);
    }
}
