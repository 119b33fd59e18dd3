//! Flags and environment, read once. Nothing else in the operator reads either.
//!
//! The URLs of the stores are never flags or variables: both are shown by `ps` and kept in a pod's description. They
//! are read from files, as a mounted Secret gives them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::files;
use crate::gateway::auth::MAX_TOKEN;
use crate::http::guard::Secret;
use crate::telemetry::LogFormat;
use clap::{Args, Parser, Subcommand, ValueEnum};
use sentinel_protocol::ids::Namespace;

/// Longest file that holds one URL or token, bytes.
const MAX_SMALL_FILE: u64 = 64 << 10;

/// Exit code for a wrong command line or configuration.
pub const EXIT_CONFIG: u8 = 2;

/// Exit code for everything else that ends the process.
pub const EXIT_FAILURE: u8 = 1;

const EXAMPLES: &str = "\
Examples:
  # Against the cluster of the current kubeconfig, with everything else in one directory
  operator --storage embedded --data-dir /var/lib/sentinel

  # As in production: History in MongoDB, presence in Redis, URLs from mounted secrets
  operator --storage mongodb --mongodb-url-file /secrets/mongodb/url --redis-url-file /secrets/redis/url \\
    --gateway-listen 0.0.0.0:7979 --gateway-tls-cert-file /tls/tls.crt --gateway-tls-key-file /tls/tls.key

Exit codes: 0 ended on request, 1 failure, 2 wrong flags or configuration.";

/// The operator of Sentinel Node: decides who runs a Task and when, and dispatches to the node agents.
#[derive(Debug, Parser)]
#[command(name = "operator", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Something else than running.
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// How to run.
    #[command(flatten)]
    pub flags: Flags,
}

/// What the operator's binary can do besides running.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Verb {
    /// Print the OpenAPI document of the HTTP API.
    Openapi,
}

/// The flags. Each has a variable of the same name with `SENTINEL_` before it.
#[derive(Debug, Args)]
pub struct Flags {
    /// Where Runs, results and output are kept.
    #[arg(long, env = "SENTINEL_STORAGE", value_enum, default_value = "mongodb")]
    storage: StorageKind,

    /// Directory of the embedded History (with --storage embedded).
    #[arg(long, env = "SENTINEL_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// File that holds the MongoDB URL (with --storage mongodb).
    #[arg(long, env = "SENTINEL_MONGODB_URL_FILE", value_name = "FILE")]
    mongodb_url_file: Option<PathBuf>,

    /// Database in MongoDB.
    #[arg(long, env = "SENTINEL_MONGODB_DATABASE", default_value = "sentinel", value_name = "NAME")]
    mongodb_database: String,

    /// File that holds the Redis URL. Without it, presence is kept in memory alone.
    #[arg(long, env = "SENTINEL_REDIS_URL_FILE", value_name = "FILE")]
    redis_url_file: Option<PathBuf>,

    /// What every key in Redis begins with.
    #[arg(long, env = "SENTINEL_REDIS_PREFIX", default_value = "sentinel:", value_name = "TEXT")]
    redis_prefix: String,

    /// How long History keeps what has ended. Example: 30d.
    #[arg(long, env = "SENTINEL_RETENTION", default_value = "30d", value_parser = parse_duration, value_name = "TIME")]
    retention: Duration,

    /// Address for node agents.
    #[arg(long, env = "SENTINEL_GATEWAY_LISTEN", default_value = "127.0.0.1:7979", value_name = "ADDRESS")]
    gateway_listen: SocketAddr,

