//! Tasks and Nodes in a Kubernetes API server. What is written, and how conflicts are found; calls are in `call`.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::AuthInfo;
use kube::runtime::watcher::Event;
use kube::{Api, Client, Config, Resource, ResourceExt};
use secrecy::SecretString;
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_core::reconcile::{Finalizer, Notice};
use sentinel_protocol::ids::{Namespace, NodeName, RunNumber, TaskRef};
use sentinel_protocol::requester::Requester;
use sentinel_protocol::time::UnixMillis;
use serde_json::json;

use super::call::{Repeat, call};
use super::client::{API_MANAGER, OPERATOR_MANAGER, client, patches_as, writes_as};
use super::error::ClusterError;
use super::events::Events;
use super::seams::{Answer, Change, Cluster, Publication, SecretKeys, StoresByCaller, TaskKeeper, TaskStore};
use super::secret;
use super::targets::{self, DIGEST_LABEL, TASK_UID_LABEL, display};
use super::watch::{self, Content, WatchHealth};
use crate::metrics::Registry;
use crate::resource::marks::{
    FINALIZER, REQUESTED_BY, REQUESTED_BY_SIGNATURE, UNREADABLE, UNREADABLE_STATUS,
};
use crate::resource::slice::Frozen;
use crate::resource::stamp::Stamps;
use crate::resource::{TargetSlice, Task, TaskSpec, TaskStatus};

/// Attempts to annotate a Task that others change at the same time.
const ANNOTATE_ATTEMPTS: usize = 10;

/// Target slices written concurrently.
const SLICES_AT_ONCE: usize = 4;

/// A Kubernetes cluster. Clones share it.
#[derive(Clone)]
pub struct KubeCluster {
    client: Client,
    namespace: Option<Namespace>,
    /// Namespaces and names.
    own_secrets: Arc<[(String, String)]>,
    events: Events,
    stamps: Stamps,
    asked_by: Option<Requester>,
    tasks_health: Arc<WatchHealth>,
    nodes_health: Arc<WatchHealth>,
}

impl KubeCluster {
    /// A cluster behind this configuration; nothing is sent yet. `instance` names this process in cluster events, for
    /// example its pod.
    ///
    /// # Errors
    /// When no client can be made of the configuration.
    pub fn new(config: Config, instance: Option<String>, metrics: &Registry) -> kube::Result<Self> {
        Ok(Self::with_client(client(config, metrics)?, instance))
    }

    /// The same over an existing client, which should not retry.
    pub fn with_client(client: Client, instance: Option<String>) -> Self {
        Self {
            events: Events::new(client.clone(), instance),
            stamps: Stamps::default(),
            asked_by: None,
            client,
            namespace: None,
            own_secrets: Arc::default(),
            tasks_health: Arc::new(WatchHealth::new("tasks")),
            nodes_health: Arc::new(WatchHealth::new("nodes")),
        }
    }

    /// Restricts it to the Tasks of one namespace: for an operator with rights in that namespace only.
    #[must_use]
    pub fn within(mut self, namespace: Option<Namespace>) -> Self {
        self.namespace = namespace;
        self
    }

    /// Names the Secrets of the operator itself, in this namespace, which no command gets.
    #[must_use]
    pub fn with_own_secrets(mut self, namespace: &str, names: &[&str]) -> Self {
        self.own_secrets = names.iter().map(|&name| (namespace.to_owned(), name.to_owned())).collect();
        self
    }

    /// Stamps what it writes of people's requests with who asked, and reads by these who asked for a Task.
    #[must_use]
    pub fn stamping(mut self, stamps: Stamps) -> Self {
        self.stamps = stamps;
        self
    }

    /// Sets an annotation as the operator, for whom the webhook stamps nothing: with the stamp of who asked for it, for the
    /// Task as it is read.
    async fn annotate_stamped(
        &self,
        task: &TaskRef,
        doing: &str,
        key: &str,
        value: Option<&String>,
    ) -> Result<Task, ClusterError> {
        let api = self.tasks(&task.namespace);
        for _ in 0..ANNOTATE_ATTEMPTS {
            let seen = call(doing, Repeat::Idempotent, || api.get(&task.name)).await?;
            let mut changed = seen.clone();
            let annotations = changed.metadata.annotations.get_or_insert_default();
            match value {
                Some(value) => annotations.insert(key.to_owned(), value.clone()),
                None => annotations.remove(key),
            };
            let at = UnixMillis(Timestamp::now().as_millisecond());
            self.stamps.stamp(Some(&seen), &mut changed, self.asked_by.as_ref(), at);
            let of = |key: &str| changed.metadata.annotations.as_ref().and_then(|all| all.get(key));
            let annotations: BTreeMap<&str, Option<&String>> =
                [key, REQUESTED_BY, REQUESTED_BY_SIGNATURE].into_iter().map(|key| (key, of(key))).collect();
            let body = json!({"metadata": {
                "uid": seen.metadata.uid,
                "resourceVersion": seen.metadata.resource_version,
                "annotations": annotations,
            }});
            let params = patches_as(API_MANAGER);
            let patched = call(doing, Repeat::Idempotent, || async {
                api.patch(&task.name, &params, &Patch::Merge(&body)).await
            });
            match patched.await {
                Err(ClusterError::Conflict { .. }) => {}
                patched => return patched,
            }
        }
        Err(ClusterError::Conflict { doing: doing.to_owned() })
    }

