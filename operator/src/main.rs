//! The operator process: flags, log, run, exit code.

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use sentinel_operator::config::{Cli, EXIT_CONFIG, EXIT_FAILURE, Verb};
use sentinel_operator::{http, run};
use sentinel_telemetry::FilterFile;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Verb::Openapi) = cli.verb {
        return match std::io::stdout().write_all(http::openapi::text().as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            // Who reads it has read enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => {
                let why = std::io::Error::other(format!("failed to write to standard output: {error}"));
                fail(EXIT_FAILURE, &why)
            }
        };
    }
    // Tasks and output are private to the operator's user; a file that others may read gets its mode where it is created.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    keep_memory_private();
    let config = match cli.flags.into_config() {
        Ok(config) => config,
        Err(error) => return fail(EXIT_CONFIG, &error),
    };
    let log = match sentinel_telemetry::init(config.log_format, &config.log) {
        Ok(log) => log,
        Err(error) => return fail(EXIT_CONFIG, &error),
    };
    // With more than one provider in the tree, the first TLS connection would panic unless one is chosen.
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(EXIT_FAILURE, &error),
    };
    if let Some(file) = config.log_filter_file.clone() {
        runtime.spawn(FilterFile::new(file, log).keep_current());
    }
    match runtime.block_on(run::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = if error.is_configuration() { EXIT_CONFIG } else { EXIT_FAILURE };
            fail(code, &error)
        }
    }
}

/// The memory has values of Secrets while they are sealed, and keys and tokens: it is in no core dump, also where `core_pattern` is a
/// program, for which the limit does not count, and no other process of this user reads it by /proc or traces it.
fn keep_memory_private() {
    // Neither needs a privilege.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), ..getrlimit(Resource::Core) });
}

/// Prints the error with its causes, and returns the exit code.
fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    let mut text = format!("operator: {error}");
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let message = deeper.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = deeper.source();
    }
    // Nothing is left to do when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(code)
}
