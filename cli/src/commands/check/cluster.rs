//! The API server, and what is not ours in its cluster.

use std::time::Duration;

use http::Request;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node};
use kube::api::{Api, ListParams};

use super::findings::Findings;
use crate::cluster::Cluster;
use crate::cluster::status::shown;
use crate::exit::Failure;
use crate::output::counted;

/// The oldest minor release of Kubernetes 1 that is supported.
const OLDEST_MINOR: u32 = 30;

/// A difference of clocks that is worth a warning, and one with which tokens and certificates fail.
const SKEW: [Duration; 2] = [Duration::from_secs(5), Duration::from_mins(1)];

/// Returns whether the API server answers.
pub(super) async fn version(cluster: &Cluster, findings: &mut Findings) -> Result<bool, Failure> {
    let name = &cluster.name;
    let info = match cluster.client.apiserver_version().await {
        Ok(info) => info,
        Err(error) => {
            let message = format!("{} ({}) does not answer: {}", name.address, name.source, shown(&error));
            findings.fail(
                "kubernetes",
                message,
                "Does kubectl reach it with the same kubeconfig? Try: kubectl version",
            )?;
            return Ok(false);
        }
    };
    let number =
        |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().unwrap_or(0);
    let (major, minor) = (number(&info.major), number(&info.minor));
    let message = format!("{} ({}) is Kubernetes {}", name.address, name.source, info.git_version);
    if major == 1 && minor < OLDEST_MINOR {
        let message = format!("{message}; the oldest that is supported is 1.{OLDEST_MINOR}");
        findings.fail(
            "kubernetes",
            message,
            format!("Upgrade it to Kubernetes 1.{OLDEST_MINOR} or newer"),
        )?;
    } else {
        findings.ok("kubernetes", message)?;
    }
    Ok(true)
}

/// The clock of the API server, by the date of an answer, which has whole seconds.
pub(super) async fn clock(cluster: &Cluster, findings: &mut Findings) -> Result<(), Failure> {
    let sent = Timestamp::now();
    let request = Request::get("/version").body(kube::client::Body::empty());
    let answer = match request {
        Ok(request) => cluster.client.send(request).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let received = Timestamp::now();
    let date = answer.and_then(|answer| {
        let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
        let date = date.ok_or("its answer has no date")?;
        let date = rfc2822::parse(date).map_err(|error| error.to_string())?;
        Ok(date.timestamp())
    });
    match date {
        Ok(date) => skew("clock", "the API server", offset(date, sent, received), findings),
        Err(why) => {
            let message = format!("the clock of the API server is not known: {why}");
            findings.warn("clock", message, "Compare it with yours: date -u, on both")
        }
    }
}

/// How far a clock that showed whole seconds between two times is from ours: 0 when it agrees with any of them.
fn offset(date: Timestamp, sent: Timestamp, received: Timestamp) -> Duration {
    let early = sent.as_millisecond() - (date.as_millisecond() + 999);
    let late = date.as_millisecond() - received.as_millisecond();
    Duration::from_millis(early.max(late).max(0) as u64)
}

/// A line about a difference of clocks.
pub(super) fn skew(
    check: &'static str,
    whose: &str,
    by: Duration,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let message = format!("the clock of {whose} differs from yours by {}", seconds(by));
    let advice = "Synchronise both with NTP: times of output and of events would be wrong, tokens and certificates refused";
    if by >= SKEW[1] {
        findings.fail(check, message, advice)
    } else if by >= SKEW[0] {
        findings.warn(check, message, advice)
    } else {
        findings.ok(check, format!("the clock of {whose} agrees with yours"))
    }
}

fn seconds(time: Duration) -> String {
    sentinel_protocol::duration::format(Duration::from_secs(time.as_secs()))
}

/// Whether the API server can have aggregated APIs at all.
pub(super) async fn aggregation(cluster: &Cluster, findings: &mut Findings) -> Result<(), Failure> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "kube-system");
    match maps.get_opt("extension-apiserver-authentication").await {
        Ok(Some(map)) if map.data.iter().flatten().any(|(key, _)| key == "requestheader-client-ca-file") => {
            findings.ok("aggregation", "the API server serves aggregated APIs")
        }
        Ok(_) => findings.fail(
            "aggregation",
            "the API server has no front proxy certificate (--requestheader-client-ca-file), so it serves no aggregated API",
            "Enable its aggregation layer: https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/",
        ),
        Err(error) => findings.warn(
            "aggregation",
            format!("whether the API server serves aggregated APIs is not known: {}", shown(&error)),
            "Have an administrator check it, who may read ConfigMaps of kube-system",
        ),
    }
}

