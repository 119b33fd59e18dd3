//! The arguments of `audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  # The records of a node, from the machine or its agent's pod
  node-agent audit export > node-1.jsonl
  sentinel audit verify node-1.jsonl

  # Together with those of the operator, which has recorded the heads of all nodes: a cut end is found too
  sentinel audit verify operator.jsonl node-1.jsonl node-2.jsonl

  # From standard input
  ssh node-1 node-agent audit export | sentinel audit verify operator.jsonl -

The first record that does not fit is named, with the reason: changed, missing, repeated, reordered, of another chain, cut off.

Exit codes: 0 every record fits, 1 one does not, or a file cannot be read.")]
pub(crate) struct AuditVerifyArgs {
    /// The exports: JSON lines, as the operator and `node-agent audit export` write them; - for standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}
