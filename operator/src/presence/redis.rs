//! Presence in Redis: one key per node, `<prefix>presence:<node>`, a JSON text with an expiry.
//!
//! Keys are written in pipelines. When Redis is unreachable, a circuit breaker fails calls at once for a second at a time,
//! so that an outage does not cost a timeout per call, and is logged once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::{
    Client, ClientTlsConfig, Cmd, ConnectionAddr, Pipeline, RedisError, RedisResult, TlsCertificates,
};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sentinel_protocol::ids::NodeName;
use tokio::time::Instant;

use super::error::PresenceError;
use super::record::PresenceRecord;
use super::store::{Presence, PresenceFuture};
use crate::credentials::{ClientPem, CredentialFiles, Credentials, Reconnect, ReconnectError, Store};

/// Keys per round trip.
const PIPELINE: usize = 500;
/// Keys that Redis examines in one step of a scan.
const SCAN_COUNT: usize = 500;
const PROVE: &str = "use the changed credentials";

/// How a [`RedisPresence`] behaves.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Prefix of every key, so that installations can share a server.
    pub prefix: String,
    /// How long one response may take.
    pub response_timeout: Duration,
    /// How long opening the connection may take.
    pub connection_timeout: Duration,
    /// How long the circuit stays open after a failure.
    pub pause: Duration,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            prefix: "sentinel:".to_owned(),
            response_timeout: Duration::from_secs(1),
            connection_timeout: Duration::from_secs(1),
            pause: Duration::from_secs(1),
        }
    }
}

/// Presence in Redis.
pub struct RedisPresence {
    /// What calls begin on.
    current: RwLock<Connection>,
    options: RedisOptions,
    breaker: CircuitBreaker,
}

/// A client that connects when it is first used, and what its errors name.
#[derive(Clone)]
struct Connection {
    manager: ConnectionManager,
    /// `host:port`.
    address: Arc<str>,
    host: Arc<str>,
    files: Option<Arc<CredentialFiles>>,
}

impl RedisPresence {
    /// Parses the URL. The client connects at the first call and reconnects after an outage.
    ///
    /// # Errors
    /// [`PresenceError::InvalidUrl`], which does not repeat a password.
    pub fn new(url: &str, options: RedisOptions) -> Result<Self, PresenceError> {
        Self::connect(&Credentials::of_url(Store::Redis, url), options)
    }

    /// The same with a CA and a client certificate. Logs a warning if the connection can be read on its way.
    ///
    /// # Errors
    /// As [`RedisPresence::new`].
    pub fn connect(credentials: &Credentials, options: RedisOptions) -> Result<Self, PresenceError> {
        let connection = Connection::new(credentials, &options)?;
        credentials.warn_if_readable(std::iter::once(&*connection.host));
        Ok(Self { current: RwLock::new(connection), options, breaker: CircuitBreaker::default() })
    }

