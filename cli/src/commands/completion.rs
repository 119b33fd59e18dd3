//! `completion`: a script for a shell.

use clap::CommandFactory as _;

use crate::args::{Cli, CompletionArgs};
use crate::exit::{Ended, OK};
use crate::output::sink::print_script;

pub(super) fn perform(args: &CompletionArgs) -> Ended {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sentinel", &mut script);
    print_script(&script)?;
    Ok(OK)
}
