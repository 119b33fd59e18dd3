//! The custom resource definitions, against those of this release.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use sentinel_operator::resource::crd;
use serde_json::Value;

use super::findings::Findings;
use crate::cluster::Cluster;
use crate::cluster::status::shown_briefly;
use crate::exit::Failure;

/// What is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// They exist, and are those of this release.
    Equal,
    /// They do not exist, or are those of this release or of another one.
    Fitting,
}

/// Checks them; `namespace` is that of the installation.
pub(super) async fn check(
    cluster: &Cluster,
    wanted: Wanted,
    namespace: &str,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let unmade = |error: serde_json::Error| Failure::new(format!("failed to make a definition: {error}"));
    let definitions = [crd::task_crd().map_err(unmade)?, crd::target_slice_crd().map_err(unmade)?];
    for definition in &definitions {
        one(cluster, definition, wanted, namespace, findings).await?;
    }
    Ok(())
}

async fn one(
    cluster: &Cluster,
    ours: &CustomResourceDefinition,
    wanted: Wanted,
    namespace: &str,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let name = ours.metadata.name.as_deref().unwrap_or_default();
    let found = match api.get_opt(name).await {
        Ok(found) => found,
        Err(error) => {
            let message =
                format!("CustomResourceDefinition {name} cannot be read: {}", shown_briefly(&error));
            let advice = format!("See whether Tasks are served: kubectl api-resources | grep {name}");
            return findings.warn("crds", message, advice);
        }
    };
    let Some(found) = found else {
        return match wanted {
            Wanted::Fitting => findings.ok("crds", format!("{name} is not installed yet")),
            Wanted::Equal => findings.fail(
                "crds",
                format!("CustomResourceDefinition {name} is not installed"),
                missing_advice(namespace),
            ),
        };
    };
    if found.spec.group != ours.spec.group || found.spec.names.kind != ours.spec.names.kind {
        let message = format!("CustomResourceDefinition {name} exists, and is of another product");
        return findings.fail("crds", message, "Remove that product first, or install into another cluster");
    }
    let conditions = found.status.as_ref().and_then(|status| status.conditions.as_ref());
    let is_established =
        conditions.into_iter().flatten().any(|one| one.type_ == "Established" && one.status == "True");
    if !is_established {
        let message =
            format!("CustomResourceDefinition {name} is not established: the API server does not serve it");
        return findings.fail("crds", message, format!("See why: kubectl describe crd {name}"));
    }
    let owner = Owner::of(&found.metadata);
    if wanted == Wanted::Fitting && owner.as_ref().is_none_or(|owner| owner.namespace != namespace) {
        let whose = owner.as_ref().map_or("no Helm release".to_owned(), |owner| format!("release {owner}"));
        let message = format!(
            "CustomResourceDefinition {name} exists and belongs to {whose}: helm install refuses it (invalid ownership metadata)"
        );
        return findings.warn("crds", message, adoption(name, namespace));
    }
    match difference(&versions(&found)?, &versions(ours)?, "spec.versions") {
        None => findings.ok("crds", format!("{name} is that of this release")),
        Some(at) => {
            let message = format!("{name} differs from that of this release at {at}");
            findings.warn("crds", message, upgrade_advice(owner.as_ref()))
        }
    }
}

/// The Helm release that a definition belongs to.
struct Owner {
    namespace: String,
    name: String,
}

impl Owner {
    fn of(metadata: &ObjectMeta) -> Option<Self> {
        let annotation = |name: &str| metadata.annotations.as_ref()?.get(name).cloned();
        let manager = metadata.labels.as_ref()?.get("app.kubernetes.io/managed-by")?;
        let (namespace, name) =
            (annotation("meta.helm.sh/release-namespace")?, annotation("meta.helm.sh/release-name")?);
        (manager == "Helm").then_some(Self { namespace, name })
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

fn missing_advice(namespace: &str) -> String {
    format!(
        "The chart installs it, unless crds.install is false: helm -n {namespace} upgrade RELEASE CHART. With false, apply crds/ of this release by hand"
    )
}

/// How a definition becomes that of this release: by its owner, since a definition that kubectl applies over Helm's has two.
fn upgrade_advice(owner: Option<&Owner>) -> String {
    match owner {
        Some(Owner { namespace, name }) => {
            format!("Its chart upgrades it, with that of the same release as this program: helm -n {namespace} upgrade {name} CHART")
        }
        None => {
            "No Helm release has it, so upgrade it as it was installed: kubectl apply --server-side --force-conflicts -f crds/ of this release"
                .to_owned()
        }
    }
}

/// How a release takes over a definition that exists.
fn adoption(name: &str, namespace: &str) -> String {
    format!(
        "Let the release have it (here its name is sentinel-node):\n\
         kubectl label --overwrite crd {name} app.kubernetes.io/managed-by=Helm\n\
         kubectl annotate --overwrite crd {name} meta.helm.sh/release-name=sentinel-node meta.helm.sh/release-namespace={namespace}\n\
         Or keep it, and install with --set crds.install=false"
    )
}

fn versions(definition: &CustomResourceDefinition) -> Result<Value, Failure> {
    serde_json::to_value(&definition.spec.versions)
        .map_err(|error| Failure::new(format!("failed to read a definition: {error}")))
}

/// The first place where two values differ; what ours leaves out is a default of the API server.
fn difference(found: &Value, ours: &Value, at: &str) -> Option<String> {
    match (found, ours) {
        (Value::Object(found), Value::Object(ours)) => ours.iter().find_map(|(key, value)| {
            let at = format!("{at}.{key}");
            match found.get(key) {
                Some(found) => difference(found, value, &at),
                None if is_empty(value) => None,
                None => Some(at),
            }
        }),
        (Value::Array(found), Value::Array(ours)) if found.len() == ours.len() => {
            let pairs = found.iter().zip(ours).enumerate();
            pairs
                .into_iter()
                .find_map(|(index, (found, ours))| difference(found, ours, &format!("{at}[{index}]")))
        }
        (Value::Number(found), Value::Number(ours)) if found.as_f64() == ours.as_f64() => None,
        _ if found == ours => None,
        _ => Some(at.to_owned()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_of_the_api_server_are_not_a_difference() {
        let ours = json!({"a": {"minimum": 1, "b": false}, "c": [1]});
        assert_eq!(difference(&json!({"a": {"minimum": 1.0, "d": true}, "c": [1]}), &ours, "s"), None);
        let other = json!({"a": {"minimum": 2}, "c": [1]});
        assert_eq!(difference(&other, &ours, "s").as_deref(), Some("s.a.minimum"));
        let longer = json!({"a": {"minimum": 1}, "c": [1, 2]});
        assert_eq!(difference(&longer, &ours, "s").as_deref(), Some("s.c"));
    }
}