    /// Certificate chain of the gateway, PEM; read again when it changes.
    #[arg(
        long,
        env = "SENTINEL_GATEWAY_TLS_CERT_FILE",
        requires = "gateway_tls_key_file",
        value_name = "FILE"
    )]
    gateway_tls_cert_file: Option<PathBuf>,

    /// Private key of the gateway, PEM.
    #[arg(
        long,
        env = "SENTINEL_GATEWAY_TLS_KEY_FILE",
        requires = "gateway_tls_cert_file",
        value_name = "FILE"
    )]
    gateway_tls_key_file: Option<PathBuf>,

    /// Address of the HTTP API; loopback, as nobody can authenticate to it yet.
    #[arg(long, env = "SENTINEL_API_LISTEN", default_value = "127.0.0.1:7980", value_name = "ADDRESS")]
    api_listen: SocketAddr,

    /// File with a token that callers of the HTTP API must bear; without it everyone who can connect is answered.
    /// Beside users of this machine, that is every process in the pod or, with the host's network, on the node.
    #[arg(long, env = "SENTINEL_API_TOKEN_FILE", value_name = "FILE")]
    api_token_file: Option<PathBuf>,

    /// Unix socket of the HTTP API, for the user of this process and root alone, beside --api-listen.
    #[arg(long, env = "SENTINEL_API_SOCKET", value_name = "PATH")]
    api_socket: Option<PathBuf>,

    /// Address for metrics, liveness and readiness.
    #[arg(long, env = "SENTINEL_METRICS_LISTEN", default_value = "127.0.0.1:7981", value_name = "ADDRESS")]
    metrics_listen: SocketAddr,

    /// Audience that an agent's token must be for.
    #[arg(long, env = "SENTINEL_TOKEN_AUDIENCE", default_value = "sentinel-operator", value_name = "NAME")]
    token_audience: String,

    /// ServiceAccount of the agents, as NAMESPACE/NAME.
    #[arg(
        long,
        env = "SENTINEL_AGENT_SERVICE_ACCOUNT",
        default_value = "sentinel-system/sentinel-node-agent",
        value_parser = parse_service_account,
        value_name = "NAMESPACE/NAME"
    )]
    agent_service_account: ServiceAccount,

    /// Kubeconfig file; without it $KUBECONFIG, ~/.kube/config or the pod's own account.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Name of the Lease by which one of several operators leads.
    #[arg(long, env = "SENTINEL_LEASE_NAME", default_value = "sentinel-operator", value_name = "NAME")]
    lease_name: String,

    /// Namespace of the Lease; without it the pod's own, or the kubeconfig's.
    #[arg(long, env = "SENTINEL_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    lease_namespace: Option<String>,

    /// Lead without an election. Never with a second operator: both would start every Task.
    #[arg(long, env = "SENTINEL_NO_LEADER_ELECTION", conflicts_with_all = ["lease_namespace"])]
    no_leader_election: bool,

    /// HOST:PORT at which agents reach this very operator; a follower sends them to the leader's.
    #[arg(long, env = "SENTINEL_ADVERTISE", value_name = "HOST:PORT")]
    advertise: Option<String>,

    /// Carry out the Tasks of this namespace only, and answer questions about no other; without it, of all.
    #[arg(long, env = "SENTINEL_WATCH_NAMESPACE", value_name = "NAMESPACE", value_parser = parse_namespace)]
    watch_namespace: Option<Namespace>,

    /// How long to wait for output and results to reach History when ending. Example: 10s.
    #[arg(long, env = "SENTINEL_DRAIN", default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    drain: Duration,

    /// Form of the log lines on standard error.
    #[arg(long, env = "SENTINEL_LOG_FORMAT", default_value = "text", value_parser = log_formats(), value_name = "FORM")]
    log_format: LogFormat,

    /// What is logged, as tracing filters have it.
    #[arg(long, env = "SENTINEL_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
}

/// Where Runs, results and output are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StorageKind {
    /// In one file.
    Embedded,
    /// In a MongoDB.
    Mongodb,
}

/// A Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseName {
    /// Its name.
    pub name: String,
    /// Its namespace, if another than where the operator is.
    pub namespace: Option<String>,
}

