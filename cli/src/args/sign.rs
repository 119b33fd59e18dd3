//! The arguments of `sign`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::values::{node_name, validity};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sentinel sign task.yaml --key ~/.ssh/id_ed25519 > signed.yaml
  sentinel sign task.yaml --key ~/.ssh/id_ed25519 --any-node --for 30d --runs 4 | kubectl apply -f -

  # Verify it with OpenSSH: the statement and its signature are in the annotation sentinelnode.dev/signed
  sentinel policy request signed.yaml | jq -rj .signed.statement > statement
  sentinel policy request signed.yaml | jq -rj .signed.signature > signature
  ssh-keygen -Y verify -f allowed_signers -I alice -n sentinelnode.dev/task -s signature < statement

ssh-keygen signs, so keys of an SSH agent (give the .pub file), with a passphrase and on a security key work.")]
pub(crate) struct SignArgs {
    /// A file with Tasks in YAML or JSON; - for standard input.
    #[arg(value_name = "TASK")]
    pub(crate) task: PathBuf,

    /// The key: a private one, or the public one of a key that an SSH agent has. Ed25519, or ECDSA on P-256.
    #[arg(short, long, env = "SENTINEL_SIGNING_KEY", value_name = "FILE")]
    pub(crate) key: PathBuf,

    /// A node on which it may run, instead of those in targets.nodeNames; may be repeated.
    #[arg(long, value_name = "NODE", value_parser = node_name)]
    pub(crate) node: Vec<String>,

    /// It may run on each node whose policy accepts the signature. Not with --node.
    #[arg(long, conflicts_with = "node")]
    pub(crate) any_node: bool,

    /// How long from now it may start.
    #[arg(long = "for", default_value = "24h", value_name = "TIME", value_parser = validity)]
    pub(crate) valid_for: Duration,

    /// How many Attempts each node may start by this signature; retries count.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) runs: u32,

    /// What the signature is for, such as the name of a cluster, if the policy names one.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) audience: Option<String>,
}