    /// The client, for other kinds of object (`TokenReview`).
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    fn tasks(&self, namespace: &str) -> Api<Task> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Tasks as untyped objects, of one namespace or of all.
    fn all_tasks(&self, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = watch::resource::<Task>();
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    fn slices(&self, namespace: &str) -> Api<TargetSlice> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn tasks_of(&self, task: &Task) -> Api<Task> {
        self.tasks(&task.namespace().unwrap_or_default())
    }

    /// Refuses other namespaces than the one it is restricted to.
    fn within_ours(&self, namespace: &str, doing: &str) -> Result<(), ClusterError> {
        match &self.namespace {
            Some(ours) if ours.as_str() != namespace => Err(ClusterError::Refused {
                doing: doing.to_owned(),
                code: 403,
                message: format!("this operator is for namespace {ours} alone (--watch-namespace)"),
            }),
            _ => Ok(()),
        }
    }

    async fn create_slice(&self, slice: TargetSlice) -> Result<(), ClusterError> {
        let name = slice.name_any();
        let api = self.slices(&slice.namespace().unwrap_or_default());
        let doing = format!("create TargetSlice {name}");
        // Its name is a digest of its content.
        let made = call(&doing, Repeat::Idempotent, || async {
            api.create(&writes_as(OPERATOR_MANAGER), &slice).await
        });
        match made.await {
            Ok(_) => Ok(()),
            Err(ClusterError::Exists { .. }) => {
                let doing = format!("read TargetSlice {name}");
                let existing = call(&doing, Repeat::Idempotent, || api.get(&name)).await?;
                if existing.spec == slice.spec {
                    return Ok(());
                }
                let wrong = format!("TargetSlice {name} exists already, with other nodes");
                Err(ClusterError::TargetsDamaged { task: "a Task".to_owned(), wrong })
            }
            Err(error) => Err(error),
        }
    }
}

/// A Kubernetes cluster for callers with tokens of their own.
#[derive(Clone)]
pub struct CallersOfKube {
    config: Config,
    namespace: Option<Namespace>,
    metrics: Registry,
}

impl CallersOfKube {
    /// The cluster behind this configuration, whose credentials are left out.
    pub fn new(config: &Config, namespace: Option<Namespace>, metrics: &Registry) -> Self {
        let mut config = config.clone();
        config.auth_info = AuthInfo::default();
        Self { config, namespace, metrics: metrics.clone() }
    }
}

impl StoresByCaller for CallersOfKube {
    fn with_token(&self, token: &str) -> Result<Arc<dyn TaskStore>, ClusterError> {
        let mut config = self.config.clone();
        config.auth_info.token = Some(SecretString::from(token.to_owned()));
        let cluster =
            KubeCluster::new(config, None, &self.metrics).map_err(|error| ClusterError::Refused {
                doing: "use the caller's token".to_owned(),
                code: 401,
                message: error.to_string(),
            })?;
        Ok(Arc::new(cluster.within(self.namespace.clone())))
    }
}

/// Whether the API server stores a change; it checks it in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DryRun {
    No,
    All,
}

impl KubeCluster {
    async fn post(&self, task: Task, dry_run: DryRun) -> Result<Task, ClusterError> {
        let api = self.tasks_of(&task);
        let doing = format!("create Task {}", display(&task));
        let params = PostParams { dry_run: dry_run == DryRun::All, ..writes_as(API_MANAGER) };
        self.within_ours(&task.namespace().unwrap_or_default(), &doing)?;
        call(&doing, Repeat::Unprocessed, || async { api.create(&params, &task).await }).await
    }

    async fn patch(&self, task: Task, dry_run: DryRun) -> Result<Task, ClusterError> {
        let api = self.tasks_of(&task);
        let doing = format!("apply Task {}", display(&task));
        self.within_ours(&task.namespace().unwrap_or_default(), &doing)?;
        let body = json!({
            "apiVersion": Task::api_version(&()),
            "kind": Task::kind(&()),
            "metadata": {
                "name": task.metadata.name,
                "namespace": task.metadata.namespace,
                "labels": task.metadata.labels,
                "annotations": task.metadata.annotations,
            },
            "spec": task.spec,
        });
        let params =
            PatchParams { dry_run: dry_run == DryRun::All, ..PatchParams::apply(API_MANAGER).force() };
        let name = task.name_any();
        call(&doing, Repeat::Idempotent, || async { api.patch(&name, &params, &Patch::Apply(&body)).await })
            .await
    }
}

