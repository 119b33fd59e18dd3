//! `sentinel`: the command line of Sentinel Node, and its dev mode.

use std::process::ExitCode;

mod args;
mod client;
mod commands;
mod dev;
mod exit;
mod follow;
mod interrupt;
mod output;
mod view;

use exit::Failure;
use output::color::Paint;
use output::format::note;
use output::text::Text;
use sentinel_node_agent::baseline::{self, Role};

fn main() -> ExitCode {
    // A supervisor is this same binary, started anew for one command; it must not do anything else first.
    if sentinel_node_agent::supervisor::is_requested() {
        return sentinel_node_agent::supervisor::main();
    }
    let cli = match args::Cli::of(std::env::args_os()) {
        Ok(cli) => cli,
        // Help and version are asked for; everything else is a mistake.
        Err(refused) => {
            let code = if refused.error.use_stderr() { exit::USAGE } else { exit::OK };
            let _ = refused.error.print();
            if let Some(hint) = refused.hint {
                note(&format!("\n{hint}"));
            }
            return ExitCode::from(code);
        }
    };
    let role = match &cli.verb {
        args::Verb::Dev(_) => Role::Agent,
        _ => Role::CommandLine,
    };
    if let Err(unfit) = baseline::settle(role) {
        return ended(Err(Failure::new(unfit.to_string())));
    }
    output::color::choose(cli.global.color);
    // Only dev mode speaks TLS, and only if asked to; but the choice is the process's, and must come first.
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ended(Err(Failure::new(format!("failed to start: {error}")))),
    };
    let result = runtime.block_on(commands::perform(cli));
    // Nothing that still waits for a server or a file may hold the process up.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    ended(result)
}

fn ended(result: exit::Ended) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            note(Text::new().painted(Paint::Bad, "error:").then(" ").then(failure.message));
            if let Some(hint) = failure.hint {
                note(&hint);
            }
            ExitCode::from(failure.code)
        }
    }
}