    fn current(&self) -> Connection {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn key(&self, node: &NodeName) -> String {
        format!("{}presence:{node}", self.options.prefix)
    }

    /// Awaits one exchange with Redis, unless the circuit is open.
    async fn call<T>(
        &self,
        action: &'static str,
        exchange: impl AsyncFnOnce(ConnectionManager) -> RedisResult<T>,
    ) -> Result<T, PresenceError> {
        let Connection { manager, address, files, .. } = self.current();
        if let Some(retry_in) = self.breaker.open_for() {
            return Err(PresenceError::CircuitOpen { action, host: address.to_string(), retry_in });
        }
        match exchange(manager).await {
            Ok(response) => {
                self.answered(&address);
                Ok(response)
            }
            Err(source) => {
                // A server that responds is available, even if it refuses.
                let is_unreachable =
                    source.is_io_error() || source.is_timeout() || source.is_connection_dropped();
                let is_new = is_unreachable && self.breaker.failed(self.options.pause);
                let error = failed(action, &address, files.as_deref(), source);
                if is_new {
                    let category = error.category();
                    tracing::warn!(%error, category, "Redis is unavailable; presence is not mirrored");
                }
                Err(error)
            }
        }
    }

    fn answered(&self, address: &str) {
        if self.breaker.succeeded() {
            tracing::info!(host = address, "Redis is available again; presence is mirrored");
        }
    }

    /// Connects with other credentials, proves that they suffice for what this store does, and swaps the connection.
    async fn replace(&self, credentials: &Credentials) -> Result<(), PresenceError> {
        let next = Connection::new(credentials, &self.options)?;
        // A right to write is needed for this, and nothing is written: no node has this name.
        let mut proof = ::redis::cmd("SET");
        proof.arg(format!("{}presence:.", self.options.prefix)).arg("").arg("XX");
        let proven: RedisResult<Option<String>> = proof.query_async(&mut next.manager.clone()).await;
        proven.map_err(|error| failed(PROVE, &next.address, next.files.as_deref(), error))?;
        credentials.warn_if_readable(std::iter::once(&*next.host));
        let address = next.address.clone();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        self.answered(&address);
        Ok(())
    }

    async fn keys(&self) -> Result<Vec<String>, PresenceError> {
        let pattern = format!("{}presence:*", escape_glob(&self.options.prefix));
        let mut keys = Vec::new();
        let mut cursor = 0_u64;
        loop {
            let mut scan = ::redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
            let (next, found): (u64, Vec<String>) = self.query("list presence", &scan).await?;
            keys.extend(found);
            if next == 0 {
                break;
            }
            cursor = next;
        }
        // SCAN may return a key twice.
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    async fn query<T: ::redis::FromRedisValue>(
        &self,
        action: &'static str,
        command: &Cmd,
    ) -> Result<T, PresenceError> {
        self.call(action, async |mut connection| command.query_async(&mut connection).await).await
    }

    async fn pipeline(&self, action: &'static str, pipeline: &Pipeline) -> Result<(), PresenceError> {
        self.call(action, async |mut connection| pipeline.exec_async(&mut connection).await).await
    }
}

impl Connection {
    fn new(credentials: &Credentials, options: &RedisOptions) -> Result<Self, PresenceError> {
        let invalid = |error: RedisError| PresenceError::InvalidUrl { message: error.to_string() };
        let client = match (credentials.ca(), credentials.client()) {
            (None, None) => Client::open(credentials.url()),
            (ca, client) => {
                let client_tls = client.map(|ClientPem { certificate, key }| ClientTlsConfig {
                    client_cert: certificate.clone(),
                    client_key: key.clone(),
                });
                let root_cert = ca.map(<[u8]>::to_vec);
                Client::build_with_tls(credentials.url(), TlsCertificates { client_tls, root_cert })
            }
        };
        let client = client.map_err(invalid)?;
        let address = client.get_connection_info().addr();
        let host = match address {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.as_str().into(),
            other => other.to_string().into(),
        };
        let address = address.to_string().into();
        // One quick retry; beyond that the circuit breaker decides when to try again.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(20))
            .set_response_timeout(Some(options.response_timeout))
            .set_connection_timeout(Some(options.connection_timeout))
            .set_pipeline_buffer_size(1024);
        let manager = ConnectionManager::new_lazy_with_config(client, config).map_err(invalid)?;
        let files = credentials.files().cloned().map(Arc::new);
        Ok(Self { manager, address, host, files })
    }
}

impl Reconnect for RedisPresence {
    fn reconnect(&self, credentials: Arc<Credentials>) -> BoxFuture<'_, Result<(), ReconnectError>> {
        async move { Ok(self.replace(&credentials).await?) }.boxed()
    }
}

fn failed(
    action: &'static str,
    address: &str,
    files: Option<&CredentialFiles>,
    source: RedisError,
) -> PresenceError {
    let advice = files.and_then(|files| files.advice(&source.to_string()));
    PresenceError::Redis { action, host: address.to_owned(), advice, source: Box::new(source) }
}

impl Presence for RedisPresence {
    fn renew(&self, records: Vec<PresenceRecord>, ttl: Duration) -> PresenceFuture<'_, ()> {
        async move {
            let seconds = ttl.as_secs().max(1);
            for chunk in records.chunks(PIPELINE) {
                let mut pipeline = ::redis::pipe();
                for record in chunk {
                    let text = serde_json::to_string(record)
                        .map_err(|source| PresenceError::Unserializable { source })?;
                    pipeline.cmd("SET").arg(self.key(&record.node)).arg(text).arg("EX").arg(seconds).ignore();
                }
                self.pipeline("renew presence", &pipeline).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn list(&self) -> PresenceFuture<'_, Vec<PresenceRecord>> {
        async move {
            let keys = self.keys().await?;
            let mut records = Vec::with_capacity(keys.len());
            for chunk in keys.chunks(PIPELINE) {
                let mut command = ::redis::cmd("MGET");
                command.arg(chunk);
                let texts: Vec<Option<String>> = self.query("list presence", &command).await?;
                // Missing values expired in between; keys of other programs are skipped.
                records.extend(
                    texts
                        .into_iter()
                        .flatten()
                        .filter_map(|text| serde_json::from_str::<PresenceRecord>(&text).ok()),
                );
            }
            records.sort_unstable_by(|a, b| a.node.cmp(&b.node));
            Ok(records)
        }
        .boxed()
    }

    fn check(&self) -> PresenceFuture<'_, ()> {
        async move {
            let _pong: String = self.query("check", &::redis::cmd("PING")).await?;
            Ok(())
        }
        .boxed()
    }
}

/// Escapes the characters that are special in a pattern of SCAN.
fn escape_glob(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if "*?[]\\^".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Fails calls at once for a while after Redis was unreachable. Our own, because the crates for it wrap a service or need
/// a policy for each call; this is two fields.
#[derive(Debug, Default)]
struct CircuitBreaker(Mutex<BreakerState>);

#[derive(Debug, Default)]
struct BreakerState {
    is_down: bool,
    open_until: Option<Instant>,
}

impl CircuitBreaker {
    fn state(&self) -> MutexGuard<'_, BreakerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the circuit stays open; `None` while it is closed.
    fn open_for(&self) -> Option<Duration> {
        let left = self.state().open_until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Opens the circuit; returns whether an outage began.
    fn failed(&self, pause: Duration) -> bool {
        let mut state = self.state();
        state.open_until = Some(Instant::now() + pause);
        !std::mem::replace(&mut state.is_down, true)
    }

    /// Closes the circuit; returns whether an outage ended.
    fn succeeded(&self) -> bool {
        let mut state = self.state();
        state.open_until = None;
        std::mem::replace(&mut state.is_down, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_patterns_in_the_prefix() {
        assert_eq!(escape_glob("a*b[c]:"), r"a\*b\[c\]:");
    }

    #[test]
    fn breaker_reports_an_outage_once_and_closes_after_its_pause() {
        let breaker = CircuitBreaker::default();
        assert!(breaker.failed(Duration::from_mins(1)), "the outage begins");
        assert!(breaker.open_for().is_some());
        assert!(!breaker.failed(Duration::ZERO), "the outage was reported before");
        assert!(breaker.open_for().is_none(), "the pause is over");
        assert!(breaker.succeeded(), "the outage ends");
        assert!(!breaker.succeeded());
    }
}