impl TaskStore for KubeCluster {
    fn get(&self, task: TaskRef) -> Answer<'_, Option<Task>> {
        Box::pin(async move {
            let doing = format!("read Task {task}");
            self.within_ours(&task.namespace, &doing)?;
            let api = self.tasks(&task.namespace);
            call(&doing, Repeat::Idempotent, || api.get_opt(&task.name)).await
        })
    }

    fn list(&self, namespace: Option<String>) -> Answer<'_, Vec<Task>> {
        Box::pin(async move {
            if let Some(namespace) = &namespace {
                self.within_ours(namespace, "list Tasks")?;
            }
            let api = self.all_tasks(namespace.as_deref().or(self.namespace.as_deref()));
            let params = ListParams::default();
            let listed = call("list Tasks", Repeat::Idempotent, || api.list(&params)).await?;
            // One that cannot be read must not hide the others; the watch logs which it is.
            let mut tasks: Vec<Task> =
                listed.items.into_iter().filter_map(|item| item.try_parse::<Task>().ok()).collect();
            tasks.sort_by_key(|task| (task.namespace(), task.name_any()));
            Ok(tasks)
        })
    }

    fn create(&self, task: Task) -> Answer<'_, Task> {
        Box::pin(self.post(task, DryRun::No))
    }

    fn apply(&self, task: Task) -> Answer<'_, Task> {
        Box::pin(self.patch(task, DryRun::No))
    }

    fn dry_run(&self, change: Change, task: Task) -> Answer<'_, Task> {
        match change {
            Change::Create => Box::pin(self.post(task, DryRun::All)),
            Change::Apply => Box::pin(self.patch(task, DryRun::All)),
        }
    }

    fn annotate(&self, task: TaskRef, key: &'static str, value: Option<String>) -> Answer<'_, Task> {
        Box::pin(async move {
            let api = self.tasks(&task.namespace);
            let doing = format!("annotate Task {task} with {key}");
            self.within_ours(&task.namespace, &doing)?;
            if self.stamps.is_on() {
                return self.annotate_stamped(&task, &doing, key, value.as_ref()).await;
            }
            let body = json!({"metadata": {"annotations": {key: value}}});
            let params = patches_as(API_MANAGER);
            call(&doing, Repeat::Idempotent, || async {
                api.patch(&task.name, &params, &Patch::Merge(&body)).await
            })
            .await
        })
    }

    fn asked_by(&self, who: Option<Requester>) -> Arc<dyn TaskStore> {
        Arc::new(Self { asked_by: who, ..self.clone() })
    }

    fn delete(&self, task: TaskRef) -> Answer<'_, ()> {
        Box::pin(async move {
            let api = self.tasks(&task.namespace);
            let params = DeleteParams::default();
            let doing = format!("delete Task {task}");
            self.within_ours(&task.namespace, &doing)?;
            // Not repeated: the second could hit a new Task of the same name.
            call(&doing, Repeat::Unprocessed, || api.delete(&task.name, &params)).await?;
            Ok(())
        })
    }
}

impl TaskKeeper for KubeCluster {
    fn write_status<'a>(&'a self, seen: &'a Task, status: TaskStatus) -> Answer<'a, Task> {
        Box::pin(async move {
            let api = self.tasks_of(seen);
            let doing = format!("write the status of Task {}", display(seen));
            // With its resourceVersion: the server refuses it when the Task has changed since.
            let body = Task { status: Some(status), ..seen.clone() };
            let (name, params) = (seen.name_any(), writes_as(OPERATOR_MANAGER));
            call(&doing, Repeat::Idempotent, || api.replace_status(&name, &params, &body)).await
        })
    }

    fn set_finalizer<'a>(&'a self, seen: &'a Task, finalizer: Finalizer) -> Answer<'a, Task> {
        Box::pin(async move {
            let api = self.tasks_of(seen);
            let mut finalizers: Vec<String> =
                seen.finalizers().iter().filter(|f| *f != FINALIZER).cloned().collect();
            let doing = match finalizer {
                Finalizer::Present => {
                    finalizers.push(FINALIZER.to_owned());
                    format!("hold Task {}", display(seen))
                }
                Finalizer::Absent => format!("release Task {}", display(seen)),
            };
            let body = json!({"metadata": {
                "uid": seen.metadata.uid,
                "resourceVersion": seen.metadata.resource_version,
                "finalizers": finalizers,
            }});
            let (name, params) = (seen.name_any(), patches_as(OPERATOR_MANAGER));
            call(&doing, Repeat::Idempotent, || async {
                api.patch(&name, &params, &Patch::Merge(&body)).await
            })
            .await
        })
    }

