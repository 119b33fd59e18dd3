//! `completion` and `reference`: what is generated from the definition of the command line.

use std::path::Path;

use clap_complete::env::Shells;

use crate::args::CompletionArgs;
use crate::candidates::VARIABLE;
use crate::exit::{ExitResult, Failure, OK};
use crate::output::sink::print_generated;

/// Prints the script that has a shell ask this program for candidates.
pub(super) fn execute(args: &CompletionArgs) -> ExitResult {
    let name = args.shell.to_string();
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(&name) else {
        return Err(Failure::usage(format!("there is no completion for {name}")));
    };
    let mut script = Vec::new();
    shell
        .write_registration(VARIABLE, "sentinel", "sentinel", &program(), &mut script)
        .map_err(|error| Failure::new(format!("failed to write the completion script: {error}")))?;
    print_generated(&script)?;
    Ok(OK)
}

/// How a shell finds this program: by the name it was called by, or by its path, where it was called by one.
fn program() -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    let is_path = Path::new(&called).components().count() > 1;
    let path = std::env::current_exe().ok().filter(|_| is_path).unwrap_or_else(|| called.into());
    path.to_string_lossy().into_owned()
}

pub(super) fn reference() -> ExitResult {
    print_generated(crate::reference::page().as_bytes())?;
    Ok(OK)
}
