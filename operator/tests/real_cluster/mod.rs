//! The real API server, from the file that `tests/parts/up` writes.
#![allow(clippy::print_stderr, reason = "a test that cannot run reports it")]

use std::path::PathBuf;

use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Deserialize;

#[derive(Deserialize)]
struct Parts {
    kubeconfig: PathBuf,
}

/// The real cluster; `None`, with a message on stderr, where there is none. In CI that is a failure.
pub(crate) async fn cluster(test: &str) -> Option<kube::Client> {
    Some(kube::Client::try_from(config(test).await?).unwrap())
}

/// The same as another user.
#[allow(dead_code, reason = "not every test has another user")]
pub(crate) async fn cluster_as(user: &str, test: &str) -> Option<kube::Client> {
    let mut config = config(test).await?;
    config.auth_info.impersonate = Some(user.to_owned());
    Some(kube::Client::try_from(config).unwrap())
}

async fn config(test: &str) -> Option<kube::Config> {
    let Some(path) = std::env::var_os("SENTINEL_PARTS") else {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "SENTINEL_PARTS is not set, and CI must test the real cluster: run through tests/parts/with-parts"
        );
        eprintln!("NOT TESTED on the real cluster, because SENTINEL_PARTS is not set: {test}");
        return None;
    };
    rustls::crypto::ring::default_provider().install_default().ok();
    let parts: Parts = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let kubeconfig = Kubeconfig::read_from(&parts.kubeconfig).unwrap();
    Some(kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap())
}
