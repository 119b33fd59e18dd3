//! The validated configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sentinel_protocol::ids::Namespace;
use sentinel_viewer::BasePath;

use super::error::ConfigError;
use super::flags::Flags;
use super::secret_file::read_token;
use super::values::{LeaseName, Redis, ServiceAccount, Storage, TlsFiles};
use crate::http::guard::Secret;
use crate::telemetry::LogFormat;

/// The validated configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Store of Runs, results and output.
    pub storage: Storage,
    /// Where presence is mirrored; in memory only without it.
    pub redis: Option<Redis>,
    /// How long History keeps what has ended.
    pub retention: Duration,
    /// Address for node agents.
    pub gateway_listen: SocketAddr,
    /// Certificate and key of the gateway.
    pub gateway_tls: Option<TlsFiles>,
    /// Address of the HTTP API.
    pub api_listen: SocketAddr,
    /// The bearer token for the HTTP API.
    pub api_token: Option<Secret>,
    /// Unix socket of the HTTP API.
    pub api_socket: Option<PathBuf>,
    /// Where an ingress has web page and API, besides the root.
    pub base_path: BasePath,
    /// Address for metrics and probes.
    pub metrics_listen: SocketAddr,
    /// Audience of agents' tokens.
    pub token_audience: String,
    /// ServiceAccount of the agents.
    pub agent_service_account: ServiceAccount,
    /// Kubeconfig file.
    pub kubeconfig: Option<PathBuf>,
    /// The Lease for leader election; `None` leads without an election.
    pub lease: Option<LeaseName>,
    /// Where agents reach this operator instance.
    pub advertise: Option<String>,
    /// The only namespace whose Tasks are watched; `None` for all.
    pub watch_namespace: Option<Namespace>,
    /// How long to wait for History at shutdown.
    pub drain: Duration,
    /// Format of the log.
    pub log_format: LogFormat,
    /// Log filter.
    pub log: String,
}

impl Flags {
    /// Validates the flags and reads the files they name.
    ///
    /// # Errors
    /// [`ConfigError`], which names the flag and what is allowed.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        if !self.api_listen.ip().is_loopback() {
            return Err(ConfigError::ApiNotLoopback { address: self.api_listen });
        }
        self.addresses_differ()?;
        Ok(Config {
            storage: self.stores.storage()?,
            redis: self.stores.redis()?,
            retention: self.stores.retention,
            gateway_listen: self.gateway_listen,
            gateway_tls: self
                .gateway_tls_cert_file
                .zip(self.gateway_tls_key_file)
                .map(|(cert, key)| TlsFiles { cert, key }),
            api_listen: self.api_listen,
            api_token: self.api_token_file.as_deref().map(read_token).transpose()?,
            api_socket: self.api_socket,
            base_path: self.base_path,
            metrics_listen: self.metrics_listen,
            token_audience: self.token_audience,
            agent_service_account: self.agent_service_account,
            kubeconfig: self.kubeconfig,
            watch_namespace: self.watch_namespace,
            lease: (!self.no_leader_election)
                .then_some(LeaseName { name: self.lease_name, namespace: self.lease_namespace }),
            advertise: self.advertise,
            drain: self.drain,
            log_format: self.log_format,
            log: self.log,
        })
    }

    fn addresses_differ(&self) -> Result<(), ConfigError> {
        let listeners = [
            ("gateway-listen", self.gateway_listen),
            ("api-listen", self.api_listen),
            ("metrics-listen", self.metrics_listen),
        ];
        for (index, (one, address)) in listeners.iter().enumerate() {
            for (other, same) in &listeners[index + 1..] {
                if address == same && address.port() != 0 {
                    return Err(ConfigError::SameAddress { one, other, address: *address });
                }
            }
        }
        Ok(())
    }
}
