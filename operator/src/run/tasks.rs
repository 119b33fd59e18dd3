//! All tasks of an operator in one set: the first that ends by itself ends the process.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::error::RunError;

/// How long tasks get to end when they are told to.
const TASKS_WITHIN: Duration = Duration::from_secs(6);

/// All tasks, by name. None of them may end by itself.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    set: JoinSet<()>,
    names: HashMap<tokio::task::Id, &'static str>,
}

impl Tasks {
    pub(super) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Waits until one ends, and says which.
    pub(super) async fn first_end(&mut self) -> RunError {
        match self.set.join_next_with_id().await {
            None => std::future::pending().await,
            Some(Ok((id, ()))) => RunError::Ended { part: self.name(id) },
            Some(Err(error)) => RunError::Broke { part: self.name(error.id()), message: error.to_string() },
        }
    }

    fn name(&self, id: tokio::task::Id) -> &'static str {
        self.names.get(&id).copied().unwrap_or("a task")
    }

    /// Waits for those that end when they are told to, and cuts the rest.
    pub(super) async fn end(&mut self) {
        let all = async { while self.set.join_next().await.is_some() {} };
        if tokio::time::timeout(TASKS_WITHIN, all).await.is_err() {
            self.set.shutdown().await;
        }
    }
}

/// Done when the work is, or when told to stop.
pub(super) async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}
