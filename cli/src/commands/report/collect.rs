//! What is read, from the operator and from the API server.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, LogParams};
use kube::{Client as ApiClient, Resource};
use sentinel_api::aggregated::{API_SERVICE, TASK_GROUP};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::bundle::Bundle;
use super::redact::{self, Redacted};
use crate::args::ReportArgs;
use crate::client::{Client, Query};
use crate::cluster::status::shown;
use crate::cluster::{AGENT_LABELS, Cluster, INSTALL_NAMESPACE, NAME_LABEL, forward};
use crate::commands::check;
use crate::commands::check::findings::Findings;
use crate::connection::Connection;
use crate::exit::Failure;

/// Most items of each list.
const MOST: usize = 500;

/// Most bytes of the log of a container.
const MOST_LOG: i64 = 2 << 20;

/// Most pods of agents with logs; those that are not ready come first.
const MOST_AGENTS: usize = 20;

/// Reads all there is.
///
/// # Errors
/// Never for what cannot be read: that is noted in the bundle.
pub(super) async fn all(
    connection: &Connection,
    args: &ReportArgs,
    bundle: &mut Bundle,
) -> Result<(), Failure> {
    let mut findings = Findings::silent();
    check::all(connection, args.install_namespace.as_deref(), &mut findings).await?;
    bundle.add("check.json", Redacted::of(findings.to_json()));
    bundle.add("versions.json", Redacted::of(versions(connection).await));
    let has_tasks = of_operator(&connection.client, bundle).await;
    if let Some((cluster, _)) = &connection.cluster {
        of_cluster(cluster, args, bundle, has_tasks).await;
    }
    Ok(())
}

async fn versions(connection: &Connection) -> Value {
    let mut versions = json!({
        "sentinel": env!("CARGO_PKG_VERSION"),
        "server": connection.client.server().to_string(),
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        "now": jiff::Timestamp::now().to_string(),
    });
    if let Some((cluster, _)) = &connection.cluster {
        versions["kubernetes"] = match cluster.client.apiserver_version().await {
            Ok(info) => json!(info),
            Err(error) => json!({"error": error.to_string()}),
        };
    }
    versions
}

/// Returns whether the operator listed its Tasks.
async fn of_operator(client: &Client, bundle: &mut Bundle) -> bool {
    let mut has_tasks = false;
    match client.list("/api/v1/tasks", Query::default(), MOST, None).await {
        Ok(listed) => {
            has_tasks = true;
            tasks(listed.items, bundle);
            if listed.next.is_some() {
                bundle.miss("Tasks", format!("only the first {MOST} are in it"));
            }
        }
        Err(error) => bundle.miss("Tasks by the operator", error.to_string()),
    }
    for (name, path) in [("runs.json", "/api/v1/runs"), ("executions.json", "/api/v1/executions")] {
        match client.list(path, Query::default(), MOST, None).await {
            Ok(listed) => {
                let mut all = Redacted::of(Value::Null);
                let items =
                    listed.items.into_iter().map(|item| merge(redact::record(item), &mut all)).collect();
                all.content = Value::Array(items);
                bundle.add(name, all);
            }
            Err(error) => bundle.miss(name, error.to_string()),
        }
    }
    match client.get("/api/v1/nodes").await {
        Ok(nodes) => bundle.add("nodes-by-operator.json", Redacted::of(nodes)),
        Err(error) => bundle.miss("nodes by the operator", error.to_string()),
    }
    has_tasks
}

fn tasks(items: Vec<Value>, bundle: &mut Bundle) {
    for task in items {
        let part = |name: &str| task["metadata"][name].as_str().unwrap_or_default().replace('/', "_");
        let name = format!("tasks/{}/{}.json", part("namespace"), part("name"));
        bundle.add(&name, redact::task(task));
    }
}

/// The content of a document; what was replaced in it counts for another one.
fn merge(one: Redacted<Value>, all: &mut Redacted<Value>) -> Value {
    for (what, count) in one.replaced {
        *all.replaced.entry(what).or_default() += count;
    }
    one.content
}

async fn of_cluster(cluster: &Cluster, args: &ReportArgs, bundle: &mut Bundle, has_tasks: bool) {
    let client = &cluster.client;
    let found = forward::find(cluster).await;
    if let Err(error) = &found {
        bundle.miss("the installation", error.to_string());
    }
    let namespace = args.install_namespace.clone().or(found.ok().map(|operator| operator.namespace));
    let namespace = namespace.as_deref().unwrap_or(INSTALL_NAMESPACE);
    if !has_tasks {
        let kind = GroupVersionKind::gvk(TASK_GROUP, "v1alpha1", "Task");
        let api: Api<DynamicObject> =
            Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, "tasks"));
        match api.list(&ListParams::default().limit(MOST as u32)).await {
            Ok(listed) => {
                let items = listed.items.iter().filter_map(|item| serde_json::to_value(item).ok()).collect();
                tasks(items, bundle);
            }
            Err(error) => bundle.miss("Tasks by the API server", shown(&error)),
        }
    }
    objects(client, namespace, bundle).await;
    logs(client, namespace, args.logs, bundle).await;
    list::<Event>(Api::namespaced(client.clone(), namespace), "", "events.json", bundle, <[Value]>::to_vec)
        .await;
    let about_tasks = |events: &[Value]| -> Vec<Value> {
        let is_ours = |event: &&Value| event["involvedObject"]["kind"] == "Task";
        events.iter().filter(is_ours).cloned().collect()
    };
    list::<Event>(Api::all(client.clone()), "", "events-of-tasks.json", bundle, about_tasks).await;
}

