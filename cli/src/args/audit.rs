//! The arguments of `audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::output::format::OutputFormat;

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    pub(crate) verb: AuditVerb,
}

/// The verbs of `audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditVerb {
    /// Verify exports of audit records, without a server.
    Verify(AuditVerifyArgs),
    /// List the heads of audit chains that History has.
    Heads(AuditHeadsArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  # Of all nodes, to verify exports against them
  sentinel audit heads -o json > heads.json
  sentinel audit verify --heads heads.json node-1.jsonl

  # Of one node, or of the operator
  sentinel audit heads worker-1
  sentinel audit heads operator

Of each chain there is the first head of each day and hour, for 400 and 30 days, and the highest.")]
pub(crate) struct AuditHeadsArgs {
    /// Only of the chain of this node, or of operator.
    #[arg(value_name = "NODE")]
    pub(crate) of: Option<String>,

    /// Output format.
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  # The records of a node, from the machine or its agent's pod
  node-agent audit export > node-1.jsonl
  sentinel audit verify node-1.jsonl

  # Together with those of the operator, which has recorded the heads of all nodes: a cut end is found too
  sentinel audit verify operator.jsonl node-1.jsonl node-2.jsonl

  # Against the heads that History has, which are there although the records of the operator are not
  sentinel audit heads -o json > heads.json
  sentinel audit verify --heads heads.json node-1.jsonl

  # From standard input
  ssh node-1 node-agent audit export | sentinel audit verify operator.jsonl -

The first record that does not fit is named, with the reason: changed, missing, repeated, reordered, of another chain, cut off.

Exit codes: 0 every record fits, 1 one does not, or a file cannot be read.")]
pub(crate) struct AuditVerifyArgs {
    /// The exports: JSON lines, as the operator and `node-agent audit export` write them; - for standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// Heads that History has, as `sentinel audit heads -o json` lists them; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) heads: Vec<PathBuf>,
}
