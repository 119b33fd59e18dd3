//! The API server, and what is not ours in its cluster.

use std::time::Duration;

use http::Request;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use sentinel_api::aggregated::TASK_GROUP;
use sentinel_operator::resource::marks::FINALIZER;

use super::findings::Findings;
use crate::cluster::Cluster;
use crate::cluster::status::shown_briefly;
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
            let message =
                format!("{} ({}) does not answer: {}", name.address, name.source, shown_briefly(&error));
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
            format!("whether the API server serves aggregated APIs is not known: {}", shown_briefly(&error)),
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
            return findings.warn(
                "nodes",
                format!("the nodes cannot be listed: {}", shown_briefly(&error)),
                advice,
            );
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

/// Whether a claim without a class gets a volume, as that of the default installation does.
pub(super) async fn storage(cluster: &Cluster, findings: &mut Findings) -> Result<(), Failure> {
    const DEFAULT: [&str; 2] =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    const ADVICE: &str = "By default, History is on a volume of 10 GiB. Make a class the default, or install with one of: \
                          --set storage.embedded.persistence.storageClass=NAME; \
                          --set storage.embedded.persistence.enabled=false (History is lost with the pod); --set storage.kind=mongodb";
    let classes: Api<StorageClass> = Api::all(cluster.client.clone());
    let listed = match classes.list(&ListParams::default()).await {
        Ok(listed) => listed.items,
        Err(error) => {
            let message =
                format!("whether there is a default StorageClass is not known: {}", shown_briefly(&error));
            return findings.warn("storage", message, ADVICE);
        }
    };
    let is_default = |class: &&StorageClass| {
        let annotations = class.metadata.annotations.as_ref();
        DEFAULT.iter().any(|name| annotations.and_then(|all| all.get(*name)).is_some_and(|is| is == "true"))
    };
    match listed.iter().find(is_default) {
        Some(class) => {
            let name = class.metadata.name.as_deref().unwrap_or_default();
            findings.ok("storage", format!("StorageClass {name} is the default"))
        }
        None => findings.warn(
            "storage",
            format!("none of {} is the default", counted_classes(listed.len())),
            ADVICE,
        ),
    }
}

fn counted_classes(count: usize) -> String {
    if count == 1 { "1 StorageClass".to_owned() } else { format!("{count} StorageClasses") }
}

/// Tasks that were left where no operator is installed: nothing of them runs, and their deletion waits.
pub(super) async fn left_tasks(cluster: &Cluster, findings: &mut Findings) -> Result<(), Failure> {
    const AT_ONCE: u32 = 500;
    let kind = GroupVersionKind::gvk(TASK_GROUP, "v1alpha1", "Task");
    let tasks: Api<DynamicObject> =
        Api::all_with(cluster.client.clone(), &ApiResource::from_gvk_with_plural(&kind, "tasks"));
    let listed = match tasks.list(&ListParams::default().limit(AT_ONCE)).await {
        Ok(listed) => listed,
        // Without the definition there are none.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => {
            let message = format!("whether Tasks are left is not known: {}", shown_briefly(&error));
            return findings.warn("tasks", message, "See them: kubectl get stask -A");
        }
    };
    let more = listed.metadata.remaining_item_count.unwrap_or(0).max(0) as u64;
    let count = listed.items.len() as u64 + more;
    if count == 0 {
        return Ok(());
    }
    let are = if count == 1 { "is" } else { "are" };
    findings.warn(
        "tasks",
        format!(
            "{} {are} left without an operator: nothing of them starts, and their deletion waits for the finalizer {FINALIZER}",
            counted(count, "Task")
        ),
        "An operator that is installed continues them. To remove them, install it and: kubectl delete stask -A --all. Without one, \
             once nothing of them runs on a node: kubectl -n NAMESPACE patch stask NAME --type=merge -p '{\"metadata\":{\"finalizers\":null}}'",
    )
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
