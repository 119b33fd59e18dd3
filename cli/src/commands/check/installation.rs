//! The objects of the chart.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, ListParams};
use sentinel_api::aggregated::API_SERVICE;

use super::findings::Findings;
use super::pod_security::Level;
use crate::cluster::forward::{self, Operator};
use crate::cluster::status::shown_briefly;
use crate::cluster::{AGENT_LABELS, Cluster, INSTALL_NAMESPACE, OPERATOR_LABELS};
use crate::exit::Failure;
use crate::output::counted;

/// The release of this program.
const OURS: &str = env!("CARGO_PKG_VERSION");

/// Most pods that a line names.
const MOST_NAMED: usize = 5;

/// What is installed in a namespace.
pub(super) struct Installed {
    pub(super) namespace: String,
    operators: Result<Vec<Deployment>, kube::Error>,
    agents: Result<Vec<DaemonSet>, kube::Error>,
}

impl Installed {
    /// The installation in that namespace; otherwise the one that serves the API group, or the first.
    pub(super) async fn find(
        cluster: &Cluster,
        named: Option<&str>,
        findings: &mut Findings,
    ) -> Result<Self, Failure> {
        let namespace = match named {
            Some(named) => named.to_owned(),
            None => chosen(cluster, findings).await?,
        };
        let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &namespace);
        let sets: Api<DaemonSet> = Api::namespaced(cluster.client.clone(), &namespace);
        let operators = deployments.list(&ListParams::default().labels(OPERATOR_LABELS)).await;
        let agents = sets.list(&ListParams::default().labels(AGENT_LABELS)).await;
        let (operators, agents) = (operators.map(|list| list.items), agents.map(|list| list.items));
        Ok(Self { namespace, operators, agents })
    }

    /// The Pod Security level that its agents need.
    pub(super) fn level(&self) -> Level {
        Level::of_agents(self.agents.as_deref().unwrap_or_default())
    }

    /// The name of the installation, with which the names of its objects begin; the usual one while that is not known.
    pub(super) fn fullname(&self) -> &str {
        let operator = self.operators.as_ref().ok().and_then(|all| all.first()?.metadata.name.as_deref());
        operator.and_then(|name| name.strip_suffix("-operator")).unwrap_or("sentinel-node")
    }

    /// The name of the `ConfigMap` with its CA.
    pub(super) fn ca(&self) -> String {
        format!("{}-ca", self.fullname())
    }

    /// Whether it is known that there is no operator.
    pub(super) fn is_absent(&self) -> bool {
        self.operators.as_ref().is_ok_and(Vec::is_empty)
    }

    /// Whether its operator serves the API group, by its flags.
    pub(super) fn is_aggregated(&self) -> Option<bool> {
        let spec = self.operators.as_ref().ok()?.first()?.spec.as_ref()?.template.spec.as_ref()?;
        let mut flags = spec.containers.iter().flat_map(|container| container.args.iter().flatten());
        Some(flags.any(|flag| flag.starts_with("--aggregated-listen")))
    }
}

/// The namespace of the installation to check; of several, the others are named.
async fn chosen(cluster: &Cluster, findings: &mut Findings) -> Result<String, Failure> {
    let all = forward::installations(cluster).await.unwrap_or_default();
    let Some(first) = all.first() else { return Ok(INSTALL_NAMESPACE.to_owned()) };
    let serving = forward::serving(cluster).await;
    let chosen = all.iter().find(|one| serving.as_ref() == Some(*one)).unwrap_or(first);
    if all.len() > 1 {
        let name = |one: &Operator| format!("{}/{}", one.namespace, one.fullname);
        let others: Vec<String> = all.iter().filter(|one| *one != chosen).map(name).collect();
        let message = format!("{} is checked; there are also {}", name(chosen), others.join(", "));
        findings.warn("installation", message, "Check another one with --install-namespace NAME")?;
    }
    Ok(chosen.namespace.clone())
}

