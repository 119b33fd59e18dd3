//! `sentinel`: the command line of Sentinel Node, and its dev mode.

use std::process::ExitCode;

mod args;
mod candidates;
mod client;
mod cluster;
mod commands;
mod connection;
mod dev;
mod exit;
mod follow;
mod interrupt;
mod manifests;
mod output;
mod program;
mod reference;
mod roles;
mod view;

use clap_complete::CompleteEnv;
use exit::{ExitResult, Failure};
use futures_util::FutureExt as _;
use output::color::Style;
use output::format::note;
use output::text::Text;
use sentinel_node_agent::baseline::{self, Role};

fn main() -> ExitCode {
    // A fork server of supervisors is this binary, executed again; this check must come first.
    if sentinel_node_agent::supervisor::is_requested() {
        return sentinel_node_agent::supervisor::main();
    }
    // A shell asks for candidates; then this ends the process.
    CompleteEnv::with_factory(args::command_for_completion)
        .var(candidates::VARIABLE)
        .bin("sentinel")
        .complete();
    let cli = match args::Cli::parse_args(std::env::args_os()) {
        Ok(cli) => cli,
        Err(rejected) => return usage(&rejected),
    };
    let role = match &cli.verb {
        args::Verb::Dev(_) => Role::Agent,
        _ => Role::CommandLine,
    };
    if let Err(unfit) = baseline::apply(role) {
        return exit_code(Err(Failure::new(unfit.to_string())));
    }
    output::color::choose(cli.global.color);
    // The TLS provider is process-wide and must be installed before anything that may use it.
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit_code(Err(Failure::new(format!("failed to start: {error}")))),
    };
    // Behind a pointer: all verbs would be compiled once for each function of the runtime that a future passes through.
    let result = runtime.block_on(commands::execute(cli).boxed_local());
    // A blocking read of a file or a pipe must not delay the exit.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    exit_code(result)
}

/// Prints help, the version or a usage error.
fn usage(rejected: &args::ParseError) -> ExitCode {
    let code = if rejected.error.use_stderr() { exit::USAGE } else { exit::OK };
    let _ = rejected.error.print();
    if let Some(hint) = &rejected.hint {
        note(&program::phrased(&format!("\n{hint}")));
    }
    ExitCode::from(code)
}

/// Reports a failure, and gives the exit code.
fn exit_code(result: ExitResult) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            note(Text::new().styled(Style::Error, "error:").plain(" ").plain(failure.message));
            if let Some(hint) = failure.hint {
                note(&program::phrased(&hint));
            }
            ExitCode::from(failure.code)
        }
    }
}
