//! The objects of the chart.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, ListParams};
use sentinel_api::aggregated::API_SERVICE;

use super::findings::Findings;
use crate::cluster::status::shown;
use crate::cluster::{AGENT_LABELS, Cluster, OPERATOR_LABELS};
use crate::exit::Failure;
use crate::output::counted;

/// The release of this program.
const OURS: &str = env!("CARGO_PKG_VERSION");

/// Most pods that a line names.
const MOST_NAMED: usize = 5;

/// Whether the API server has our API and reaches it.
pub(super) async fn api_service(cluster: &Cluster, findings: &mut Findings) -> Result<(), Failure> {
    let services: Api<APIService> = Api::all(cluster.client.clone());
    let found = match services.get_opt(API_SERVICE).await {
        Ok(found) => found,
        Err(error) => {
            let advice = format!("See whether it is available: kubectl get apiservice {API_SERVICE}");
            return findings.warn(
                "apiservice",
                format!("APIService {API_SERVICE} cannot be read: {}", shown(&error)),
                advice,
            );
        }
    };
    let Some(found) = found else {
        let message = format!("APIService {API_SERVICE} does not exist");
        return findings.fail(
            "apiservice",
            message,
            "Install Sentinel Node with its Helm chart; before that: sentinel check --pre",
        );
    };
    let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
    match conditions.iter().find(|one| one.type_ == "Available") {
        Some(one) if one.status == "True" => {
            findings.ok("apiservice", format!("APIService {API_SERVICE} is available"))
        }
        Some(one) => {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let message = format!(
                "APIService {API_SERVICE} is not available: {}: {}",
                text(&one.reason),
                text(&one.message)
            );
            let advice = "Is the operator ready (below)? Does a network policy keep the API server from port 7982 of its pods? \
                          Does its caBundle belong to the operator's certificate?";
            findings.fail("apiservice", message, advice)
        }
        None => findings.warn(
            "apiservice",
            format!("APIService {API_SERVICE} was not tried by the API server yet"),
            format!("See it again in some seconds: kubectl get apiservice {API_SERVICE}"),
        ),
    }
}

/// The operator: its replicas and its release.
pub(super) async fn operator(
    cluster: &Cluster,
    namespace: &str,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let listed = match api.list(&ListParams::default().labels(OPERATOR_LABELS)).await {
        Ok(listed) => listed.items,
        Err(error) => return unreadable("operator", "Deployments", namespace, &error, findings),
    };
    let Some(found) = listed.first() else {
        let message = format!("namespace {namespace} has no Deployment with the labels of the operator");
        let advice = "Name the namespace of the installation with --install-namespace, or install Sentinel Node with its Helm chart";
        return findings.fail("operator", message, advice);
    };
    let wanted = found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let ready = found.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    let name = found.metadata.name.as_deref().unwrap_or_default();
    let message = format!(
        "Deployment {namespace}/{name}: {ready} of {} ready",
        counted(wanted.max(0) as u64, "replica")
    );
    if ready == 0 {
        let reasons = unready(cluster, namespace, OPERATOR_LABELS).await;
        findings.fail("operator", format!("{message}{reasons}"), logs(namespace, OPERATOR_LABELS))?;
    } else if ready < wanted {
        let reasons = unready(cluster, namespace, OPERATOR_LABELS).await;
        findings.warn("operator", format!("{message}{reasons}"), logs(namespace, OPERATOR_LABELS))?;
    } else {
        findings.ok("operator", message)?;
    }
    let spec = found.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    release("operator", &found.metadata, spec, findings)
}

