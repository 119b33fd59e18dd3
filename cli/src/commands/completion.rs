//! `completion` and `reference`: what is generated from the definition of the command line.

use clap::CommandFactory as _;

use crate::args::{Cli, CompletionArgs};
use crate::exit::{ExitResult, OK};
use crate::output::sink::print_generated;

pub(super) fn execute(args: &CompletionArgs) -> ExitResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sentinel", &mut script);
    print_generated(&script)?;
    Ok(OK)
}

pub(super) fn reference() -> ExitResult {
    print_generated(crate::reference::page().as_bytes())?;
    Ok(OK)
}
