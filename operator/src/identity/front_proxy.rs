//! The API server's front proxy: which certificates are its, and in which headers it names its client. The cluster publishes
//! both in the `ConfigMap` `extension-apiserver-authentication` of `kube-system`, and may change them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::HeaderName;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use sentinel_telemetry::causes;
use tokio_util::sync::CancellationToken;

use super::people::LiveRules;
use super::proxy::ProxyRules;
use crate::expiry::{self, Expiries, Purpose};
use crate::metrics::Registry;
use crate::server::tls::{ClientAuthorities, Reloaded, Reloads, TlsError};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// How often it is read.
pub const EVERY: Duration = Duration::from_secs(30);

/// Pause after a failure, while nothing is known yet.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Why the front proxy is not known.
#[derive(Debug, thiserror::Error)]
pub enum FrontProxyError {
    /// The `ConfigMap` could not be read.
    #[error(
        "failed to read ConfigMap {NAMESPACE}/{NAME}, which has the certificate of the API server's front proxy"
    )]
    Read(#[source] Box<kube::Error>),
    /// It does not have what it should.
    #[error(
        "ConfigMap {NAMESPACE}/{NAME} has no usable {key}: {why}; the API server needs --requestheader-client-ca-file and its other \
         flags of the aggregation layer"
    )]
    Content {
        /// The key.
        key: &'static str,
        /// The reason.
        why: String,
    },
    /// The authorities cannot be used.
    #[error(transparent)]
    Authorities(#[from] TlsError),
}

impl FrontProxyError {
    /// The kind of error, one of a fixed set.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Read(_) => "Read",
            Self::Content { .. } => "Content",
            Self::Authorities(error) => error.category(),
        }
    }

    /// Always: the cluster may publish it later.
    pub fn is_retryable(&self) -> bool {
        true
    }
}

/// The front proxy, as the cluster publishes it.
#[derive(Debug)]
pub struct FrontProxy {
    maps: Api<ConfigMap>,
    authorities: ClientAuthorities,
    rules: LiveRules,
    read: (String, ProxyRules),
    reloads: Reloads,
    expiries: Expiries,
}