/// The agents: on how many nodes they are ready, and their release.
pub(super) async fn agents(
    cluster: &Cluster,
    namespace: &str,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let api: Api<DaemonSet> = Api::namespaced(cluster.client.clone(), namespace);
    let listed = match api.list(&ListParams::default().labels(AGENT_LABELS)).await {
        Ok(listed) => listed.items,
        Err(error) => return unreadable("agents", "DaemonSets", namespace, &error, findings),
    };
    if listed.is_empty() {
        let message = format!("namespace {namespace} has no DaemonSet with the labels of the agents");
        let advice = "Name the namespace of the installation with --install-namespace, or install Sentinel Node with its Helm chart";
        return findings.fail("agents", message, advice);
    }
    for found in &listed {
        let status = found.status.clone().unwrap_or_default();
        let (ready, wanted) = (status.number_ready, status.desired_number_scheduled);
        let name = found.metadata.name.as_deref().unwrap_or_default();
        let message = format!(
            "DaemonSet {namespace}/{name}: {ready} of {} ready",
            counted(wanted.max(0) as u64, "agent")
        );
        if wanted == 0 {
            let advice = "Do the nodes have taints that it does not tolerate, or lack labels that it selects? kubectl get nodes";
            findings.warn("agents", message, advice)?;
        } else if ready < wanted {
            let reasons = unready(cluster, namespace, AGENT_LABELS).await;
            let (message, advice) = (format!("{message}{reasons}"), logs(namespace, AGENT_LABELS));
            if ready == 0 {
                findings.fail("agents", message, advice)?;
            } else {
                findings.warn("agents", message, advice)?;
            }
        } else {
            findings.ok("agents", message)?;
        }
        let spec = found.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        release("agents", &found.metadata, spec, findings)?;
    }
    Ok(())
}

fn unreadable(
    check: &'static str,
    what: &str,
    namespace: &str,
    error: &kube::Error,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let message = format!("{what} of namespace {namespace} cannot be listed: {}", shown(error));
    findings.warn(check, message, format!("Ask for the right to read {what} of namespace {namespace}"))
}

fn logs(namespace: &str, labels: &str) -> String {
    format!(
        "See why: kubectl -n {namespace} describe pods -l {labels}; kubectl -n {namespace} logs -l {labels} --tail 50"
    )
}

/// The pods that are not ready: where, and why.
async fn unready(cluster: &Cluster, namespace: &str, labels: &str) -> String {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let Ok(listed) = pods.list(&ListParams::default().labels(labels)).await else { return String::new() };
    let mut all: Vec<String> = listed.items.iter().filter_map(why_unready).collect();
    let more = all.len().saturating_sub(MOST_NAMED);
    all.truncate(MOST_NAMED);
    if more > 0 {
        all.push(format!("{more} more"));
    }
    if all.is_empty() { String::new() } else { format!("; {}", all.join(", ")) }
}

/// Why a pod is not ready, with its node.
pub(crate) fn why_unready(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.as_deref().unwrap_or_default();
    if conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True") {
        return None;
    }
    let waiting = status.container_statuses.iter().flatten().find_map(|container| {
        let state = container.state.as_ref()?;
        let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
        waiting.or_else(|| state.terminated.as_ref().and_then(|ended| ended.reason.clone()))
    });
    let condition = conditions.iter().find(|one| one.status == "False").and_then(|one| one.message.clone());
    let why =
        waiting.or(condition).or_else(|| status.phase.clone()).unwrap_or_else(|| "not ready".to_owned());
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("no node");
    Some(format!("{node}: {why}"))
}

/// Compares the release of the chart and of the images with that of this program.
fn release(
    check: &'static str,
    metadata: &ObjectMeta,
    spec: Option<&PodSpec>,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let none = BTreeMap::new();
    let labels = metadata.labels.as_ref().unwrap_or(&none);
    let chart = labels.get("helm.sh/chart").map_or("not by Helm", String::as_str);
    let version = labels.get("app.kubernetes.io/version").map_or("unknown", String::as_str);
    let images: Vec<&str> = spec
        .map(|spec| spec.containers.iter().filter_map(|container| container.image.as_deref()).collect())
        .unwrap_or_default();
    let message = format!("release {version} (chart {chart}; image {})", images.join(", "));
    if version.trim_start_matches('v') == OURS {
        findings.ok(check, message)
    } else {
        let message = format!("{message}; this program is {OURS}");
        findings.warn(
            check,
            message,
            "Use the program of the same release; a newer server may send what an older one does not show",
        )
    }
}