/// A ServiceAccount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where Runs, results and output are kept.
    pub storage: Storage,
    /// Where presence is mirrored to; memory alone without it.
    pub redis: Option<Redis>,
    /// How long History keeps what has ended.
    pub retention: Duration,
    /// Address for node agents.
    pub gateway_listen: SocketAddr,
    /// Certificate and key of the gateway.
    pub gateway_tls: Option<TlsFiles>,
    /// Address of the HTTP API.
    pub api_listen: SocketAddr,
    /// The token that callers of the HTTP API must bear.
    pub api_token: Option<Secret>,
    /// Unix socket of the HTTP API.
    pub api_socket: Option<PathBuf>,
    /// Address for metrics and probes.
    pub metrics_listen: SocketAddr,
    /// Audience that an agent's token must be for.
    pub token_audience: String,
    /// ServiceAccount of the agents.
    pub agent_service_account: ServiceAccount,
    /// Kubeconfig file.
    pub kubeconfig: Option<PathBuf>,
    /// The Lease by which one of several operators leads; `None` leads without an election.
    pub lease: Option<LeaseName>,
    /// Where agents reach this very operator.
    pub advertise: Option<String>,
    /// The only namespace whose Tasks are carried out; all when there is none.
    pub watch_namespace: Option<Namespace>,
    /// How long to wait for History when ending.
    pub drain: Duration,
    /// Form of the log lines.
    pub log_format: LogFormat,
    /// What is logged.
    pub log: String,
}

/// Where Runs, results and output are kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Storage {
    /// In one file of this directory.
    Embedded {
        /// The directory.
        directory: PathBuf,
    },
    /// In a MongoDB.
    Mongodb {
        /// Its URL; may hold a password.
        url: String,
        /// The database.
        database: String,
    },
}

/// A Redis. Its `Debug` form does not show the URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Redis {
    /// Its URL; may hold a password.
    pub url: String,
    /// What every key begins with.
    pub prefix: String,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Embedded { directory } => f.debug_struct("Embedded").field("directory", directory).finish(),
            Self::Mongodb { database, .. } => {
                f.debug_struct("Mongodb").field("database", database).finish_non_exhaustive()
            }
        }
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Files of a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// What is wrong with the configuration. Never contains what stands in a file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A flag that another one needs is missing.
    #[error("--{needed} is missing: --{flag} needs it")]
    Missing {
        /// The flag that needs it.
        flag: &'static str,
        /// The missing flag.
        needed: &'static str,
    },
    /// A file could not be read.
    #[error("failed to read the file of --{flag}, {}: {source}", path.display())]
    Unreadable {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("the file of --{flag}, {}, does not hold {expected}: {found}", path.display())]
    NotAUrl {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is expected.
        expected: &'static str,
        /// What was found, without the content.
        found: String,
    },
    /// The API must not be reachable from elsewhere.
    #[error(
        "--api-listen {address} is not a loopback address: people cannot authenticate yet, so whoever reaches the API can run commands on every node; listen on 127.0.0.1 or [::1]"
    )]
    ApiNotLoopback {
        /// The address given.
        address: SocketAddr,
    },
    /// Two listeners want one address.
    #[error("--{one} and --{other} are both {address}")]
    SameAddress {
        /// A flag.
        one: &'static str,
        /// Another flag.
        other: &'static str,
        /// The address given to both.
        address: SocketAddr,
    },
}

