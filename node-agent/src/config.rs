//! Flags and environment variables to [`AgentConfig`]. Nothing else reads the environment.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use sentinel_audit::directory::MIN_KEPT;
use sentinel_core::agent::Rules;
use sentinel_protocol::limits::HEARTBEAT_MS;
use sentinel_protocol::request::Environment;

use crate::heartbeat::Sampler;
use crate::link::{Endpoint, Timing, Token};
use crate::policy::{PolicyCommand, PolicyFiles};
use crate::supervisor::{HostNamespaces, Prefork};

/// Bytes of audit records that are kept by default.
const AUDIT_KEPT: u64 = 64 << 20;

const EXAMPLES: &str = "Examples:
  node-agent --operator-url ws://127.0.0.1:7070 --token-file ./token --state-dir ./state
  node-agent --operator-url wss://operator:7443 --ca-file ./ca.crt --token-file ./token --profile host
  node-agent health --state-dir ./state
  node-agent journal --state-dir ./state
  node-agent policy lint ./policy.yaml
  node-agent audit export --state-dir ./state > node-1.jsonl";

/// Runs commands on this node for the Sentinel operator, streams their output and reports how they ended.
#[derive(Debug, Parser)]
#[command(name = "node-agent", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// A command other than running the agent.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of the agent.
    #[command(flatten)]
    pub run: Option<RunArgs>,
}

impl Cli {
    /// Reads a command line, whose first word is the program. A subcommand takes nothing from the variables of the agent's
    /// flags: in the agent's pod some of them are set, and would make the others required.
    ///
    /// # Errors
    /// What clap finds wrong.
    pub fn read(words: &[OsString]) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let is_subcommand = words
            .get(1)
            .and_then(|word| word.to_str())
            .is_some_and(|word| command.find_subcommand(word).is_some());
        if is_subcommand {
            command = command.mut_args(|arg| arg.env(Resettable::Reset));
        }
        Self::from_arg_matches(&command.try_get_matches_from(words)?)
    }
}

/// Commands other than running the agent.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Exit with 0 if the agent of a state directory is connected to the operator, otherwise with 1 and the reason.
    Health {
        /// The agent's state directory.
        #[arg(long, env = "SENTINEL_STATE_DIR", default_value = "/var/lib/sentinel", value_name = "DIR")]
        state_dir: PathBuf,
    },
    /// List the Attempts in a state directory and how far each has come. An agent may be using it.
    Journal {
        /// The agent's state directory.
        #[arg(long, env = "SENTINEL_STATE_DIR", default_value = "/var/lib/sentinel", value_name = "DIR")]
        state_dir: PathBuf,
    },
    /// Check a policy of a node, or what it decides about a request.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Export or verify the audit records of a state directory. An agent may be using it.
    Audit {
        /// What to do.
        #[command(subcommand)]
        verb: AuditVerb,
    },
}

/// What is done with audit records.
#[derive(Debug, Subcommand)]
pub enum AuditVerb {
    /// Write all records to standard output, as JSON lines; `sentinel audit verify` verifies them on any machine.
    Export {
        /// The agent's state directory.
        #[arg(long, env = "SENTINEL_STATE_DIR", default_value = "/var/lib/sentinel", value_name = "DIR")]
        state_dir: PathBuf,
    },
    /// Verify the records, and exit with 1 and the first one that does not fit. That the end was cut off, or that all were
    /// replaced, is only found together with the operator's records or heads in History, by `sentinel audit verify`.
    Verify {
        /// The agent's state directory.
        #[arg(long, env = "SENTINEL_STATE_DIR", default_value = "/var/lib/sentinel", value_name = "DIR")]
        state_dir: PathBuf,

        /// Allow the chain to begin after its record 1, as retention (`--audit-keep`) leaves it. That others removed whole files at
        /// the beginning is not found then.
        #[arg(long)]
        allow_retention: bool,
    },
}

