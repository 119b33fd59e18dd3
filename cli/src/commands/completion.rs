//! `completion`: a script for a shell.

use clap::CommandFactory as _;

use crate::args::{Cli, CompletionArgs};
use crate::exit::{Ended, OK};
use crate::output::format::print_bytes;

pub(super) fn perform(args: &CompletionArgs) -> Ended {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sentinel", &mut script);
    print_bytes(&script)?;
    Ok(OK)
}
