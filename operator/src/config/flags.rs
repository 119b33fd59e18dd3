//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sentinel_protocol::ids::Namespace;
use sentinel_telemetry::LogFormat;
use sentinel_viewer::BasePath;

use super::admission_flags::AdmissionFlags;
use super::audit_flags::AuditFlags;
use super::store_flags::StoreFlags;
use super::transport_flags::{PeopleFlags, TlsFlags};
use super::values::{ServiceAccount, parse_duration, parse_service_account};

/// Exit code for a wrong command line or configuration.
pub const EXIT_CONFIG: u8 = 2;

/// Exit code for every other failure.
pub const EXIT_FAILURE: u8 = 1;

const EXAMPLES: &str = "\
Examples:
  # Against the cluster of the current kubeconfig, with everything else in one directory
  operator --storage embedded --data-dir /var/lib/sentinel

  # As in production: History in MongoDB, presence in Redis, URLs from mounted secrets
  operator --storage mongodb --mongodb-url-file /secrets/mongodb/url --redis-url-file /secrets/redis/url \\
    --gateway-listen 0.0.0.0:7979 --tls-cert-file /tls/tls.crt --tls-key-file /tls/tls.key

Exit codes: 0 stopped on request, 1 failure, 2 usage or configuration error.";

/// The operator of Sentinel Node: decides which nodes run a Task and when, and dispatches to the node agents.
#[derive(Debug, Parser)]
#[command(name = "operator", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// A subcommand; without one, the operator runs.
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// The flags.
    #[command(flatten)]
    pub flags: Flags,
}

/// The subcommands.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Verb {
    /// Print the OpenAPI document of the HTTP API.
    Openapi,
}

/// The flags. Each can also be set by the environment variable of its name with the prefix `SENTINEL_`.
#[derive(Debug, Args)]
pub struct Flags {
    /// Of the stores.
    #[command(flatten)]
    pub(super) stores: StoreFlags,

    /// Address for node agents.
    #[arg(long, env = "SENTINEL_GATEWAY_LISTEN", default_value = "127.0.0.1:7979", value_name = "ADDRESS")]
    pub(super) gateway_listen: SocketAddr,

    /// Certificates.
    #[command(flatten)]
    pub(super) tls: TlsFlags,

    /// Address of the HTTP API. Beyond loopback it requires --api-auth and a certificate.
    #[arg(long, env = "SENTINEL_API_LISTEN", default_value = "127.0.0.1:7980", value_name = "ADDRESS")]
    pub(super) api_listen: SocketAddr,

    /// File with the bearer token for the HTTP API. Without it every process that can connect is answered: every user of
    /// this machine, every process in the pod or, with host networking, on the node.
    #[arg(long, env = "SENTINEL_API_TOKEN_FILE", value_name = "FILE")]
    pub(super) api_token_file: Option<PathBuf>,

    /// Who may use the HTTP API.
    #[command(flatten)]
    pub(super) people: PeopleFlags,

    /// Of the admission webhook.
    #[command(flatten)]
    pub(super) admission: AdmissionFlags,

    /// File of ceilings: how far the Tasks of each namespace may reach. It is read again when it changes; while it cannot be
    /// used, no Run begins. Without it there are no limits.
    #[arg(long, env = "SENTINEL_CEILINGS_FILE", value_name = "FILE")]
    pub(super) ceilings_file: Option<PathBuf>,

    /// Unix socket of the HTTP API, in addition to --api-listen; for the user of this process and root only.
    #[arg(long, env = "SENTINEL_API_SOCKET", value_name = "PATH")]
    pub(super) api_socket: Option<PathBuf>,

    /// Path below which an ingress has the web page and the API, for example /sentinel. They are at the root too.
    #[arg(long, env = "SENTINEL_BASE_PATH", default_value = "/", value_name = "PATH", value_parser = str::parse::<BasePath>)]
    pub(super) base_path: BasePath,