/// Options of the agent.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The operator's gateway: `ws://<host>[:<port>]`, or `wss://` with --ca-file.
    #[arg(long, env = "SENTINEL_OPERATOR_URL", value_name = "URL")]
    pub operator_url: Endpoint,
    /// File with the agent's token; read for each connection.
    #[arg(long, env = "SENTINEL_TOKEN_FILE", value_name = "FILE")]
    pub token_file: PathBuf,
    /// PEM file with the certificates to trust for wss://.
    #[arg(long, env = "SENTINEL_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// The agent's state directory; each agent needs its own.
    #[arg(long, env = "SENTINEL_STATE_DIR", default_value = "/var/lib/sentinel", value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Where commands may run: nowhere, only in the agent's container, or also in the namespaces of the host.
    #[arg(long, env = "SENTINEL_PROFILE", value_enum, default_value_t = Profile::Container)]
    pub profile: Profile,
    /// The node is itself a container, as with kind or k3d. Then process 1 of the agent's PID namespace counts as the node's
    /// init. Set it only together with hostPID: true: otherwise `Host` commands would run in the agent's pod.
    #[arg(long, env = "SENTINEL_NESTED_NODE")]
    pub nested_node: bool,
    /// Name of this node in the agent's own log. The operator takes the name from the token only.
    #[arg(long, env = "SENTINEL_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Maximum number of commands that run at the same time. Further ones wait, for at most `timeouts.start` of their
    /// Task.
    #[arg(long, env = "SENTINEL_MAX_ATTEMPTS", default_value_t = 64, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_attempts: u32,
    /// Free space on the disk of the state directory that is required to start a command, for example 64Mi or 1Gi. A
    /// command with little output and no limits requires at most 4Mi, so that a cleanup command can still run.
    #[arg(long, env = "SENTINEL_MIN_FREE", default_value = "64Mi", value_name = "SIZE", value_parser = parse_size)]
    pub min_free: u64,
    /// The node's policy: which commands may run, for whom and as whom (docs/policy.md). A policy that is missing or invalid
    /// allows nothing. Without this option all is allowed. It is read again when it changes.
    #[arg(long, env = "SENTINEL_POLICY_FILE", value_name = "FILE")]
    pub policy_file: Option<PathBuf>,
    /// While this file exists, no command is started; the first line of it is the reason that people see. By default `kill-switch`
    /// in the state directory.
    #[arg(long, env = "SENTINEL_KILL_SWITCH_FILE", value_name = "FILE")]
    pub kill_switch_file: Option<PathBuf>,
    /// Audit records of this node to keep, on the disk of the state directory; beyond, the oldest are removed. At least 1Mi,
    /// for example 64Mi or 1Gi.
    #[arg(long, env = "SENTINEL_AUDIT_KEEP", default_value = "64Mi", value_name = "SIZE", value_parser = parse_kept)]
    pub audit_keep: u64,
    /// Format of the agent's own log.
    #[arg(long, env = "SENTINEL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Filter of the agent's own log, for example `info` or `sentinel_node_agent=debug`.
    #[arg(long, env = "SENTINEL_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// File with a log filter, read again every few seconds: what it has replaces --log while the agent runs.
    #[arg(long, env = "SENTINEL_LOG_FILTER_FILE", value_name = "FILE")]
    pub log_filter_file: Option<PathBuf>,
}

/// Parses a number of bytes: `1048576`, `64Mi`, `1Gi`.
///
/// # Errors
/// The allowed forms.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let units = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40)];
    let unit = units.iter().find_map(|(unit, power)| Some((text.strip_suffix(unit)?, *power)));
    let (digits, power) = unit.unwrap_or((text, 0));
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| digits.parse::<u64>().ok()).flatten();
    number.and_then(|number| number.checked_mul(1 << power)).ok_or_else(|| {
        "a size is a whole number of bytes, or one with Ki, Mi, Gi or Ti, as in 64Mi".to_owned()
    })
}

fn parse_kept(text: &str) -> Result<u64, String> {
    let kept = parse_size(text)?;
    if kept < MIN_KEPT { Err("at least 1Mi of audit records are kept".to_owned()) } else { Ok(kept) }
}

/// Where commands may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// In the namespaces of the host, or in the agent's own container.
    Host,
    /// In the agent's own container only.
    Container,
    /// Nowhere: the agent reports its presence and its metrics, and starts nothing.
    Observe,
}

impl Profile {
    /// The environments that it allows.
    pub fn environments(self) -> Vec<Environment> {
        match self {
            Self::Host => vec![Environment::Host, Environment::Container],
            Self::Container => vec![Environment::Container],
            Self::Observe => Vec::new(),
        }
    }
}

/// Format of the agent's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Readable lines.
    Text,
    /// One JSON object per line.
    Json,
}

