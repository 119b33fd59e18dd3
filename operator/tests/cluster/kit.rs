//! A test's own piece of the real cluster.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use sentinel_operator::cluster::KubeCluster;
use sentinel_operator::metrics::Registry;
use sentinel_operator::resource::crd;
use serde::Deserialize;

/// The fields of the file that `tests/parts/up` writes which these tests read.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Parts {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) bin: Bin,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Bin {
    pub(crate) kubectl: PathBuf,
}

/// The real parts; `None`, with a message, where they are not running. In CI that is a failure.
pub(crate) fn parts(test: &str) -> Option<Parts> {
    let Some(path) = std::env::var_os("SENTINEL_PARTS") else {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "SENTINEL_PARTS is not set, and CI must test the real cluster: run through tests/parts/with-parts"
        );
        eprintln!("NOT TESTED on the real cluster, because SENTINEL_PARTS is not set: {test}");
        return None;
    };
    let text =
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("SENTINEL_PARTS {}: {e}", path.display()));
    Some(serde_json::from_str(&text).unwrap_or_else(|e| panic!("SENTINEL_PARTS {}: {e}", path.display())))
}

impl Parts {
    /// How a cluster admin reaches the API server.
    pub(crate) async fn config(&self) -> kube::Config {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
    }
}

/// A namespace of a test's own, and a client with all rights.
pub(crate) struct Piece {
    pub(crate) cluster: KubeCluster,
    pub(crate) client: kube::Client,
    pub(crate) namespace: String,
    parts: Parts,
}

impl Piece {
    /// A new namespace with our definitions beside it; `None` where there is no real cluster.
    pub(crate) async fn new(test: &str) -> Option<Self> {
        let parts = parts(test)?;
        rustls::crypto::ring::default_provider().install_default().ok();
        let cluster =
            KubeCluster::new(parts.config().await, Some("a-test".into()), &Registry::new()).unwrap();
        let client = cluster.client();
        install(&client).await;
        let suffix = uuid::Uuid::new_v4().simple().to_string();
        let namespace = format!("{test}-{}", &suffix[..8]);
        let metadata = ObjectMeta { name: Some(namespace.clone()), ..ObjectMeta::default() };
        let object = Namespace { metadata, ..Namespace::default() };
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
        Some(Self { cluster, client, namespace, parts })
    }

    /// The output of kubectl; as an error when it failed.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut kubectl = Command::new(&self.parts.bin.kubectl);
        kubectl.arg("--kubeconfig").arg(&self.parts.kubeconfig).args(["-n", &self.namespace]).args(arguments);
        let output = kubectl.output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(text) } else { Err(text) }
    }

    /// Applies YAML text with kubectl.
    pub(crate) fn apply(&self, yaml: &str) -> Result<String, String> {
        self.with_file(&["apply", "--server-side"], yaml)
    }

    /// A dry-run creation of the YAML text.
    pub(crate) fn create_nothing(&self, yaml: &str) -> Result<String, String> {
        self.with_file(&["create", "--dry-run=server"], yaml)
    }

    fn with_file(&self, arguments: &[&str], yaml: &str) -> Result<String, String> {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        std::fs::write(file.path(), yaml).unwrap();
        let path = file.path().to_string_lossy();
        self.kubectl(&[arguments, &["-f", &path]].concat())
    }

    /// Creates Node objects with this test's label, some at a time.
    pub(crate) async fn nodes(&self, names: &[String]) {
        use futures_util::StreamExt;
        let api = Api::<Node>::all(self.client.clone());
        let labels = std::collections::BTreeMap::from([("sentinel-test".to_owned(), self.namespace.clone())]);
        futures_util::stream::iter(names)
            .for_each_concurrent(32, |name| {
                let metadata = ObjectMeta {
                    name: Some(name.clone()),
                    labels: Some(labels.clone()),
                    ..ObjectMeta::default()
                };
                let (api, node) = (api.clone(), Node { metadata, ..Node::default() });
                async move {
                    api.create(&PostParams::default(), &node).await.unwrap();
                }
            })
            .await;
    }

    /// Removes the namespace and the nodes.
    pub(crate) async fn close(self) {
        let ours = ListParams::default().labels(&format!("sentinel-test={}", self.namespace));
        Api::<Node>::all(self.client.clone())
            .delete_collection(&DeleteParams::default(), &ours)
            .await
            .unwrap();
        let namespaces = Api::<Namespace>::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await.unwrap();
    }
}

/// Applies our definitions and waits until the API server serves them.
async fn install(client: &kube::Client) {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for crd in [crd::task_crd().unwrap(), crd::target_slice_crd().unwrap()] {
        let name = crd.metadata.name.clone().unwrap();
        api.patch(&name, &PatchParams::apply("sentinel-tests").force(), &Patch::Apply(&crd)).await.unwrap();
        let established = kube::runtime::wait::await_condition(
            api.clone(),
            &name,
            kube::runtime::conditions::is_crd_established(),
        );
        tokio::time::timeout(Duration::from_secs(20), established)
            .await
            .expect("established in time")
            .unwrap();
    }
}
