//! The arguments of `approve` and `ceilings`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::task_name::TaskName;
use crate::candidates::{Wanted, completer};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sentinel approve -n ops disk-report
  sentinel approve --yes ops/disk-report

What would run, and where, is shown first. The approval is for exactly that, and for one Run. Who made, changed or reran the Task
cannot give it.

Exit codes: 0 approved, 1 not approved, 2 usage error.")]
pub(crate) struct ApproveArgs {
    /// The Task: NAME or NAMESPACE/NAME.
    #[arg(add = completer(Wanted::Task))]
    pub(crate) task: TaskName,

    /// Approve without asking.
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CeilingsArgs {
    #[command(subcommand)]
    pub(crate) what: CeilingsVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CeilingsVerb {
    /// Check a file of ceilings, and show what its author probably did not mean.
    #[command(after_help = "\
Examples:
  sentinel ceilings lint ceilings.yaml
  sentinel ceilings lint --strict ceilings.yaml

Exit codes: 0 the file can be used, 1 something was found with --strict, 2 the file cannot be used.")]
    Lint {
        /// The file, as --ceilings-file of the operator names it.
        #[arg(value_name = "FILE")]
        file: PathBuf,

        /// Exit with 1 if anything is found.
        #[arg(long)]
        strict: bool,
    },
}