impl From<LogFormat> for sentinel_telemetry::LogFormat {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// The configuration of one agent: from flags, or built by a process that runs several.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The operator's gateway.
    pub operator: Endpoint,
    /// The agent's identity.
    pub token: Token,
    /// PEM file with the certificates to trust for `wss://`.
    pub ca_file: Option<PathBuf>,
    /// The state directory; each agent needs its own.
    pub state_dir: PathBuf,
    /// Name of the node, for the log only.
    pub node_name: Option<String>,
    /// What it accepts.
    pub rules: Rules,
    /// The namespaces of commands with `environment: Host`.
    pub host: HostNamespaces,
    /// The node is itself a container: its init need not be in the machine's initial PID namespace.
    pub nested_node: bool,
    /// Whether supervisors are started in advance; not where many agents run in one process.
    pub prefork: Prefork,
    /// Binary of the supervisors; `None` is that of this process.
    pub supervisor: Option<PathBuf>,
    /// Samples the node; `None` creates one. Agents in one process can share one.
    pub sampler: Option<Sampler>,
    /// Durations of the link.
    pub timing: Timing,
    /// The node's policy and its kill switch.
    pub policy: PolicyFiles,
    /// What commands do not see, besides the state directory and the token, unless they are privileged.
    pub hidden: Vec<PathBuf>,
    /// Bytes of audit records to keep.
    pub audit_kept: u64,
}

impl AgentConfig {
    /// An agent with the defaults of the command line.
    pub fn new(operator: Endpoint, token: Token, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            operator,
            token,
            ca_file: None,
            node_name: None,
            state_dir: state_dir.into(),
            rules: Rules::default(),
            host: HostNamespaces::OfInit,
            nested_node: false,
            prefork: Prefork::On,
            supervisor: None,
            sampler: None,
            timing: Timing::default(),
            policy: PolicyFiles::default(),
            hidden: Vec::new(),
            audit_kept: AUDIT_KEPT,
        }
    }

    /// How often the node is sampled.
    pub fn sample_period() -> Duration {
        Duration::from_millis(HEARTBEAT_MS)
    }
}

impl From<&RunArgs> for AgentConfig {
    fn from(args: &RunArgs) -> Self {
        let rules = Rules {
            max_attempts: args.max_attempts,
            min_free: args.min_free,
            environments: args.profile.environments(),
            ..Rules::default()
        };
        let token = Token::File(args.token_file.clone());
        let base = Self::new(args.operator_url.clone(), token, args.state_dir.clone());
        let node_name = args.node_name.clone();
        let policy =
            PolicyFiles { policy: args.policy_file.clone(), kill_switch: args.kill_switch_file.clone() };
        Self {
            ca_file: args.ca_file.clone(),
            node_name,
            rules,
            nested_node: args.nested_node,
            policy,
            audit_kept: args.audit_keep,
            ..base
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, String> {
        let words: Vec<OsString> = [&["node-agent"], args].concat().into_iter().map(Into::into).collect();
        Cli::read(&words).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_a_config() {
        let cli =
            parse(&["--operator-url", "ws://op:7000", "--token-file", "/t", "--profile", "host"]).unwrap();
        let config = AgentConfig::from(&cli.run.unwrap());
        assert_eq!(config.operator.authority(), "op:7000");
        assert_eq!(config.rules.environments, [Environment::Host, Environment::Container]);
        assert_eq!((config.rules.max_attempts, config.rules.min_free), (64, 64 << 20));
    }

    #[test]
    fn an_observer_runs_no_command() {
        let cli =
            parse(&["--operator-url", "ws://op:7000", "--token-file", "/t", "--profile", "observe"]).unwrap();
        assert_eq!(AgentConfig::from(&cli.run.unwrap()).rules.environments, []);
    }

    #[test]
    fn an_invalid_flag_is_named_with_its_allowed_values() {
        let url = parse(&["--operator-url", "http://op", "--token-file", "/t"]).unwrap_err();
        assert!(url.contains("--operator-url") && url.contains("ws://<host>"), "{url}");
        let token = parse(&["--operator-url", "ws://op"]).unwrap_err();
        assert!(token.contains("--token-file"), "{token}");
        let max =
            parse(&["--operator-url", "ws://op", "--token-file", "/t", "--max-attempts", "0"]).unwrap_err();
        assert!(max.contains("--max-attempts") && max.contains("1..=4096"), "{max}");
        for size in ["-1", "", "1.5Gi", "64MB", "Mi", "99999999999999Ti"] {
            let min_free =
                parse(&["--operator-url", "ws://op", "--token-file", "/t", &format!("--min-free={size}")]);
            let min_free = min_free.unwrap_err();
            assert!(min_free.contains("--min-free") && min_free.contains("64Mi"), "{min_free}");
        }
        assert_eq!(
            (parse_size("0"), parse_size("64Mi"), parse_size("1Gi")),
            (Ok(0), Ok(64 << 20), Ok(1 << 30))
        );
    }

    #[test]
    fn health_does_not_need_the_agents_flags() {
        let cli = parse(&["health", "--state-dir", "/x"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Health { state_dir }) if state_dir == *"/x"));
    }
}
