//! The validated configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sentinel_protocol::ids::Namespace;
use sentinel_telemetry::LogFormat;
use sentinel_viewer::BasePath;

use super::error::ConfigError;
use super::flags::Flags;
use super::secret_file::read_token;
use super::transport_flags::MetricsAuth;
use super::values::{Admission, ApiAuth, Certificate, LeaseName, Redis, ServiceAccount, Storage};
use crate::audit::AuditOptions;
use crate::controller::CurrentCeilings;

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
    /// The certificate of every listener.
    pub certificate: Certificate,
    /// Address of the HTTP API.
    pub api_listen: SocketAddr,
    /// Who may use the HTTP API.
    pub api_auth: ApiAuth,
    /// Address of the aggregated API.
    pub aggregated_listen: Option<SocketAddr>,
    /// The admission webhook.
    pub admission: Option<Admission>,
    /// How far Tasks may reach.
    pub ceilings: CurrentCeilings,
    /// Who may read metrics.
    pub metrics_auth: MetricsAuth,
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
    /// Where audit records go.
    pub audit: AuditOptions,
    /// Format of the log.
    pub log_format: LogFormat,
    /// Log filter.
    pub log: String,
    /// File with a log filter that replaces it.
    pub log_filter_file: Option<PathBuf>,
    /// URL of the collector of traces.
    pub trace_otlp_endpoint: Option<String>,
}

impl Config {
    /// Names of the Secrets that the operator keeps its own keys in, in its own namespace.
    pub fn own_secrets(&self) -> Vec<&str> {
        let certificate = match &self.certificate {
            Certificate::Generated(generated) => Some(generated.secret.as_str()),
            _ => None,
        };
        certificate
            .into_iter()
            .chain(self.admission.as_ref().map(|admission| admission.secret.as_str()))
            .collect()
    }
}

impl Flags {
    /// Validates the flags and reads the files they name.
    ///
    /// # Errors
    /// [`ConfigError`], which names the flag and what is allowed.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        self.addresses_differ()?;
        let token = self.api_token_file.as_deref().map(read_token).transpose()?;
        let api_auth = self.people.api_auth(token)?;
        if !self.api_listen.ip().is_loopback() && api_auth == ApiAuth::Open {
            return Err(ConfigError::ApiNotLoopback { address: self.api_listen });
        }
        let certificate = self.encrypted()?;
        let ceilings = self.ceilings_file.map(CurrentCeilings::of_file).transpose()?;
        let storage = self.stores.storage()?;
        Ok(Config {
            audit: self.audit.options(&storage),
            storage,
            redis: self.stores.redis()?,
            retention: self.stores.retention,
            gateway_listen: self.gateway_listen,
            certificate,
            api_listen: self.api_listen,
            api_auth,
            aggregated_listen: self.people.aggregated_listen,
            admission: self.admission.admission(),
            ceilings: ceilings.unwrap_or_default(),
            metrics_auth: self.people.metrics_auth,
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
            log_filter_file: self.log_filter_file,
            trace_otlp_endpoint: self.trace_otlp_endpoint,
        })
    }

    /// The certificate, without which nothing is served beyond loopback, unless plaintext is allowed.
    fn encrypted(&self) -> Result<Certificate, ConfigError> {
        let certificate = self.tls.certificate(self.admission.admission_webhook.as_deref());
        let has_certificate = matches!(certificate, Certificate::Files(_) | Certificate::Generated(_));
        if self.people.aggregated_listen.is_some() && !has_certificate {
            let needed = "tls-secret or --tls-cert-file";
            return Err(ConfigError::Missing { flag: "aggregated-listen", needed });
        }
        if self.admission.admission_listen.is_some() && !has_certificate {
            let needed = "tls-secret or --tls-cert-file";
            return Err(ConfigError::Missing { flag: "admission-listen", needed });
        }
        if self.people.trusted_proxy_ca_file.is_some() && !has_certificate {
            let needed = "tls-secret or --tls-cert-file";
            return Err(ConfigError::Missing { flag: "trusted-proxy-ca-file", needed });
        }
        if certificate == Certificate::None
            && let Some((flag, address)) =
                self.listeners().into_iter().find(|(_, address)| !address.ip().is_loopback())
        {
            return Err(ConfigError::Plaintext { flag, address });
        }
        Ok(certificate)
    }

    fn listeners(&self) -> Vec<(&'static str, SocketAddr)> {
        let always = [
            ("gateway-listen", self.gateway_listen),
            ("api-listen", self.api_listen),
            ("metrics-listen", self.metrics_listen),
        ];
        let aggregated = self.people.aggregated_listen.map(|address| ("aggregated-listen", address));
        let admission = self.admission.admission_listen.map(|address| ("admission-listen", address));
        always.into_iter().chain(aggregated).chain(admission).collect()
    }

    fn addresses_differ(&self) -> Result<(), ConfigError> {
        let listeners = self.listeners();
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
