//! A test's own namespace of the real cluster: a namespace, Node objects, and tokens for agents that no kubelet starts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Container, Namespace, Node, Pod, PodSpec, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};

use crate::parts::Parts;
use crate::wait::until;

/// Audience of an agent's token.
pub const AUDIENCE: &str = "sentinel-operator";

/// Name of the agents' ServiceAccount in the test's namespace.
pub const SERVICE_ACCOUNT: &str = "node-agent";

/// A test's own namespace and nodes. Deleted when it is closed; kept for inspection when the test fails.
pub struct TestNamespace {
    /// The parts it lives on.
    pub parts: Parts,
    /// A client with all rights.
    pub client: kube::Client,
    /// Name of the namespace; also the value of the label `sentinel-test` on its nodes.
    pub name: String,
}

impl TestNamespace {
    /// A new namespace with the CRDs installed beside it.
    pub async fn new(test: &str) -> Self {
        Self::on(Parts::find(), test).await
    }

    /// The same on these parts.
    pub async fn on(parts: Parts, test: &str) -> Self {
        let client = parts.client().await;
        install_crds(&parts).await;
        // Nodes are the cluster's: those that a failed test left would be targets of this one.
        let left = kube::api::ListParams::default().labels("sentinel-test");
        Api::<Node>::all(client.clone())
            .delete_collection(&DeleteParams::default(), &left)
            .await
            .expect("no nodes left");
        let suffix = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("{test}-{}", &suffix[..8]);
        let object = Namespace {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        Api::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &object)
            .await
            .expect("a namespace");
        let account = ServiceAccount {
            metadata: ObjectMeta { name: Some(SERVICE_ACCOUNT.into()), ..ObjectMeta::default() },
            ..ServiceAccount::default()
        };
        Api::<ServiceAccount>::namespaced(client.clone(), &name)
            .create(&PostParams::default(), &account)
            .await
            .expect("a service account");
        Self { parts, client, name }
    }

    /// Full name of a node of this test.
    pub fn node_name(&self, short: &str) -> String {
        format!("{short}.{}", self.name)
    }

    /// Makes a Node object, labelled as this test's.
    pub async fn node(&self, short: &str, labels: &[(&str, &str)]) -> String {
        let name = self.node_name(short);
        let mut all = BTreeMap::from([("sentinel-test".to_owned(), self.name.clone())]);
        all.extend(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let node = Node {
            metadata: ObjectMeta { name: Some(name.clone()), labels: Some(all), ..ObjectMeta::default() },
            ..Node::default()
        };
        Api::<Node>::all(self.client.clone()).create(&PostParams::default(), &node).await.expect("a node");
        name
    }

    /// A token as the kubelet would mount it: bound to a Pod of the agents' ServiceAccount on that node.
    pub async fn agent_token(&self, node: &str) -> String {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.name);
        let name = format!("agent-{}", node.split('.').next().unwrap_or("x"));
        let pod = Pod {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            spec: Some(PodSpec {
                node_name: Some(node.to_owned()),
                service_account_name: Some(SERVICE_ACCOUNT.into()),
                containers: vec![Container {
                    name: "agent".into(),
                    image: Some("none".into()),
                    ..Container::default()
                }],
                ..PodSpec::default()
            }),
            ..Pod::default()
        };
        let pod = pods.create(&PostParams::default(), &pod).await.expect("a pod");
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![AUDIENCE.into()],
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(name),
                    uid: pod.metadata.uid,
                }),
                expiration_seconds: Some(3600),
            },
            ..TokenRequest::default()
        };
        let answer = Api::<ServiceAccount>::namespaced(self.client.clone(), &self.name)
            .create_token_request(SERVICE_ACCOUNT, &PostParams::default(), &request)
            .await
            .expect("a token");
        answer.status.expect("a token in the answer").token
    }

    /// `kubectl … -n <namespace>`.
    ///
    /// # Errors
    /// Everything it printed, when it failed.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments);
        self.parts.kubectl(&all).await
    }

    /// Applies YAML text with kubectl.
    ///
    /// # Errors
    /// Everything it printed, when it failed.
    pub async fn apply(&self, yaml: &str) -> Result<String, String> {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a temporary file");
        std::fs::write(file.path(), yaml).expect("a written file");
        self.kubectl(&["apply", "-f", &file.path().to_string_lossy()]).await
    }

    /// Removes the namespace and the nodes.
    pub async fn close(&self) {
        let selector = kube::api::ListParams::default().labels(&format!("sentinel-test={}", self.name));
        Api::<Node>::all(self.client.clone())
            .delete_collection(&DeleteParams::default(), &selector)
            .await
            .expect("nodes deleted");
        Api::<Namespace>::all(self.client.clone())
            .delete(&self.name, &DeleteParams::default())
            .await
            .expect("namespace deleted");
    }
}

/// The repository's folder.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

/// Applies the CRDs of the repository and waits until the API server serves them.
pub async fn install_crds(parts: &Parts) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let api = Api::<CustomResourceDefinition>::all(parts.client().await);
    for file in ["task.yaml", "targetslice.yaml"] {
        let path = repository().join("crds").join(file);
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let crd: CustomResourceDefinition = serde_saphyr::from_str(&text).expect("a CRD");
        let name = crd.metadata.name.clone().expect("a name");
        api.patch(&name, &PatchParams::apply("sentinel-tests").force(), &Patch::Apply(&crd))
            .await
            .expect("applied");
        until("the CRD is established", Duration::from_secs(20), || async {
            let crd = api.get(&name).await.map_err(|error| error.to_string())?;
            let conditions = crd.status.and_then(|status| status.conditions).unwrap_or_default();
            let established = conditions.iter().any(|c| c.type_ == "Established" && c.status == "True");
            if established { Ok(()) } else { Err(format!("{conditions:?}")) }
        })
        .await;
    }
}