/// Whether agents run on the nodes.
pub(super) async fn nodes(cluster: &Cluster, findings: &mut Findings) -> Result<(), Failure> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let listed = match nodes.list(&ListParams::default()).await {
        Ok(listed) => listed.items,
        Err(error) => {
            let advice = "Ask for the right to list nodes, or check their platforms by hand: kubectl get nodes -L kubernetes.io/arch";
            return findings.warn("nodes", format!("the nodes cannot be listed: {}", shown(&error)), advice);
        }
    };
    let mut unfit = Vec::new();
    for node in &listed {
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        let Some(info) = info.filter(|info| !info.operating_system.is_empty()) else { continue };
        if info.operating_system != "linux" || !["amd64", "arm64"].contains(&info.architecture.as_str()) {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            unfit.push(format!("{name} ({}/{})", info.operating_system, info.architecture));
        }
    }
    let count = counted(listed.len() as u64, "node");
    if listed.is_empty() {
        findings.warn("nodes", "the cluster has no nodes", "Agents are started as nodes join")
    } else if unfit.is_empty() {
        findings.ok("nodes", format!("{count}; agents run on all of them"))
    } else {
        let message = format!("agents do not run on {} of {count}: {}", unfit.len(), unfit.join(", "));
        findings.warn("nodes", message, "Agents run on linux/amd64 and linux/arm64; other nodes are left out")
    }
}

/// Whether the namespace admits the agents' pods, which need more than the baseline.
pub(super) async fn pod_security(
    cluster: &Cluster,
    name: &str,
    findings: &mut Findings,
) -> Result<(), Failure> {
    const LABEL: &str = "pod-security.kubernetes.io/enforce";
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = match namespaces.get_opt(name).await {
        Ok(namespace) => namespace,
        Err(error) => {
            let message = format!("namespace {name} cannot be read: {}", shown(&error));
            let advice = format!("It needs the label {LABEL}=privileged: agents use host paths");
            return findings.warn("pod-security", message, advice);
        }
    };
    let Some(namespace) = namespace else {
        let message = format!("namespace {name} does not exist yet");
        let advice = format!(
            "Create it with the label that agents need: kubectl create namespace {name} && kubectl label namespace {name} {LABEL}=privileged"
        );
        return findings.warn("pod-security", message, advice);
    };
    match namespace.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL)).map(String::as_str) {
        Some("privileged") => findings.ok("pod-security", format!("namespace {name} admits privileged pods")),
        Some(level) => findings.fail(
            "pod-security",
            format!("namespace {name} enforces the Pod Security Standard {level}, which the agents' pods do not meet"),
            format!("kubectl label --overwrite namespace {name} {LABEL}=privileged"),
        ),
        None => findings.warn(
            "pod-security",
            format!("namespace {name} has no label {LABEL}, so the default of the cluster holds"),
            format!("If agents are refused: kubectl label namespace {name} {LABEL}=privileged"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_of_whole_seconds_agrees_with_each_time_in_its_second() {
        let at = |millis: i64| Timestamp::from_millisecond(millis).unwrap();
        let by = |date: i64, sent: i64, received: i64| offset(at(date), at(sent), at(received)).as_millis();
        assert_eq!(by(10_000, 10_400, 10_900), 0);
        assert_eq!(by(10_000, 9_900, 10_100), 0, "the answer was made in between");
        assert_eq!(by(10_000, 10_999, 11_200), 0);
        assert_eq!(by(10_000, 15_999, 16_000), 5_000);
        assert_eq!(by(20_000, 9_000, 10_000), 10_000);
    }
}