/// Whether the API server has our API and reaches it.
pub(super) async fn api_service(
    cluster: &Cluster,
    installed: &Installed,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let services: Api<APIService> = Api::all(cluster.client.clone());
    let found = match services.get_opt(API_SERVICE).await {
        Ok(found) => found,
        Err(error) => {
            let advice = format!("See whether it is available: kubectl get apiservice {API_SERVICE}");
            return findings.warn(
                "apiservice",
                format!("APIService {API_SERVICE} cannot be read: {}", shown_briefly(&error)),
                advice,
            );
        }
    };
    let Some(found) = found else { return no_api_service(installed, findings) };
    let service = found.spec.as_ref().and_then(|spec| spec.service.as_ref());
    let at = service.and_then(|service| service.namespace.as_deref());
    if let Some(at) = at.filter(|at| *at != installed.namespace) {
        let message = format!(
            "APIService {API_SERVICE} is that of the installation in namespace {at}, not in {}",
            installed.namespace
        );
        return findings.warn(
            "apiservice",
            message,
            format!("Check that one: sentinel check --install-namespace {at}"),
        );
    }
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

/// Without an `APIService`: as the values have it, or not.
fn no_api_service(installed: &Installed, findings: &mut Findings) -> Result<(), Failure> {
    let message = format!("APIService {API_SERVICE} does not exist");
    match installed.is_aggregated() {
        Some(false) => {
            let why = "as aggregatedApi.enabled=false has it; the operator is reached by a forwarded port";
            findings.ok("apiservice", format!("{message}, {why}"))
        }
        Some(true) => findings.fail(
            "apiservice",
            message,
            format!("The chart has it: helm -n {} upgrade RELEASE CHART", installed.namespace),
        ),
        None => findings.fail(
            "apiservice",
            message,
            "Install Sentinel Node with its Helm chart; before that: sentinel check --pre",
        ),
    }
}

/// The operator: its replicas and its release.
pub(super) async fn operator(
    cluster: &Cluster,
    installed: &Installed,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let namespace = installed.namespace.as_str();
    let listed = match &installed.operators {
        Ok(listed) => listed,
        Err(error) => return unreadable("operator", "Deployments", namespace, error, findings),
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
    let rollout = Rollout::of(found);
    let message = match rollout {
        Rollout::Done => message,
        Rollout::UnderWay { updated } | Rollout::Stuck { updated } => {
            format!("{message}; {updated} of {wanted} have the latest settings")
        }
    };
    if ready == 0 || matches!(rollout, Rollout::Stuck { .. }) {
        let reasons = unready(cluster, namespace, OPERATOR_LABELS).await;
        findings.fail("operator", format!("{message}{reasons}"), logs(namespace, OPERATOR_LABELS))?;
    } else if ready < wanted || rollout != Rollout::Done {
        let reasons = unready(cluster, namespace, OPERATOR_LABELS).await;
        findings.warn("operator", format!("{message}{reasons}"), logs(namespace, OPERATOR_LABELS))?;
    } else {
        findings.ok("operator", message)?;
    }
    let spec = found.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    release("operator", &found.metadata, spec, findings)
}

/// How far an upgrade has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rollout {
    Done,
    UnderWay { updated: i32 },
    Stuck { updated: i32 },
}

impl Rollout {
    /// Replicas that are ready may be those of before the upgrade.
    fn of(deployment: &Deployment) -> Self {
        let status = deployment.status.clone().unwrap_or_default();
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let updated = status.updated_replicas.unwrap_or(0);
        let is_seen = status.observed_generation >= deployment.metadata.generation;
        let conditions = status.conditions.unwrap_or_default();
        if conditions.iter().any(|one| one.type_ == "Progressing" && one.status == "False") {
            Self::Stuck { updated }
        } else if is_seen && updated >= wanted && status.replicas.unwrap_or(0) <= updated {
            Self::Done
        } else {
            Self::UnderWay { updated }
        }
    }
}

/// The agents: on how many nodes they are ready, and their release.
pub(super) async fn agents(
    cluster: &Cluster,
    installed: &Installed,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let namespace = installed.namespace.as_str();
    let listed = match &installed.agents {
        Ok(listed) => listed,
        Err(error) => return unreadable("agents", "DaemonSets", namespace, error, findings),
    };
    if listed.is_empty() {
        let message = format!("namespace {namespace} has no DaemonSet with the labels of the agents");
        let advice = "Name the namespace of the installation with --install-namespace, or install Sentinel Node with its Helm chart";
        return findings.fail("agents", message, advice);
    }
    for found in listed {
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
        } else if ready < wanted || status.updated_number_scheduled.is_some_and(|updated| updated < wanted) {
            let updated = status.updated_number_scheduled.unwrap_or(0);
            let message = format!("{message}; {updated} of {wanted} have the latest settings");
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
    let message = format!("{what} of namespace {namespace} cannot be listed: {}", shown_briefly(error));
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
        let waiting = state.waiting.as_ref().and_then(|waiting| {
            let reason = waiting.reason.clone()?;
            Some(waiting.message.as_ref().map_or(reason.clone(), |message| format!("{reason}: {message}")))
        });
        waiting.or_else(|| state.terminated.as_ref().and_then(|ended| ended.reason.clone()))
    });
    let condition = conditions.iter().find(|one| one.status == "False").and_then(|one| one.message.clone());
    let why =
        waiting.or(condition).or_else(|| status.phase.clone()).unwrap_or_else(|| "not ready".to_owned());
    match pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
        Some(node) => Some(format!("{node}: {why}")),
        None => Some(format!("a pod has no node yet: {why}")),
    }
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
