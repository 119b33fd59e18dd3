//! Where the real parts are.

use std::path::PathBuf;

use serde::Deserialize;

/// What `tests/parts/up` wrote.
#[derive(Debug, Clone, Deserialize)]
pub struct Parts {
    /// Kubeconfig of a cluster administrator.
    pub kubeconfig: PathBuf,
    /// URL of the API server.
    pub api_server: String,
    /// URL of Redis.
    pub redis_url: String,
    /// URI of the MongoDB-compatible server.
    pub mongodb_uri: String,
    /// Programs that belong to the parts.
    pub bin: Bin,
}

/// Programs that belong to the parts.
#[derive(Debug, Clone, Deserialize)]
pub struct Bin {
    /// The Kubernetes command line.
    pub kubectl: PathBuf,
}

impl Parts {
    /// Reads the file that `SENTINEL_PARTS` names.
    ///
    /// # Panics
    /// When there is none; the message explains how to get one.
    pub fn find() -> Self {
        let Some(file) = std::env::var_os("SENTINEL_PARTS") else {
            panic!(
                "SENTINEL_PARTS is not set: run the tests as `tests/parts/with-parts cargo test -p sentinel-tests`"
            );
        };
        let text = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{} is not a parts file: {error}", file.display()))
    }

    /// A client with all rights.
    pub async fn client(&self) -> kube::Client {
        rustls::crypto::ring::default_provider().install_default().ok();
        let config = kube::config::Kubeconfig::read_from(&self.kubeconfig).expect("a kubeconfig");
        let config =
            kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default())
                .await
                .expect("a usable kubeconfig");
        kube::Client::try_from(config).expect("a client")
    }

    /// The file of a certificate or key of the cluster, for example `front-proxy-client.crt`.
    pub fn pki(&self, file: &str) -> PathBuf {
        self.kubeconfig.parent().expect("a folder").join("pki").join(file)
    }

    /// Runs kubectl and returns what it printed.
    ///
    /// # Errors
    /// Everything it printed, when it failed.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = tokio::process::Command::new(&self.bin.kubectl)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .output()
            .await
            .expect("kubectl starts");
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(text) } else { Err(text) }
    }
}
