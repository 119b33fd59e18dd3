//! The keys by which operators sign who asked, kept in a Secret that all replicas share, and the webhook's path in its
//! configuration. Level, not edge: each round reads everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PostParams};
use kube::{Api, Client};
use ring::rand::{SecureRandom as _, SystemRandom};
use sentinel_telemetry::causes;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::service::path;
use crate::cluster::CallError;
use crate::cluster::client::{OPERATOR_MANAGER, patches_as, writes_as};
use crate::resource::stamp::{KEY_BYTES, Key, Keys, Stamps};

/// How often everything is read.
pub const EVERY: Duration = Duration::from_secs(30);

/// Pause after a failed round.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Time after which every replica has read a new key: until then the earlier one signs.
const KNOWN_AFTER: Duration = Duration::from_mins(1);

/// The key of the Secret with the signing key.
const KEY: &str = "key";

/// The key of the Secret with an earlier one, which is still accepted.
const PREVIOUS: &str = "previous";

/// A round that failed.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The API server refused, or did not answer.
    #[error(transparent)]
    Cluster(#[from] CallError),
    /// The Secret is not there, and the operator may not make it.
    #[error("Secret {name} does not exist, and the operator may not make it: helm upgrade brings it back")]
    Absent {
        /// Its name.
        name: String,
    },
    /// What the Secret has is not a key.
    #[error(
        "{key} of Secret {name} has {bytes} bytes, and a key has {KEY_BYTES}: remove it, and the operator makes one"
    )]
    Unusable {
        /// The Secret.
        name: String,
        /// The key in it.
        key: &'static str,
        /// How long its value is.
        bytes: usize,
    },
    /// The system has no random numbers.
    #[error("failed to make a key: the system has no random numbers")]
    Random,
}

impl KeysError {
    /// The kind of error, one of a fixed set: log field.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Cluster(_) => "Cluster",
            Self::Absent { .. } => "Absent",
            Self::Unusable { .. } => "Unusable",
            Self::Random => "Random",
        }
    }

    /// Always: the next round reads everything again.
    pub fn is_retryable(&self) -> bool {
        true
    }
}

/// A new key.
///
/// # Errors
/// [`KeysError::Random`].
pub fn random_key() -> Result<[u8; KEY_BYTES], KeysError> {
    let mut bytes = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| KeysError::Random)?;
    Ok(bytes)
}

/// Where the keys are, and the webhook that they are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The Secret, in the operator's namespace.
    pub secret: String,
    /// The `MutatingWebhookConfiguration` whose path the operator keeps current.
    pub webhook: Option<String>,
}

/// Keeps the keys.
#[derive(Debug)]
pub struct KeyKeeper {
    secrets: Api<Secret>,
    webhooks: Api<MutatingWebhookConfiguration>,
    kept: Kept,
    stamps: Stamps,
    strayed: Arc<Notify>,
    /// The key that this process saw last, and since when.
    seen: Option<(Key, Instant)>,
}

impl KeyKeeper {
    /// Keeps `stamps` equal to the keys in a Secret of this namespace.
    pub fn new(client: Client, namespace: &str, kept: Kept, stamps: Stamps) -> Self {
        let secrets = Api::namespaced(client.clone(), namespace);
        let strayed = Arc::default();
        Self { secrets, webhooks: Api::all(client), kept, stamps, strayed, seen: None }
    }

    /// To be notified when the webhook is called at a path that is not its own: then everything is read at once.
    pub fn strayed(&self) -> Arc<Notify> {
        self.strayed.clone()
    }