    fn persist_targets<'a>(
        &'a self,
        task: &'a Task,
        run: RunNumber,
        targets: &'a [NodeName],
    ) -> Answer<'a, Frozen> {
        Box::pin(async move {
            let slices = targets::slices(task, run, targets);
            stream::iter(slices)
                .map(|slice| self.create_slice(slice))
                .buffer_unordered(SLICES_AT_ONCE)
                .try_collect::<()>()
                .await?;
            Ok(targets::plan(run, targets))
        })
    }

    fn load_targets<'a>(&'a self, task: &'a Task) -> Answer<'a, Vec<NodeName>> {
        Box::pin(async move {
            let Some(run) = task.status.as_ref().and_then(|status| status.run.as_ref()) else {
                return Ok(Vec::new());
            };
            let mut found = Vec::new();
            if run.target_slices > 0 {
                let api = self.slices(&task.namespace().unwrap_or_default());
                let selector = format!("{DIGEST_LABEL}={}", run.targets_digest);
                let params = ListParams::default().labels(&selector);
                let doing = format!("list the TargetSlices of Task {}", display(task));
                found = call(&doing, Repeat::Idempotent, || api.list(&params)).await?.items;
            }
            targets::assemble(task, run, &found)
        })
    }

    fn delete_old_targets<'a>(&'a self, task: &'a Task) -> Answer<'a, ()> {
        Box::pin(async move {
            let api = self.slices(&task.namespace().unwrap_or_default());
            let current = task.status.as_ref().and_then(|status| status.run.as_ref());
            let current = current.map(|run| run.targets_digest.as_str()).unwrap_or_default();
            let uid = task.uid().unwrap_or_default();
            let selector = format!("{TASK_UID_LABEL}={uid},{DIGEST_LABEL}!={current}");
            let params = ListParams::default().labels(&selector);
            let doing = format!("delete old TargetSlices of Task {}", display(task));
            let how = DeleteParams::default();
            call(&doing, Repeat::Idempotent, || api.delete_collection(&how, &params)).await?;
            Ok(())
        })
    }

    fn publish<'a>(&'a self, task: &'a Task, notice: &'a Notice) -> Answer<'a, Publication> {
        Box::pin(self.events.publish(task, notice))
    }
}

impl Cluster for KubeCluster {
    fn within(&self) -> Option<Namespace> {
        self.namespace.clone()
    }

    fn watch_tasks(&self) -> BoxStream<'static, Event<Task>> {
        let api = self.all_tasks(self.namespace.as_deref());
        watch::follow(api, Content::Whole, |object| Ok(decode_task(object)), self.tasks_health.clone())
    }

    fn watch_nodes(&self) -> BoxStream<'static, Event<(NodeName, NodeFacts)>> {
        let api = Api::all_with(self.client.clone(), &watch::resource::<Node>());
        watch::follow(api, Content::Metadata, decode_node, self.nodes_health.clone())
    }

    fn stamps(&self) -> Stamps {
        self.stamps.clone()
    }

    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> Answer<'a, Option<SecretKeys>> {
        Box::pin(secret::read(&self.client, namespace, name))
    }

    fn is_own_secret(&self, namespace: &str, name: &str) -> bool {
        self.own_secrets.iter().any(|own| (own.0.as_str(), own.1.as_str()) == (namespace, name))
    }

    fn watches(&self) -> Vec<Arc<WatchHealth>> {
        vec![self.tasks_health.clone(), self.nodes_health.clone()]
    }
}

/// A Task without its managed fields, which are half of an object and not read here. One that cannot be decoded is kept
/// and marked as such: a Task that is missing counts as deleted, and its commands as orphans.
fn decode_task(mut object: DynamicObject) -> Task {
    object.metadata.managed_fields = None;
    let error = match object.clone().try_parse::<Task>() {
        Ok(task) => return task,
        Err(error) => error.to_string(),
    };
    let mut task = Task::new(&object.name_any(), TaskSpec::stand_in());
    task.metadata = object.metadata;
    let marks = task.metadata.annotations.get_or_insert_default();
    marks.insert(UNREADABLE.to_owned(), error);
    match serde_json::from_value(object.data.get("status").cloned().unwrap_or_default()) {
        Ok(status) => task.status = status,
        Err(error) => {
            marks.insert(UNREADABLE_STATUS.to_owned(), error.to_string());
        }
    }
    task
}

fn decode_node(object: DynamicObject) -> Result<(NodeName, NodeFacts), String> {
    let name = NodeName::new(object.name_any()).map_err(|error| error.to_string())?;
    Ok((name, NodeFacts { labels: object.metadata.labels.unwrap_or_default() }))
}