impl FrontProxy {
    /// Reads it for the first time.
    ///
    /// # Errors
    /// [`FrontProxyError`] of the last attempt, when there is none `within` that time.
    pub async fn first(
        client: Client,
        within: Duration,
        metrics: &Registry,
    ) -> Result<Self, FrontProxyError> {
        let (reloads, expiries) = (Reloads::new(metrics, Reloaded::FrontProxy), Expiries::new(metrics));
        let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
        let deadline = tokio::time::Instant::now() + within;
        loop {
            match read(&maps).await {
                Ok((pem, rules)) => {
                    let authorities = ClientAuthorities::from_pem(NAME, pem.as_bytes())?;
                    let live = Arc::new(RwLock::new(rules.clone()));
                    expiries.set(Purpose::FrontProxyAuthority, expiry::of_authorities(pem.as_bytes()));
                    return Ok(Self {
                        maps,
                        authorities,
                        rules: live,
                        read: (pem, rules),
                        reloads,
                        expiries,
                    });
                }
                Err(error) if tokio::time::Instant::now() + AFTER_FAILURE > deadline => return Err(error),
                Err(error) => {
                    tracing::warn!(error = causes(&error), "will try again");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// The authorities of its certificate.
    pub fn authorities(&self) -> ClientAuthorities {
        self.authorities.clone()
    }

    /// In which headers it names its client.
    pub fn rules(&self) -> LiveRules {
        self.rules.clone()
    }

    /// Reads it again every `every` until `stop`; what cannot be used is reported, and the last one stays.
    pub async fn keep_current(mut self, every: Duration, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            if let Err(error) = self.refresh().await {
                self.reloads.failed(error.category());
                let error = causes(&error);
                tracing::warn!(error, "unable to read who the front proxy is; the last known one stays");
            }
        }
    }

    async fn refresh(&mut self) -> Result<(), FrontProxyError> {
        let (pem, rules) = read(&self.maps).await?;
        if (&pem, &rules) == (&self.read.0, &self.read.1) {
            return Ok(());
        }
        self.authorities.replace(NAME, pem.as_bytes())?;
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules.clone();
        self.expiries.set(Purpose::FrontProxyAuthority, expiry::of_authorities(pem.as_bytes()));
        self.read = (pem, rules);
        self.reloads.succeeded();
        tracing::info!("the cluster's front proxy has changed");
        Ok(())
    }
}

async fn read(maps: &Api<ConfigMap>) -> Result<(String, ProxyRules), FrontProxyError> {
    let map = maps.get(NAME).await.map_err(|error| FrontProxyError::Read(Box::new(error)))?;
    parse(&map.data.unwrap_or_default())
}

fn parse(data: &BTreeMap<String, String>) -> Result<(String, ProxyRules), FrontProxyError> {
    const CA: &str = "requestheader-client-ca-file";
    let pem = data.get(CA).filter(|pem| !pem.trim().is_empty());
    let missing = || FrontProxyError::Content { key: CA, why: "it is missing".to_owned() };
    let pem = pem.cloned().ok_or_else(missing)?;
    let rules = ProxyRules {
        names: list(data, "requestheader-allowed-names")?,
        user: headers(data, "requestheader-username-headers")?,
        groups: headers(data, "requestheader-group-headers")?,
        separator: None,
        extra: list(data, "requestheader-extra-headers-prefix")?
            .into_iter()
            .map(|prefix| prefix.to_ascii_lowercase())
            .collect(),
        uid: headers(data, "requestheader-uid-headers")?,
    };
    if rules.user.is_empty() {
        let key = "requestheader-username-headers";
        return Err(FrontProxyError::Content { key, why: "it names no header".to_owned() });
    }
    Ok((pem, rules))
}

/// A list of texts as JSON; empty where the key is missing.
fn list(data: &BTreeMap<String, String>, key: &'static str) -> Result<Vec<String>, FrontProxyError> {
    let Some(text) = data.get(key).filter(|text| !text.trim().is_empty()) else { return Ok(Vec::new()) };
    serde_json::from_str(text).map_err(|error| FrontProxyError::Content { key, why: error.to_string() })
}

fn headers(data: &BTreeMap<String, String>, key: &'static str) -> Result<Vec<HeaderName>, FrontProxyError> {
    let wrong =
        |name: &str| FrontProxyError::Content { key, why: format!("{name:?} is not the name of a header") };
    list(data, key)?.iter().map(|name| name.parse().map_err(|_| wrong(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_a_cluster_publishes_is_read() {
        let published = data(&[
            ("requestheader-client-ca-file", "PEM"),
            ("requestheader-allowed-names", "[\"front-proxy-client\"]"),
            ("requestheader-username-headers", "[\"X-Remote-User\"]"),
            ("requestheader-group-headers", "[\"X-Remote-Group\"]"),
            ("requestheader-extra-headers-prefix", "[\"X-Remote-Extra-\"]"),
            ("client-ca-file", "the authority of users is not that of the proxy"),
        ]);
        let (pem, rules) = parse(&published).unwrap();
        assert_eq!((pem.as_str(), rules.names), ("PEM", vec!["front-proxy-client".to_owned()]));
        assert_eq!((rules.user[0].as_str(), rules.extra[0].as_str()), ("x-remote-user", "x-remote-extra-"));
    }

    #[test]
    fn a_cluster_without_an_aggregation_layer_has_no_front_proxy() {
        let error = parse(&data(&[("client-ca-file", "PEM")])).unwrap_err().to_string();
        assert!(error.contains("--requestheader-client-ca-file"), "{error}");
        let no_user =
            data(&[("requestheader-client-ca-file", "PEM"), ("requestheader-username-headers", "[]")]);
        assert!(parse(&no_user).is_err());
        let broken = data(&[("requestheader-client-ca-file", "PEM"), ("requestheader-allowed-names", "x")]);
        assert!(parse(&broken).is_err());
    }
}