    /// Address for /metrics, /healthz and /readyz.
    #[arg(long, env = "SENTINEL_METRICS_LISTEN", default_value = "127.0.0.1:7981", value_name = "ADDRESS")]
    pub(super) metrics_listen: SocketAddr,

    /// Audience of agents' tokens.
    #[arg(long, env = "SENTINEL_TOKEN_AUDIENCE", default_value = "sentinel-operator", value_name = "NAME")]
    pub(super) token_audience: String,

    /// ServiceAccount of the agents, as NAMESPACE/NAME.
    #[arg(
        long,
        env = "SENTINEL_AGENT_SERVICE_ACCOUNT",
        default_value = "sentinel-system/sentinel-node-agent",
        value_parser = parse_service_account,
        value_name = "NAMESPACE/NAME"
    )]
    pub(super) agent_service_account: ServiceAccount,

    /// Kubeconfig file; without it $KUBECONFIG, ~/.kube/config or the pod's service account.
    #[arg(long, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,

    /// Name of the Lease for leader election.
    #[arg(long, env = "SENTINEL_LEASE_NAME", default_value = "sentinel-operator", value_name = "NAME")]
    pub(super) lease_name: String,

    /// Namespace of the Lease; without it the pod's, or the kubeconfig's.
    #[arg(long, env = "SENTINEL_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub(super) lease_namespace: Option<String>,

    /// Lead without leader election. Never with a second operator: both would start every Task.
    #[arg(long, env = "SENTINEL_NO_LEADER_ELECTION", conflicts_with_all = ["lease_namespace"])]
    pub(super) no_leader_election: bool,

    /// HOST:PORT at which agents reach this operator instance; a follower sends agents to the leader's.
    #[arg(long, env = "SENTINEL_ADVERTISE", value_name = "HOST:PORT")]
    pub(super) advertise: Option<String>,

    /// Watch Tasks in this namespace only, and serve no other; without it, all namespaces.
    #[arg(long, env = "SENTINEL_WATCH_NAMESPACE", value_name = "NAMESPACE", value_parser = parse_namespace)]
    pub(super) watch_namespace: Option<Namespace>,

    /// How long to wait at shutdown for output and results to reach History. Example: 10s.
    #[arg(long, env = "SENTINEL_DRAIN", default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    pub(super) drain: Duration,

    /// Where audit records are kept and copied to.
    #[command(flatten)]
    pub(super) audit: AuditFlags,

    /// Format of the log on standard error.
    #[arg(long, env = "SENTINEL_LOG_FORMAT", default_value = "text", value_parser = log_formats(), value_name = "FORM")]
    pub(super) log_format: LogFormat,

    /// Log filter, in the syntax of tracing. Example: `info,sentinel_operator::gateway=debug`.
    #[arg(long, env = "SENTINEL_LOG", default_value = "info", value_name = "FILTER")]
    pub(super) log: String,

    /// Collector of traces, by OTLP over HTTP: `http://HOST:4318` or `https://HOST:4318`. Without it, no traces are sent.
    #[arg(long, env = "SENTINEL_TRACE_OTLP_ENDPOINT", value_name = "URL")]
    pub(super) trace_otlp_endpoint: Option<String>,

    /// File with a log filter, read again every few seconds: what it has replaces --log while the operator runs.
    #[arg(long, env = "SENTINEL_LOG_FILTER_FILE", value_name = "FILE")]
    pub(super) log_filter_file: Option<PathBuf>,
}

fn parse_namespace(text: &str) -> Result<Namespace, String> {
    text.parse::<Namespace>().map_err(|error| format!("expected {}", error.allowed))
}

/// `text` or `json`.
fn log_formats() -> impl clap::builder::TypedValueParser<Value = LogFormat> {
    use clap::builder::TypedValueParser as _;
    clap::builder::PossibleValuesParser::new(["text", "json"]).try_map(|text| text.parse::<LogFormat>())
}
