//! The node agent, and (executed again) the fork server of its supervisors.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory;
use sentinel_audit::export::Export;
use sentinel_audit::report::{Opened, Report, Source, Terms, Verdict};
use sentinel_node_agent::baseline::{self, Role};
use sentinel_node_agent::config::{AgentConfig, AuditVerb, Cli, Command, RunArgs};
use sentinel_node_agent::journal::{AUDIT, Listing};
use sentinel_node_agent::{health, policy, run, shortage, supervisor};
use sentinel_protocol::shown::escaped;
use sentinel_telemetry::FilterFile;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    // Before any thread or runtime exists.
    if supervisor::is_requested() {
        return supervisor::main();
    }
    let unfit = baseline::apply(Role::Agent);
    let words: Vec<_> = std::env::args_os().collect();
    let cli = Cli::read(&words).unwrap_or_else(|error| error.exit());
    let done = match (cli.command, cli.run) {
        (Some(Command::Health { state_dir }), _) => health::health(&state_dir).map_err(Into::into),
        (Some(Command::Policy(command)), _) => match policy::run(&command, &mut print) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            // 1 is a verdict.
            Err(error) => return failed(&*error, 2),
        },
        (Some(Command::Journal { state_dir }), _) => print_journal(&state_dir),
        (Some(Command::Audit { verb: AuditVerb::Export { state_dir } }), _) => export_audit(&state_dir),
        (Some(Command::Audit { verb: AuditVerb::Verify { state_dir, allow_retention } }), _) => {
            verify_audit(&state_dir, allow_retention)
        }
        (None, Some(args)) => unfit.map_err(Into::into).and_then(|()| run_agent(&args)),
        (None, None) => {
            let _ = Cli::command().print_help();
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error, 1),
    }
}

/// Prints the error, and returns the exit code.
fn failed(error: &(dyn Error + 'static), code: u8) -> ExitCode {
    // Nothing is left to do when standard error is closed.
    let _ = writeln!(std::io::stderr(), "node-agent: {}", escaped(&shortage::describe(error)));
    ExitCode::from(code)
}

/// Writes to standard output. A reader that has seen enough closes its pipe, which is not a failure.
fn print(text: &str) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| format!("failed to write to standard output: {error}").into()),
    }
}

fn export_audit(state_dir: &Path) -> Result<(), Box<dyn Error>> {
    let mut records = Export::open(&state_dir.join(AUDIT))?;
    match std::io::copy(&mut records, &mut std::io::stdout().lock()) {
        // The reader has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        copied => copied
            .map(drop)
            .map_err(|error| format!("failed to copy the audit records to standard output: {error}").into()),
    }
}

fn verify_audit(state_dir: &Path, allow_retention: bool) -> Result<(), Box<dyn Error>> {
    let directory = state_dir.join(AUDIT);
    // Without records there is nothing to report on.
    Export::open_some(&directory)?;
    let open = || Export::open_some(&directory).map(Opened::from).map_err(std::io::Error::other);
    let source = Source { name: directory.display().to_string(), open: Box::new(open) };
    let report = Report::of(&[source], None, Terms { allow_retention, ..Terms::default() });
    print(&report.to_string())?;
    if report.verdict() == Verdict::Fits {
        Ok(())
    } else {
        Err("the audit records could not be verified; the lines with FAILED state why".into())
    }
}

fn print_journal(state_dir: &Path) -> Result<(), Box<dyn Error>> {
    print(&Listing::read(state_dir)?.to_string())
}

/// A runtime that has no blocking thread and can start none panics. With one that stays, an agent on a node without a process or
/// thread left waits for that one.
const BLOCKING_THREADS_STAY: Duration = Duration::from_hours(24 * 365);

fn run_agent(args: &RunArgs) -> Result<(), Box<dyn Error>> {
    let log = sentinel_telemetry::init(args.log_format.into(), &args.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(BLOCKING_THREADS_STAY)
        .build()?;
    runtime.block_on(async {
        // Made while the node has room for one; see the constant.
        tokio::task::spawn_blocking(|| {}).await?;
        if let Some(file) = args.log_filter_file.clone() {
            tokio::spawn(FilterFile::new(file, log).keep_current());
        }
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let node = args.node_name.as_deref().unwrap_or("-");
        tracing::info!(node, operator = %args.operator_url, version = env!("CARGO_PKG_VERSION"), "agent starting");
        run::run(AgentConfig::from(args), Box::pin(shutdown)).await?;
        tracing::info!("agent stopped; commands continue");
        Ok(())
    })
}