/// The objects of the chart, and what they depend on; no Secret.
async fn objects(client: &ApiClient, namespace: &str, bundle: &mut Bundle) {
    let every = <[Value]>::to_vec;
    of_chart::<Deployment>(client, namespace, "objects/deployments.json", bundle).await;
    of_chart::<ReplicaSet>(client, namespace, "objects/replicasets.json", bundle).await;
    of_chart::<DaemonSet>(client, namespace, "objects/daemonsets.json", bundle).await;
    of_chart::<Pod>(client, namespace, "objects/pods.json", bundle).await;
    of_chart::<Service>(client, namespace, "objects/services.json", bundle).await;
    of_chart::<ServiceAccount>(client, namespace, "objects/serviceaccounts.json", bundle).await;
    of_chart::<NetworkPolicy>(client, namespace, "objects/networkpolicies.json", bundle).await;
    let keys = |items: &[Value]| {
        let mut items = items.to_vec();
        for data in items.iter_mut().filter_map(|item| item["data"].as_object_mut()) {
            // The certificates of a CA are for everyone.
            for (_, value) in data.iter_mut().filter(|(key, _)| *key != "ca.crt") {
                *value = json!("[redacted]");
            }
        }
        items
    };
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    list(maps, NAME_LABEL, "objects/configmaps.json", bundle, keys).await;
    list::<ClusterRole>(Api::all(client.clone()), NAME_LABEL, "objects/clusterroles.json", bundle, every)
        .await;
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    list(bindings, NAME_LABEL, "objects/clusterrolebindings.json", bundle, every).await;
    list::<Node>(Api::all(client.clone()), "", "objects/nodes.json", bundle, every).await;
    one::<Namespace>(Api::all(client.clone()), namespace, "objects/namespace.json", bundle).await;
    one::<APIService>(Api::all(client.clone()), API_SERVICE, "objects/apiservice.json", bundle).await;
    let definition = format!("tasks.{TASK_GROUP}");
    one::<CustomResourceDefinition>(Api::all(client.clone()), &definition, "objects/crd.json", bundle).await;
}

async fn of_chart<K>(client: &ApiClient, namespace: &str, file: &str, bundle: &mut Bundle)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    list(api, NAME_LABEL, file, bundle, <[Value]>::to_vec).await;
}

async fn list<K>(
    api: Api<K>,
    labels: &str,
    file: &str,
    bundle: &mut Bundle,
    chosen: impl Fn(&[Value]) -> Vec<Value>,
) where
    K: Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let mut params = ListParams::default().limit(MOST as u32);
    if !labels.is_empty() {
        params = params.labels(labels);
    }
    match api.list(&params).await {
        Ok(listed) => {
            let items: Vec<Value> =
                listed.items.iter().filter_map(|item| serde_json::to_value(item).ok()).collect();
            let mut all = Redacted::of(Value::Null);
            let items =
                chosen(&items).into_iter().map(|item| merge(redact::object(item), &mut all)).collect();
            all.content = Value::Array(items);
            bundle.add(file, all);
        }
        Err(error) => bundle.miss(file, shown(&error)),
    }
}

async fn one<K>(api: Api<K>, name: &str, file: &str, bundle: &mut Bundle)
where
    K: Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    match api.get(name).await {
        Ok(found) => bundle.add(file, redact::object(serde_json::to_value(found).unwrap_or_default())),
        Err(error) => bundle.miss(file, shown(&error)),
    }
}

/// The logs of all pods of the operator, and of some of the agents.
async fn logs(client: &ApiClient, namespace: &str, lines: u32, bundle: &mut Bundle) {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let listed = match api.list(&ListParams::default().labels(NAME_LABEL)).await {
        Ok(listed) => listed.items,
        Err(error) => return bundle.miss("logs", shown(&error)),
    };
    let is_agent = |pod: &Pod| {
        let component = AGENT_LABELS.rsplit('=').next();
        let labels = pod.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get("app.kubernetes.io/component")).map(String::as_str) == component
    };
    let (mut agents, operators): (Vec<Pod>, Vec<Pod>) = listed.into_iter().partition(is_agent);
    agents.sort_by_key(|pod| check::why_unready(pod).is_none());
    if agents.len() > MOST_AGENTS {
        bundle.miss(
            "logs of agents",
            format!(
                "only those of {MOST_AGENTS} of {} are in it; the ones that are not ready come first",
                agents.len()
            ),
        );
        agents.truncate(MOST_AGENTS);
    }
    for pod in operators.iter().chain(&agents) {
        of_pod(&api, pod, lines, bundle).await;
    }
}

async fn of_pod(api: &Api<Pod>, pod: &Pod, lines: u32, bundle: &mut Bundle) {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let restarted = |container: &str| {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        statuses.into_iter().any(|status| status.name == container && status.restart_count > 0)
    };
    for container in containers.map(|container| container.name.as_str()) {
        for previous in [false, true] {
            if previous && !restarted(container) {
                continue;
            }
            let params = LogParams {
                container: Some(container.to_owned()),
                previous,
                tail_lines: Some(i64::from(lines)),
                limit_bytes: Some(MOST_LOG),
                timestamps: true,
                ..LogParams::default()
            };
            let end = if previous { "-previous" } else { "" };
            let file = format!("logs/{name}/{container}{end}.log");
            match api.logs(name, &params).await {
                Ok(text) => bundle.add_text(&file, &text),
                Err(error) => bundle.miss(file, shown(&error)),
            }
        }
    }
}