    /// Reads the keys, or makes the first one.
    ///
    /// # Errors
    /// [`KeysError`] of the last round, when there is none `within` that time.
    pub async fn first(&mut self, within: Duration) -> Result<(), KeysError> {
        let deadline = Instant::now() + within;
        loop {
            let Err(error) = self.round().await else { return Ok(()) };
            // Without the path in its configuration the webhook is not called, and everything else works.
            if self.stamps.is_on() {
                report(&error, &self.kept);
                return Ok(());
            }
            if Instant::now() + AFTER_FAILURE > deadline {
                return Err(error);
            }
            report(&error, &self.kept);
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }

    /// Keeps them until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
                () = async {
                    self.strayed.notified().await;
                    // Every client of the port can cause it.
                    tokio::time::sleep(AFTER_FAILURE).await;
                } => {}
            }
            let done = self.round().await;
            // Logged once until it succeeds, not at every attempt.
            if let Err(error) = done.as_ref()
                && !failing
            {
                report(error, &self.kept);
            }
            failing = done.is_err();
        }
    }

    async fn round(&mut self) -> Result<(), KeysError> {
        let data = self.read().await?;
        let (key, previous) = (key_in(&data, KEY, &self.kept)?, key_in(&data, PREVIOUS, &self.kept)?);
        if let Some(key) = key {
            self.put_to_use(key, previous, Instant::now());
        }
        self.keep_path().await
    }

    /// What the Secret has, with a key.
    async fn read(&self) -> Result<BTreeMap<String, ByteString>, KeysError> {
        let name = &self.kept.secret;
        let found = self.secrets.get_opt(name).await.map_err(CallError::of("read", "Secret", name))?;
        let exists = found.is_some();
        let mut secret = found.unwrap_or_default();
        let data = secret.data.get_or_insert_default();
        if data.get(KEY).is_some_and(|key| !key.0.is_empty()) {
            return Ok(std::mem::take(data));
        }
        data.insert(KEY.to_owned(), ByteString(random_key()?.to_vec()));
        secret.metadata.name = Some(name.clone());
        let params = writes_as(OPERATOR_MANAGER);
        // By its version: of two replicas that make one, the first counts.
        let written = if exists {
            self.secrets.replace(name, &params, &secret).await
        } else {
            self.secrets.create(&PostParams { ..params }, &secret).await
        };
        match written {
            Ok(written) => {
                tracing::info!(secret = %name, "key made");
                Ok(written.data.unwrap_or_default())
            }
            Err(kube::Error::Api(status)) if !exists && status.code == 403 => {
                Err(KeysError::Absent { name: name.clone() })
            }
            Err(error) => Err(CallError::of("write", "Secret", name)(error).into()),
        }
    }

    /// A key that is new to this process is accepted at once, and signs when every replica accepts it.
    fn put_to_use(&mut self, key: Key, previous: Option<Key>, now: Instant) {
        let since = match &self.seen {
            Some((seen, since)) if *seen == key => *since,
            Some(_) => now,
            // At its start it does not know for how long the others have had it.
            None => now.checked_sub(KNOWN_AFTER).unwrap_or(now),
        };
        self.seen = Some((key.clone(), since));
        let is_known = now.duration_since(since) >= KNOWN_AFTER;
        self.stamps.set(match previous {
            Some(previous) if !is_known => Keys { signing: Some(previous), others: vec![key] },
            previous => Keys { signing: Some(key), others: previous.into_iter().collect() },
        });
    }

    /// Writes the webhook's path into its configuration, where it is not yet.
    async fn keep_path(&self) -> Result<(), KeysError> {
        let (Some(name), Some(path)) = (&self.kept.webhook, path(&self.stamps)) else { return Ok(()) };
        let kind = "MutatingWebhookConfiguration";
        let found = self.webhooks.get_opt(name).await.map_err(CallError::of("read", kind, name))?;
        let Some(patch) = found.as_ref().and_then(|found| with_path(found, &path)) else { return Ok(()) };
        let params = patches_as(OPERATOR_MANAGER);
        self.webhooks.patch(name, &params, &Patch::Strategic(patch)).await.map_err(CallError::of(
            "write the path of",
            kind,
            name,
        ))?;
        Ok(())
    }
}

/// The change that gives every webhook of a configuration this path; `None` when all have it.
fn with_path(configuration: &MutatingWebhookConfiguration, path: &str) -> Option<Value> {
    let change = |webhook: &MutatingWebhook| {
        let client = &webhook.client_config;
        let changed = match (&client.service, &client.url) {
            (Some(service), _) if service.path.as_deref() != Some(path) => json!({"service": {"path": path}}),
            (None, Some(url)) => {
                let changed = with_path_of(url, path).filter(|changed| changed != url)?;
                json!({"url": changed})
            }
            _ => return None,
        };
        Some(json!({"name": webhook.name, "clientConfig": changed}))
    };
    let changed: Vec<Value> = configuration.webhooks.iter().flatten().filter_map(change).collect();
    (!changed.is_empty()).then(|| json!({"webhooks": changed}))
}

/// The same server with this path: of an operator outside of the cluster.
fn with_path_of(url: &str, path: &str) -> Option<String> {
    let url: http::Uri = url.parse().ok()?;
    Some(format!("{}://{}{path}", url.scheme_str()?, url.authority()?))
}

