//! Presence in Redis: one key per node, `<prefix>presence:<node>`, a JSON text with an expiry.
//!
//! Keys are written in pipelines. When Redis fails, `Circuit` answers for it for a second at a time, so that an
//! outage costs nobody a timeout per call, and is said once in the log and not per call.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::{Client, Cmd, Pipeline, RedisError, RedisResult};
use futures_util::FutureExt as _;
use sentinel_protocol::ids::NodeName;
use tokio::time::Instant;

use super::error::PresenceError;
use super::record::PresenceRecord;
use super::{Answer, Presence};

/// Keys in one round trip.
const PIPELINE: usize = 500;
/// Keys that Redis looks at in one step of a scan.
const SCAN_COUNT: usize = 500;

/// How a [`RedisPresence`] behaves.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Put before every key, so that installations can share a server.
    pub prefix: String,
    /// How long one answer may take.
    pub response_timeout: Duration,
    /// How long opening the connection may take.
    pub connection_timeout: Duration,
    /// How long Redis is left alone after it failed.
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
    connection: ConnectionManager,
    options: RedisOptions,
    /// `host:port`, for errors.
    host: String,
    circuit: Circuit,
}

impl RedisPresence {
    /// Understands the URL. Redis is connected to at the first call, and again by itself after an outage.
    ///
    /// # Errors
    /// [`PresenceError::InvalidUrl`], which repeats no password.
    pub fn new(url: &str, options: RedisOptions) -> Result<Self, PresenceError> {
        let invalid = |error: RedisError| PresenceError::InvalidUrl { message: error.to_string() };
        let client = Client::open(url).map_err(invalid)?;
        let host = client.get_connection_info().addr().to_string();
        // One quick retry; beyond that the circuit decides when to try again.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(20))
            .set_response_timeout(Some(options.response_timeout))
            .set_connection_timeout(Some(options.connection_timeout))
            .set_pipeline_buffer_size(1024);
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(invalid)?;
        Ok(Self { connection, options, host, circuit: Circuit::default() })
    }

    fn key(&self, node: &NodeName) -> String {
        format!("{}presence:{node}", self.options.prefix)
    }

    /// Runs one exchange with Redis, unless it failed a moment ago.
    async fn ask<T>(
        &self,
        action: &'static str,
        exchange: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, PresenceError> {
        let host = || self.host.clone();
        if let Some(again_in) = self.circuit.closed_for() {
            return Err(PresenceError::Away { action, host: host(), again_in });
        }
        match exchange.await {
            Ok(answer) => {
                if self.circuit.succeeded() == Change::Turned {
                    tracing::info!(host = %self.host, "redis is back; presence is mirrored again");
                }
                Ok(answer)
            }
            Err(source) => {
                // A server that answers is not away, even if it declines.
                let is_away = source.is_io_error() || source.is_timeout() || source.is_connection_dropped();
                if is_away && self.circuit.failed(self.options.pause) == Change::Turned {
                    tracing::warn!(host = %self.host, error = %source, "redis is away; presence is not mirrored meanwhile");
                }
                Err(PresenceError::Redis { action, host: host(), source })
            }
        }
    }

    async fn keys(&self) -> Result<Vec<String>, PresenceError> {
        let pattern = format!("{}presence:*", escape_glob(&self.options.prefix));
        let mut keys = Vec::new();
        let mut cursor = 0_u64;
        loop {
            let mut scan = ::redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
            let (next, some): (u64, Vec<String>) = self.ask("list presence", self.query(&scan)).await?;
            keys.extend(some);
            if next == 0 {
                break;
            }
            cursor = next;
        }
        // SCAN may say a key twice.
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    async fn query<T: ::redis::FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        command.query_async(&mut self.connection.clone()).await
    }

    async fn pipeline(&self, pipeline: &Pipeline) -> RedisResult<()> {
        pipeline.exec_async(&mut self.connection.clone()).await
    }
}

impl Presence for RedisPresence {
    fn renew(&self, records: Vec<PresenceRecord>, ttl: Duration) -> Answer<'_, ()> {
        async move {
            let seconds = ttl.as_secs().max(1);
            for some in records.chunks(PIPELINE) {
                let mut pipeline = ::redis::pipe();
                for record in some {
                    let text = serde_json::to_string(record)
                        .map_err(|source| PresenceError::Unwritable { source })?;
                    pipeline.cmd("SET").arg(self.key(&record.node)).arg(text).arg("EX").arg(seconds).ignore();
                }
                self.ask("renew presence", self.pipeline(&pipeline)).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn withdraw(&self, nodes: Vec<NodeName>) -> Answer<'_, ()> {
        async move {
            for some in nodes.chunks(PIPELINE) {
                let mut command = ::redis::cmd("DEL");
                command.arg(some.iter().map(|node| self.key(node)).collect::<Vec<_>>());
                let _removed: u64 = self.ask("withdraw presence", self.query(&command)).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn list(&self) -> Answer<'_, Vec<PresenceRecord>> {
        async move {
            let keys = self.keys().await?;
            let mut records = Vec::with_capacity(keys.len());
            for some in keys.chunks(PIPELINE) {
                let mut command = ::redis::cmd("MGET");
                command.arg(some);
                let texts: Vec<Option<String>> = self.ask("list presence", self.query(&command)).await?;
                // Missing ones expired in between; others' keys that look like ours are passed over.
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

    fn check(&self) -> Answer<'_, ()> {
        async move {
            let _pong: String = self.ask("check", self.query(&::redis::cmd("PING"))).await?;
            Ok(())
        }
        .boxed()
    }
}

/// A prefix may hold what SCAN takes for a pattern.
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

/// Whether the other side is left alone for now.
#[derive(Debug, Default)]
struct Circuit(Mutex<CircuitState>);

#[derive(Debug, Default)]
struct CircuitState {
    is_down: bool,
    closed_until: Option<Instant>,
}

/// Whether an outage began or ended.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Turned,
    Same,
}

impl Circuit {
    fn state(&self) -> MutexGuard<'_, CircuitState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closed_for(&self) -> Option<Duration> {
        let left = self.state().closed_until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    fn failed(&self, pause: Duration) -> Change {
        let mut state = self.state();
        state.closed_until = Some(Instant::now() + pause);
        if std::mem::replace(&mut state.is_down, true) { Change::Same } else { Change::Turned }
    }

    fn succeeded(&self) -> Change {
        let mut state = self.state();
        state.closed_until = None;
        if std::mem::replace(&mut state.is_down, false) { Change::Turned } else { Change::Same }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_taken_by_its_letters() {
        assert_eq!(escape_glob("a*b[c]:"), r"a\*b\[c\]:");
    }

    #[test]
    fn a_circuit_says_an_outage_once_and_opens_by_itself() {
        let circuit = Circuit::default();
        assert_eq!(circuit.failed(Duration::from_mins(1)), Change::Turned);
        assert!(circuit.closed_for().is_some());
        assert_eq!(circuit.failed(Duration::ZERO), Change::Same);
        assert!(circuit.closed_for().is_none(), "its pause is over");
        assert_eq!(circuit.succeeded(), Change::Turned);
        assert_eq!(circuit.succeeded(), Change::Same);
    }
}
