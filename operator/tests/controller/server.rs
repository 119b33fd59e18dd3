//! A cluster that stores a status and a finalizer by two writes, as an API server does.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::stream::BoxStream;
use kube::runtime::watcher::Event;
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_core::reconcile::{Finalizer, Notice};
use sentinel_operator::cluster::{
    Answer, Change, Cluster, ClusterError, EmbeddedCluster, Publication, SecretKeys, TaskKeeper, TaskStore,
};
use sentinel_operator::resource::slice::Frozen;
use sentinel_operator::resource::{Task, TaskStatus};
use sentinel_protocol::ids::{NodeName, RunNumber, TaskRef};
use sentinel_protocol::requester::Requester;
use tokio::sync::Semaphore;

/// An embedded cluster in whose place an API server could be.
pub(crate) struct Server {
    cluster: EmbeddedCluster,
    /// Finalizers that may be added.
    passes: Semaphore,
    /// How it answers who reads a Secret.
    pub(crate) secrets: Secrets,
}

/// What a Secret holds, or how a read of it fails.
type Answers = Box<dyn Fn(&str, &str) -> Result<Option<SecretKeys>, ClusterError> + Send>;

/// The Secrets of a cluster, and who has read them.
pub(crate) struct Secrets {
    answers: Mutex<Answers>,
    reads: AtomicUsize,
    /// Whether they are the operator's own.
    pub(crate) are_own: AtomicBool,
}

impl Secrets {
    /// Changes how it answers.
    pub(crate) fn answer(
        &self,
        answers: impl Fn(&str, &str) -> Result<Option<SecretKeys>, ClusterError> + Send + 'static,
    ) {
        *self.answers.lock().unwrap() = Box::new(answers);
    }

    /// How often a Secret was read.
    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    fn read(&self, namespace: &str, name: &str) -> Result<Option<SecretKeys>, ClusterError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.answers.lock().unwrap()(namespace, name)
    }
}

impl Server {
    pub(crate) fn new(cluster: EmbeddedCluster) -> Self {
        let answers: Answers = Box::new(|_, _| Ok(None));
        let secrets = Secrets {
            answers: Mutex::new(answers),
            reads: AtomicUsize::new(0),
            are_own: AtomicBool::new(false),
        };
        Self { cluster, passes: Semaphore::new(0), secrets }
    }

    /// Lets one finalizer be added.
    pub(crate) fn pass_finalizer(&self) {
        self.passes.add_permits(1);
    }
}

impl TaskStore for Server {
    fn get(&self, task: TaskRef) -> Answer<'_, Option<Task>> {
        self.cluster.get(task)
    }

    fn list(&self, namespace: Option<String>) -> Answer<'_, Vec<Task>> {
        self.cluster.list(namespace)
    }

    fn create(&self, task: Task) -> Answer<'_, Task> {
        self.cluster.create(task)
    }

    fn apply(&self, task: Task) -> Answer<'_, Task> {
        self.cluster.apply(task)
    }

    fn dry_run(&self, change: Change, task: Task) -> Answer<'_, Task> {
        self.cluster.dry_run(change, task)
    }

    fn annotate(&self, task: TaskRef, key: &'static str, value: Option<String>) -> Answer<'_, Task> {
        self.cluster.annotate(task, key, value)
    }

    fn asked_by(&self, who: Option<Requester>) -> Arc<dyn TaskStore> {
        self.cluster.asked_by(who)
    }

    fn delete(&self, task: TaskRef) -> Answer<'_, ()> {
        self.cluster.delete(task)
    }
}

impl TaskKeeper for Server {
    fn write_status<'a>(&'a self, seen: &'a Task, status: TaskStatus) -> Answer<'a, Task> {
        self.cluster.write_status(seen, status)
    }

    fn set_finalizer<'a>(&'a self, seen: &'a Task, finalizer: Finalizer) -> Answer<'a, Task> {
        Box::pin(async move {
            if finalizer == Finalizer::Present {
                self.passes.acquire().await.unwrap().forget();
            }
            self.cluster.set_finalizer(seen, finalizer).await
        })
    }

    fn persist_targets<'a>(
        &'a self,
        task: &'a Task,
        run: RunNumber,
        targets: &'a [NodeName],
    ) -> Answer<'a, Frozen> {
        self.cluster.persist_targets(task, run, targets)
    }

    fn load_targets<'a>(&'a self, task: &'a Task) -> Answer<'a, Vec<NodeName>> {
        self.cluster.load_targets(task)
    }

    fn delete_old_targets<'a>(&'a self, task: &'a Task) -> Answer<'a, ()> {
        self.cluster.delete_old_targets(task)
    }

    fn publish<'a>(&'a self, task: &'a Task, notice: &'a Notice) -> Answer<'a, Publication> {
        self.cluster.publish(task, notice)
    }
}

impl Cluster for Server {
    fn watch_tasks(&self) -> BoxStream<'static, Event<Task>> {
        self.cluster.watch_tasks()
    }

    fn watch_nodes(&self) -> BoxStream<'static, Event<(NodeName, NodeFacts)>> {
        self.cluster.watch_nodes()
    }

    fn is_own_secret(&self, _: &str, _: &str) -> bool {
        self.secrets.are_own.load(Ordering::Relaxed)
    }

    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> Answer<'a, Option<SecretKeys>> {
        Box::pin(std::future::ready(self.secrets.read(namespace, name)))
    }
}
