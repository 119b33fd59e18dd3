//! Whether a namespace admits the agents' pods.

use std::fmt;

use clap::ValueEnum as _;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, PodSpec};
use kube::Api;

use super::findings::Findings;
use crate::args::AgentProfile;
use crate::cluster::Cluster;
use crate::cluster::status::shown_briefly;
use crate::exit::Failure;

/// The label by which a namespace enforces a level.
const LABEL: &str = "pod-security.kubernetes.io/enforce";

/// A level of the Pod Security Standards; a later one admits more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Restricted,
    Baseline,
    Privileged,
}

impl Level {
    /// What agents of a profile need, with the state on the node that they have by default.
    pub(super) fn of_profile(profile: AgentProfile) -> Self {
        match profile {
            AgentProfile::Observe => Self::Restricted,
            AgentProfile::Container | AgentProfile::Host => Self::Privileged,
        }
    }

    /// What the installed agents need; that of the default profile if there are none.
    pub(super) fn of_agents(agents: &[DaemonSet]) -> Self {
        let specs = agents.iter().filter_map(|set| set.spec.as_ref()?.template.spec.as_ref());
        specs.map(Self::of_pod).max().unwrap_or(Self::Privileged)
    }

    /// The lowest level that admits such a pod, as the chart makes it.
    fn of_pod(spec: &PodSpec) -> Self {
        let is_on_host = spec.host_network == Some(true) || spec.host_pid == Some(true);
        let has_host_path = spec.volumes.iter().flatten().any(|volume| volume.host_path.is_some());
        match profile(spec) {
            _ if is_on_host || has_host_path => Self::Privileged,
            Some(AgentProfile::Observe) => Self::Restricted,
            Some(AgentProfile::Container) => Self::Baseline,
            Some(AgentProfile::Host) | None => Self::Privileged,
        }
    }

    fn of_label(text: &str) -> Option<Self> {
        [Self::Restricted, Self::Baseline, Self::Privileged].into_iter().find(|level| level.as_str() == text)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Restricted => "restricted",
            Self::Baseline => "baseline",
            Self::Privileged => "privileged",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The profile that an agent's flags name.
fn profile(spec: &PodSpec) -> Option<AgentProfile> {
    let flags = spec.containers.iter().flat_map(|container| container.args.iter().flatten());
    let named = flags.filter_map(|flag| flag.strip_prefix("--profile=")).next_back()?;
    AgentProfile::from_str(named, true).ok()
}

/// Whether the namespace admits pods that need this level.
pub(super) async fn check(
    cluster: &Cluster,
    name: &str,
    needed: Level,
    findings: &mut Findings,
) -> Result<(), Failure> {
    const CHECK: &str = "pod-security";
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = match namespaces.get_opt(name).await {
        Ok(namespace) => namespace,
        Err(error) => {
            let message = format!("namespace {name} cannot be read: {}", shown_briefly(&error));
            let advice = format!("Its agents need the Pod Security level {needed}: see its label {LABEL}");
            return findings.warn(CHECK, message, advice);
        }
    };
    let Some(namespace) = namespace else {
        let message = format!("namespace {name} does not exist yet");
        let advice = format!(
            "Create it with the label that agents need: kubectl create namespace {name} && kubectl label namespace {name} {LABEL}={needed}"
        );
        return findings.warn(CHECK, message, advice);
    };
    let label = namespace.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL));
    match label.map(|label| (label, Level::of_label(label))) {
        Some((label, Some(level))) if level >= needed => {
            findings.ok(CHECK, format!("namespace {name} enforces the level {label}; the agents need {needed}"))
        }
        Some((label, _)) => findings.fail(
            CHECK,
            format!("namespace {name} enforces the Pod Security level {label}, which the agents' pods do not meet: they need {needed}"),
            format!("kubectl label --overwrite namespace {name} {LABEL}={needed}"),
        ),
        None if needed == Level::Restricted => {
            findings.ok(CHECK, format!("the agents need no more than the level {needed}"))
        }
        None => findings.warn(
            CHECK,
            format!("namespace {name} has no label {LABEL}, so the default of the cluster holds"),
            format!("If agents are refused: kubectl label namespace {name} {LABEL}={needed}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn agents(spec: &serde_json::Value) -> [DaemonSet; 1] {
        let set = json!({"metadata": {}, "spec": {"selector": {}, "template": {"spec": spec}}});
        [serde_json::from_value(set).unwrap()]
    }

    #[test]
    fn the_level_is_that_of_the_pods() {
        let spec = |profile: &str, volumes: &serde_json::Value| json!({"containers": [{"name": "agent", "args": [format!("--profile={profile}")]}], "volumes": volumes});
        let (none, path) = (json!([]), json!([{"name": "state", "hostPath": {"path": "/var/lib/x"}}]));
        for (profile, volumes, expected) in [
            ("observe", &none, Level::Restricted),
            ("observe", &path, Level::Privileged),
            ("container", &none, Level::Baseline),
            ("container", &path, Level::Privileged),
            ("host", &none, Level::Privileged),
        ] {
            assert_eq!(Level::of_agents(&agents(&spec(profile, volumes))), expected, "{profile} {volumes}");
        }
        assert_eq!(Level::of_agents(&[]), Level::Privileged);
        assert!(Level::of_label("restricted") < Level::of_label("baseline"));
    }
}
