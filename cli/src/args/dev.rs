//! The arguments of `dev`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  # A Task from a file; every change of the file is applied
  sentinel dev examples/hello.yaml

  # All files of a directory, and fifty more nodes, simulated
  sentinel dev examples --nodes 50

  # Keep Tasks, history and output, and continue with them next time
  sentinel dev --state ~/.local/share/sentinel

The API is open to your own user only: over a Unix socket, which every verb finds without flags, and on --listen for
clients with the token from the file that is printed at startup. Root can use the socket too, with curl.

Stop it with Ctrl-C, SIGTERM, SIGHUP or SIGQUIT. Exit codes: 0 stopped on request, 1 failure, 2 invalid file (all
problems are listed).";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DevArgs {
    /// YAML files with Tasks, or directories of them; changes are applied.
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// Number of simulated nodes besides this machine. Their commands really run, on this machine.
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub(crate) nodes: u16,

    /// Maximum number of commands that run at once on each node; further ones are queued.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) max_attempts: u32,

    /// Free disk space that --state must have for a command to start. Example: 64Mi, 1Gi.
    #[arg(long, env = "SENTINEL_MIN_FREE", default_value = "64Mi", value_name = "SIZE",
          value_parser = sentinel_node_agent::config::parse_size)]
    pub(crate) min_free: u64,

    /// The policy of the nodes, read again when it changes; see `sentinel policy`.
    #[arg(long, env = "SENTINEL_POLICY_FILE", value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,

    /// How far the Tasks of each namespace may reach, read again when it changes; see `sentinel ceilings`.
    #[arg(long, env = "SENTINEL_CEILINGS_FILE", value_name = "FILE")]
    pub(crate) ceilings: Option<PathBuf>,

    /// Directory for all state; by default a temporary one, which is removed at exit.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// Address of the HTTP API besides its socket; loopback only. Port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:7980", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,

    /// Filter for the log on standard error, in the syntax of `tracing`. Example: info.
    #[arg(long, env = "SENTINEL_LOG", default_value = "warn", value_name = "FILTER")]
    pub(crate) log: String,
}
