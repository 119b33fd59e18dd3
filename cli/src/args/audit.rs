//! The arguments of `audit`.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
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

  # A node that joined less than a minute ago has no head in History yet
  sentinel audit verify --heads heads.json --of node-9 --allow-unanchored node-9.jsonl

The first record that does not fit is named, with the reason: changed, missing, repeated, reordered, of another chain, cut off.
One file alone shows that nothing in it was changed. With --heads or chains of several writers, each chain has to be vouched for,
and a chain that is recorded and may have been replaced has to be in the files. Several files of the same chain, such as an older
and a newer export, have to have the same records, and count as one.

Exit codes: 0 every record fits, and with --heads each chain is proven; 1 a record does not fit, two files have different records of
a chain, a chain is missing, or a file cannot be read; 2 the command line or the file of --heads is invalid; 3 every record fits,
and nothing proves a chain that --heads or other files should. One file alone is proven by nothing: it exits with 0, and the last
line states that.")]
pub(crate) struct AuditVerifyArgs {
    /// The exports: JSON lines, as the operator and `node-agent audit export` write them; - for standard input, and a directory
    /// for the records that an operator or agent keeps in it.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// Heads that History has, as `sentinel audit heads -o json` lists them; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) heads: Vec<PathBuf>,

    /// Whose the files are: a node, `operator`, or the id of a chain; may be repeated. Recorded chains of others need not be in
    /// the files. Without it, those of the same nodes and operators have to be, and all if a chain is unanchored.
    #[arg(long, value_name = "NODE", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) of: Vec<String>,

    /// Allow chains that no head proves, such as one that was begun less than a minute ago.
    #[arg(long)]
    pub(crate) allow_unanchored: bool,

    /// Allow chains that begin after their record 1, as retention (`--audit-keep`) leaves them. A removal by others is not found
    /// then.
    #[arg(long)]
    pub(crate) allow_retention: bool,
}