impl Flags {
    /// Checks the flags against each other and reads the files they name.
    ///
    /// # Errors
    /// [`ConfigError`] naming the flag, and what is allowed.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        if !self.api_listen.ip().is_loopback() {
            return Err(ConfigError::ApiNotLoopback { address: self.api_listen });
        }
        self.addresses_differ()?;
        let storage = self.storage()?;
        let redis = self.redis_url_file.as_deref().map(|path| {
            let url =
                read_url("redis-url-file", path, "a redis:// or rediss:// URL", &["redis://", "rediss://"])?;
            Ok(Redis { url, prefix: self.redis_prefix.clone() })
        });
        Ok(Config {
            storage,
            redis: redis.transpose()?,
            retention: self.retention,
            gateway_listen: self.gateway_listen,
            gateway_tls: self
                .gateway_tls_cert_file
                .zip(self.gateway_tls_key_file)
                .map(|(cert, key)| TlsFiles { cert, key }),
            api_listen: self.api_listen,
            api_token: self.api_token_file.as_deref().map(read_token).transpose()?,
            api_socket: self.api_socket,
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

    fn storage(&self) -> Result<Storage, ConfigError> {
        match self.storage {
            StorageKind::Embedded => {
                let directory = self.data_dir.clone();
                let missing = ConfigError::Missing { flag: "storage embedded", needed: "data-dir" };
                Ok(Storage::Embedded { directory: directory.ok_or(missing)? })
            }
            StorageKind::Mongodb => {
                let missing = ConfigError::Missing { flag: "storage mongodb", needed: "mongodb-url-file" };
                let path = self.mongodb_url_file.as_deref().ok_or(missing)?;
                let schemes = ["mongodb://", "mongodb+srv://"];
                let url = read_url("mongodb-url-file", path, "a mongodb:// or mongodb+srv:// URL", &schemes)?;
                Ok(Storage::Mongodb { url, database: self.mongodb_database.clone() })
            }
        }
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

/// An address on loopback with a port that the system chooses.
pub fn any_loopback_port() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

/// The digest of the token that a file holds.
fn read_token(path: &Path) -> Result<Secret, ConfigError> {
    const FLAG: &str = "api-token-file";
    let unreadable = |source| ConfigError::Unreadable { flag: FLAG, path: path.to_owned(), source };
    let text = files::read_text(path, MAX_SMALL_FILE).map_err(unreadable)?;
    let token = text.trim();
    let wrong = |found: &str| ConfigError::NotAUrl {
        flag: FLAG,
        path: path.to_owned(),
        expected: "a token of 16 or more printable characters without spaces",
        found: found.to_owned(),
    };
    if token.len() < 16 {
        return Err(wrong("it is shorter"));
    }
    if token.len() > MAX_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("it is longer than 8 KiB, or holds other characters"));
    }
    Ok(Secret::of(token))
}

fn parse_namespace(text: &str) -> Result<Namespace, String> {
    text.parse::<Namespace>().map_err(|error| format!("expected {}", error.allowed))
}

fn read_url(
    flag: &'static str,
    path: &Path,
    expected: &'static str,
    schemes: &[&str],
) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { flag, path: path.to_owned(), source };
    let text = files::read_text(path, MAX_SMALL_FILE).map_err(unreadable)?;
    let url = text.trim();
    let wrong = |found: String| ConfigError::NotAUrl { flag, path: path.to_owned(), expected, found };
    if url.is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    if url.lines().count() > 1 {
        return Err(wrong("it has more than one line".to_owned()));
    }
    let Some(rest) = schemes.iter().find_map(|scheme| url.strip_prefix(scheme)) else {
        // A scheme is no secret; anything else might be one.
        let scheme = url.split_once("://").map(|(scheme, _)| scheme).filter(|scheme| {
            scheme.len() <= 16
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        });
        return Err(wrong(match scheme {
            Some(scheme) => format!("its scheme is {scheme}://"),
            None => "it has no scheme".to_owned(),
        }));
    };
    if rest.is_empty() || rest.starts_with('/') {
        return Err(wrong("it names no host".to_owned()));
    }
    Ok(url.to_owned())
}

/// `text` or `json`.
fn log_formats() -> impl clap::builder::TypedValueParser<Value = LogFormat> {
    use clap::builder::TypedValueParser as _;
    clap::builder::PossibleValuesParser::new(["text", "json"]).try_map(|text| text.parse::<LogFormat>())
}

fn parse_service_account(text: &str) -> Result<ServiceAccount, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err("expected NAMESPACE/NAME, for example sentinel-system/sentinel-node-agent".to_owned()),
    }
}

