//! `node-agent policy lint` and `node-agent policy test`.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use sentinel_policy::asked::Asked;
use sentinel_policy::effect::Effect;
use sentinel_policy::lint::Finding;
use sentinel_policy::rule::Rule;
use sentinel_policy::verdict::Decision;
use sentinel_policy::what::{AbsolutePath, What};
use sentinel_protocol::limits::MAX_CONTROL_FRAME;
use sentinel_protocol::request::Environment;
use sentinel_protocol::to_agent::Start;

use super::digests::Digests;
use super::examiner::examined;
use super::file::read;
use crate::host;
use crate::supervisor::{HostNamespaces, refused_program};

const TEST_EXAMPLES: &str = "The request is a `Start` as JSON, as `sentinel policy request TASK` prints it for a Task.

Examples:
  sentinel policy request task.yaml > request.json && node-agent policy test policy.yaml request.json
  sentinel policy request task.yaml | kubectl exec -i -n sentinel-system POD -- node-agent policy test /etc/sentinel/policy/policy.yaml -";

/// What to do with a policy.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Print what a policy allows implicitly, and which programs it allows in vain on this node. Exit with 1 if the policy cannot be used, or has such rules with --strict.
    Lint {
        /// The policy.
        policy: PathBuf,
        /// Exit with 1 if anything is found.
        #[arg(long)]
        strict: bool,
        /// This node is not entered by its process 1: programs of `Host` are found where this command runs.
        #[arg(long)]
        here: bool,
    },
    /// Print what a policy decides about a request on this node, rule by rule. Exit with 1 if it is refused.
    #[command(after_help = TEST_EXAMPLES)]
    Test {
        /// The policy.
        policy: PathBuf,
        /// The request, or `-` for standard input.
        request: PathBuf,
        /// This node is not entered by its process 1: `Host` is where this command runs.
        #[arg(long)]
        here: bool,
    },
}

/// Runs a command; whether it found nothing wrong.
///
/// # Errors
/// When the policy or the request cannot be read.
pub fn run(command: &PolicyCommand) -> Result<bool, Box<dyn Error>> {
    let mut out = io::stdout().lock();
    match command {
        PolicyCommand::Lint { policy, strict, here } => {
            let policy_read = read(policy)?;
            let mut findings = policy_read.lint();
            let host = if *here { HostNamespaces::Own } else { HostNamespaces::OfInit };
            findings.extend(policy_read.rules().iter().flat_map(|rule| refused_programs(rule, host)));
            for finding in &findings {
                writeln!(out, "{finding}")?;
            }
            if findings.is_empty() {
                writeln!(out, "{}: nothing found", policy.display())?;
            }
            Ok(findings.is_empty() || !strict)
        }
        PolicyCommand::Test { policy, request, here } => {
            let policy = read(policy)?;
            let start = request_in(request)?;
            let host = if *here { HostNamespaces::Own } else { HostNamespaces::OfInit };
            let digests = Digests::default();
            let mut facts = examined(&start, host, &policy, &digests).facts;
            facts.name = Some(start.attempt.node.to_string());
            let verdict = policy.verdict(&Asked::of(&start, &facts, host::wall_clock()));
            write!(out, "{verdict}")?;
            Ok(matches!(verdict.decision, Decision::Allowed { .. }))
        }
    }
}

/// The programs that a rule allows, and that the agent refuses because others than root can replace them or their interpreters.
fn refused_programs(rule: &Rule, host: HostNamespaces) -> Vec<Finding> {
    let Some(What::OneOf(runnables)) = rule.what.as_ref().filter(|_| rule.effect == Effect::Allow) else {
        return Vec::new();
    };
    let environments = rule.environments.as_deref().unwrap_or_default();
    let programs = runnables.iter().flat_map(|runnable| {
        let interpreters = runnable.script.iter().flat_map(|script| &script.interpreters);
        runnable.programs.iter().flatten().chain(interpreters)
    });
    let finding = |(path, environment): (&AbsolutePath, &Environment)| {
        let why = refused_program(Path::new(path.as_str()), *environment, host)?;
        let message = format!("{path} is refused here in the environment {}: {why}", environment.as_str());
        Some(Finding { rule: rule.id.clone(), message })
    };
    programs
        .flat_map(|path| environments.iter().map(move |environment| (path, environment)))
        .filter_map(finding)
        .collect()
}

fn request_in(path: &Path) -> Result<Start, Box<dyn Error>> {
    let limit = MAX_CONTROL_FRAME as u64 + 1;
    let mut json = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().take(limit).read_to_end(&mut json)
    } else {
        fs::metadata(path).and_then(|_| File::open(path)?.take(limit).read_to_end(&mut json))
    };
    read.map_err(|error| format!("failed to read the request {}: {error}", path.display()))?;
    serde_json::from_slice(&json).map_err(|error| {
        format!(
            "failed to read the request {}: {error}; it is what `sentinel policy request TASK` prints",
            path.display()
        )
        .into()
    })
}
