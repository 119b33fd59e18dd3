//! The caches of Tasks and Nodes, and their part of readiness.

use kube::runtime::reflector::{self, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::tasks::{Tasks, until};
use crate::cluster::NodeCache;
use crate::controller::{CacheProgress, Caches};
use crate::health::{Condition, Health};
use crate::resource::Task;

/// The reading ends.
#[derive(Clone)]
pub(super) struct CacheReaders {
    pub(super) tasks: Store<Task>,
    pub(super) nodes: NodeCache,
    /// Notified after each change of the cache of Tasks.
    pub(super) progress: watch::Receiver<CacheProgress>,
}

/// Empty caches: reading ends, and the writing ends for the controller. The operator is ready once both are filled.
pub(super) fn start(tasks: &mut Tasks, health: &Health, stop: CancellationToken) -> (CacheReaders, Caches) {
    let (store, tasks_writer) = reflector::store();
    let (nodes, nodes_writer) = NodeCache::new();
    let (progress_in, progress) = watch::channel(CacheProgress::default());
    let caches = Caches { tasks_writer, tasks: store.clone(), nodes_writer, progress: progress_in };
    let readers = CacheReaders { tasks: store, nodes, progress };
    // Required before anything can probe.
    let tasks_listed = health.require("tasks", "the Tasks have not all been listed yet");
    let nodes_listed = health.require("nodes", "the Nodes have not all been listed yet");
    let ready = become_ready(readers.clone(), tasks_listed, nodes_listed);
    tasks.spawn("the caches", until(stop, ready));
    (readers, caches)
}

async fn become_ready(readers: CacheReaders, tasks_listed: Condition, nodes_listed: Condition) {
    let CacheReaders { nodes, mut progress, .. } = readers;
    // It fails only when the writer is dropped, and with it the controller.
    if progress.wait_for(|progress| progress.listed).await.is_ok() {
        tasks_listed.met();
    }
    nodes.wait_until_complete().await;
    nodes_listed.met();
    std::future::pending::<()>().await;
}