/// A span of time as people write it: a number with `ms`, `s`, `m`, `h` or `d`, or several of them in this order of
/// size, for example `1h30m`.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "{text:?} is not a span of time; write a number and a unit (ms, s, m, h, d), for example 90s or 1h30m"
        )
    };
    let mut rest = text;
    let mut millis: u64 = 0;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        if unit >= smallest {
            return Err(wrong());
        }
        smallest = unit;
        millis = number.checked_mul(unit).and_then(|part| millis.checked_add(part)).ok_or_else(wrong)?;
        rest = &rest[letters..];
    }
    if smallest == u64::MAX { Err(wrong()) } else { Ok(Duration::from_millis(millis)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[&str]) -> Result<Config, String> {
        let cli =
            Cli::try_parse_from(std::iter::once(&"operator").chain(flags)).map_err(|e| e.to_string())?;
        cli.flags.into_config().map_err(|error| error.to_string())
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn embedded_needs_a_directory_and_mongodb_a_file() {
        let error = config(&["--storage", "embedded"]).unwrap_err();
        assert_eq!(error, "--data-dir is missing: --storage embedded needs it");
        let error = config(&[]).unwrap_err();
        assert_eq!(error, "--mongodb-url-file is missing: --storage mongodb needs it");
    }

    #[test]
    fn the_api_stays_on_loopback() {
        let error =
            config(&["--storage", "embedded", "--data-dir", "/x", "--api-listen", "0.0.0.0:80"]).unwrap_err();
        assert!(error.contains("--api-listen 0.0.0.0:80 is not a loopback address"), "{error}");
    }

    #[test]
    fn a_namespace_is_the_name_of_one() {
        for bad in ["a/b", "..", "A", "a.b", "?x", ""] {
            let flags = ["--storage", "embedded", "--data-dir", "/x", "--watch-namespace", bad];
            let error = config(&flags).unwrap_err();
            assert!(error.contains("at most 63 lower-case letters"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn the_token_of_the_api_comes_from_a_file_and_is_never_shown() {
        let with =
            |path: &str| config(&["--storage", "embedded", "--data-dir", "/x", "--api-token-file", path]);
        let good = file("0123456789abcdef-s3cret\n");
        let config = with(good.path().to_str().unwrap()).unwrap();
        assert_eq!(config.api_token, Some(Secret::of("0123456789abcdef-s3cret")));
        assert!(!format!("{config:?}").contains("s3cret"));
        for bad in ["", "short", "two words and more", &"x".repeat(100_000)] {
            let error = with(file(bad).path().to_str().unwrap()).unwrap_err();
            assert!(error.contains("--api-token-file"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn two_listeners_cannot_share_an_address() {
        let flags = ["--storage", "embedded", "--data-dir", "/x", "--metrics-listen", "127.0.0.1:7980"];
        assert_eq!(config(&flags).unwrap_err(), "--api-listen and --metrics-listen are both 127.0.0.1:7980");
    }

    #[test]
    fn a_url_comes_from_a_file_and_is_never_shown() {
        let good = file("mongodb://user:secret@db/\n");
        let path = good.path().to_str().unwrap();
        let config = config(&["--mongodb-url-file", path]).unwrap();
        assert!(
            matches!(&config.storage, Storage::Mongodb { url, .. } if url == "mongodb://user:secret@db/")
        );
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_repeated() {
        let cases = [
            ("", "it is empty"),
            ("hunter2", "it has no scheme"),
            ("http://db/secret", "its scheme is http://"),
            ("mongodb://", "it names no host"),
            ("mongodb://a\nmongodb://b", "it has more than one line"),
        ];
        for (text, expected) in cases {
            let file = file(text);
            let error = config(&["--mongodb-url-file", file.path().to_str().unwrap()]).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(!error.contains("secret") && !error.contains("hunter2"), "{error}");
        }
        let error = config(&["--mongodb-url-file", "/nowhere/url"]).unwrap_err();
        assert!(error.contains("failed to read the file of --mongodb-url-file, /nowhere/url"), "{error}");
    }

    #[test]
    fn spans_of_time_have_units() {
        assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_mins(90));
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
        for bad in
            ["", "5", "5 minutes", "-1s", "1s1m", "1s1s", "99999999999999999999d", "999999999999999d", "s"]
        {
            assert!(parse_duration(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
