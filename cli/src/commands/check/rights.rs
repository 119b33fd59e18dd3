//! What the caller may do, as the API server answers it.

use std::collections::BTreeSet;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};
use sentinel_api::aggregated::{Access, ROWS, Scope};

use super::findings::Findings;
use crate::cluster::Cluster;
use crate::cluster::status::shown;
use crate::exit::Failure;
use crate::roles::Role;

/// A right to ask about.
struct Asked<'a> {
    group: &'a str,
    resource: &'a str,
    subresource: Option<&'a str>,
    verb: &'a str,
    namespace: Option<&'a str>,
}

async fn is_allowed(cluster: &Cluster, asked: &Asked<'_>) -> Result<bool, kube::Error> {
    let text = |text: &str| Some(text.to_owned());
    let attributes = ResourceAttributes {
        group: text(asked.group),
        resource: text(asked.resource),
        subresource: asked.subresource.map(str::to_owned),
        verb: text(asked.verb),
        namespace: asked.namespace.map(str::to_owned),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Kinds of rights, as the `ClusterRole`s of the chart have them.
const ROLES: [(Role, &str); 3] = [
    (Role::TaskViewer, "read Tasks, Runs, Executions and nodes"),
    (Role::LogReader, "read the output of commands"),
    (Role::TaskRunner, "create, change, cancel, rerun and delete Tasks"),
];

/// Which of them has a right.
fn role(access: &Access) -> usize {
    match (access.subresource, access.verb) {
        (Some("log"), _) => 1,
        (_, "get" | "list" | "watch") => 0,
        _ => 2,
    }
}

/// A line for each role: which of its rights the caller has. `installation` is its name, with which those of its roles begin.
pub(super) async fn to_use(
    cluster: &Cluster,
    installation: &str,
    namespace: &str,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let all: BTreeSet<(usize, Access, bool)> = ROWS
        .iter()
        .flat_map(|row| row.access.iter().map(|access| (role(access), *access, row.scope == Scope::Cluster)))
        .collect();
    for (index, (role, what)) in ROLES.iter().enumerate() {
        let mut missing = Vec::new();
        for (_, access, is_cluster) in all.iter().filter(|(of, ..)| *of == index) {
            let Access { group, resource, subresource, verb } = *access;
            let namespace = Some(namespace).filter(|_| !is_cluster);
            match is_allowed(cluster, &Asked { group, resource, subresource, verb, namespace }).await {
                Ok(true) => {}
                Ok(false) => missing.push(format!("{verb} {}.{group}", access.path())),
                Err(error) => {
                    let message = format!("whether you may {what} is not known: {}", shown(&error));
                    return findings.warn(
                        "rights",
                        message,
                        "See what you may do: kubectl auth can-i --list",
                    );
                }
            }
        }
        if missing.is_empty() {
            findings.ok("rights", format!("you may {what} in namespace {namespace}"))?;
        } else {
            let message = format!("you may not {what} in namespace {namespace}: {}", missing.join(", "));
            let name = role.of(installation);
            let advice = format!(
                "If you should: kubectl -n {namespace} create rolebinding NAME --clusterrole={name} --user=YOU; rights to nodes \
                 need a clusterrolebinding"
            );
            findings.warn("rights", message, advice)?;
        }
    }
    Ok(())
}

/// What an installation creates: group, resource, whether in its namespace.
const CREATED: [(&str, &str, bool); 12] = [
    ("apiextensions.k8s.io", "customresourcedefinitions", false),
    ("apiregistration.k8s.io", "apiservices", false),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    ("rbac.authorization.k8s.io", "roles", true),
    ("rbac.authorization.k8s.io", "rolebindings", true),
    ("apps", "deployments", true),
    ("apps", "daemonsets", true),
    ("", "serviceaccounts", true),
    ("", "services", true),
    ("", "secrets", true),
    ("", "configmaps", true),
];

/// Whether the caller may install.
pub(super) async fn to_install(
    cluster: &Cluster,
    namespace: &str,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let mut missing = Vec::new();
    for (group, resource, is_namespaced) in CREATED {
        let namespace = Some(namespace).filter(|_| is_namespaced);
        let asked = Asked { group, resource, subresource: None, verb: "create", namespace };
        match is_allowed(cluster, &asked).await {
            Ok(true) => {}
            Ok(false) if group.is_empty() => missing.push(resource.to_owned()),
            Ok(false) => missing.push(format!("{resource}.{group}")),
            Err(error) => {
                let message = format!("whether you may install is not known: {}", shown(&error));
                return findings.warn("rights", message, "See what you may do: kubectl auth can-i --list");
            }
        }
    }
    if missing.is_empty() {
        findings.ok("rights", format!("you may install into namespace {namespace}"))
    } else {
        let message = format!(
            "you may not install into namespace {namespace}: no right to create {}",
            missing.join(", ")
        );
        findings.fail("rights", message, "Have a cluster administrator install it, or ask for these rights")
    }
}