fn key_in(
    data: &BTreeMap<String, ByteString>,
    key: &'static str,
    kept: &Kept,
) -> Result<Option<Key>, KeysError> {
    let Some(bytes) = data.get(key).map(|bytes| &bytes.0).filter(|bytes| !bytes.is_empty()) else {
        return Ok(None);
    };
    let unusable = |_| KeysError::Unusable { name: kept.secret.clone(), key, bytes: bytes.len() };
    <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).map(|bytes| Some(Key::from(bytes))).map_err(unusable)
}

fn report(error: &KeysError, kept: &Kept) {
    let (secret, category) = (&kept.secret, error.category());
    tracing::warn!(
        error = causes(error), %secret, category,
        "unable to keep the keys of the admission webhook current; those in use stay"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        Key::from([byte; KEY_BYTES])
    }

    fn keeper() -> KeyKeeper {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = crate::cluster::client::client(config, &crate::metrics::Registry::new()).unwrap();
        let kept = Kept { secret: "keys".to_owned(), webhook: None };
        KeyKeeper::new(client, "ns", kept, Stamps::default())
    }

    #[tokio::test]
    async fn a_new_key_signs_once_every_replica_has_read_it() {
        let (mut keeper, begun) = (keeper(), Instant::now());
        keeper.put_to_use(key(1), None, begun);
        assert_eq!(keeper.stamps.keys(), Keys { signing: Some(key(1)), others: Vec::new() });
        let rotated = begun + EVERY;
        keeper.put_to_use(key(2), Some(key(1)), rotated);
        assert_eq!(keeper.stamps.keys(), Keys { signing: Some(key(1)), others: vec![key(2)] });
        keeper.put_to_use(key(2), Some(key(1)), rotated + KNOWN_AFTER);
        assert_eq!(keeper.stamps.keys(), Keys { signing: Some(key(2)), others: vec![key(1)] });
        // Without the earlier one, nothing else can sign.
        keeper.put_to_use(key(3), None, rotated + KNOWN_AFTER);
        assert_eq!(keeper.stamps.keys().signing, Some(key(3)));
    }

    #[tokio::test]
    async fn a_value_that_is_not_a_key_is_refused_with_its_length() {
        let kept = Kept { secret: "keys".to_owned(), webhook: None };
        let data = |bytes: &[u8]| BTreeMap::from([(PREVIOUS.to_owned(), ByteString(bytes.to_vec()))]);
        assert_eq!(key_in(&data(b""), PREVIOUS, &kept).unwrap(), None);
        assert_eq!(key_in(&data(&[5; KEY_BYTES]), PREVIOUS, &kept).unwrap(), Some(key(5)));
        let error = key_in(&data(b"short"), PREVIOUS, &kept).unwrap_err().to_string();
        assert!(error.contains("previous of Secret keys has 5 bytes"), "{error}");
        assert_ne!(random_key().unwrap(), random_key().unwrap());
    }

    #[test]
    fn only_a_path_that_differs_is_written() {
        let with = |client: Value| -> MutatingWebhookConfiguration {
            let webhook = json!({"name": "tasks.sentinelnode.dev", "clientConfig": client,
                "sideEffects": "None", "admissionReviewVersions": ["v1"]});
            serde_json::from_value(json!({"webhooks": [webhook]})).unwrap()
        };
        let of = |path: Option<&str>| with(json!({"service": {"name": "s", "namespace": "n", "path": path}}));
        assert_eq!(with_path(&of(Some("/a")), "/a"), None);
        let patch = with_path(&of(None), "/a").unwrap();
        assert_eq!(patch.pointer("/webhooks/0/clientConfig"), Some(&json!({"service": {"path": "/a"}})));
        assert_eq!(patch.pointer("/webhooks/0/name"), Some(&json!("tasks.sentinelnode.dev")));
        let url = |path: &str| with(json!({"url": format!("https://operator.example:8443{path}")}));
        assert_eq!(with_path(&url("/a"), "/a"), None);
        for other in ["", "/", "/b/c"] {
            let patch = with_path(&url(other), "/a").unwrap();
            let changed = json!({"url": "https://operator.example:8443/a"});
            assert_eq!(patch.pointer("/webhooks/0/clientConfig"), Some(&changed));
        }
    }
}
