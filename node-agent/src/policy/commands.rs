//! `node-agent policy lint` and `node-agent policy test`.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use sentinel_policy::asked::Asked;
use sentinel_policy::document::Policy;
use sentinel_policy::effect::Effect;
use sentinel_policy::lint::Finding;
use sentinel_policy::rule::Rule;
use sentinel_policy::verdict::Decision;
use sentinel_policy::what::What;
use sentinel_protocol::human::human_bytes;
use sentinel_protocol::ids::{Epoch, SpecHash, TaskRef};
use sentinel_protocol::limits::MAX_CONTROL_FRAME;
use sentinel_protocol::request::{Deadlines, Environment, Program, RunRequest};
use sentinel_protocol::shown::single_line;
use sentinel_protocol::to_agent::Start;

use super::digests::Digests;
use super::examiner::examined;
use super::file::read;
use crate::host;
use crate::supervisor::{HostNamespaces, refused_program};

const TEST_HELP: &str = "A request is a `Start` as JSON, as `sentinel policy request TASK` prints it for each Task of a file. Several may follow each other.

Exit codes: 0 each request is allowed, 1 one is refused, 2 the policy or a request cannot be read.

Examples:
  sentinel policy request task.yaml > request.json && node-agent policy test policy.yaml request.json
  sentinel policy request task.yaml | kubectl exec -i -n sentinel-system POD -- node-agent policy test /etc/sentinel/policy/policy.yaml -";

const LINT_HELP: &str =
    "Exit codes: 0 the policy can be used, 1 something was found with --strict, 2 the policy cannot be used.";

/// What to do with a policy.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Print what a policy allows implicitly, and which programs it allows in vain on this node: those that are missing or not
    /// programs, that are symbolic links to others that the rule does not list, or that others than root can replace.
    #[command(after_help = LINT_HELP)]
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
    /// Print what a policy decides about requests on this node, rule by rule.
    #[command(after_help = TEST_HELP)]
    Test {
        /// The policy.
        policy: PathBuf,
        /// The requests, or `-` for standard input.
        request: PathBuf,
        /// This node is not entered by its process 1: `Host` is where this command runs.
        #[arg(long)]
        here: bool,
    },
}

/// Most bytes of requests: of 64, each as long as a message may be.
const MAX_REQUESTS: u64 = 64 * MAX_CONTROL_FRAME as u64;

/// Prints a text of whole lines.
pub type Print<'a> = &'a mut dyn FnMut(&str) -> Result<(), Box<dyn Error>>;

/// Runs a command; whether it found nothing wrong.
///
/// # Errors
/// When the policy or a request cannot be read, or the result cannot be printed.
pub fn run(command: &PolicyCommand, print: Print<'_>) -> Result<bool, Box<dyn Error>> {
    match command {
        PolicyCommand::Lint { policy: path, strict, here } => {
            let policy = read(path)?;
            let mut findings = policy.lint();
            findings
                .extend(policy.rules().iter().flat_map(|rule| programs_in_vain(rule, &policy, host(*here))));
            for finding in &findings {
                print(&(single_line(&finding.to_string()) + "\n"))?;
            }
            if findings.is_empty() {
                print(&(single_line(&format!("{}: nothing found", path.display())) + "\n"))?;
            }
            Ok(findings.is_empty() || !strict)
        }
        PolicyCommand::Test { policy, request, here } => {
            let policy = read(policy)?;
            let requests = requests_in(request)?;
            let digests = Digests::default();
            let mut are_allowed = true;
            for start in &requests {
                let mut facts = examined(start, host(*here), &policy, &digests).facts;
                facts.name = Some(start.attempt.node.to_string());
                let verdict = policy.verdict(&Asked::of(start, &facts, host::wall_clock()));
                if requests.len() > 1 {
                    print(&format!("task/{}:\n", start.task.name))?;
                }
                print(&verdict.to_string())?;
                are_allowed &= matches!(verdict.decision, Decision::Allowed { .. });
            }
            Ok(are_allowed)
        }
    }
}

fn host(here: bool) -> HostNamespaces {
    if here { HostNamespaces::Own } else { HostNamespaces::OfInit }
}

/// The programs and interpreters that a rule allows, and that no request can use in one of its environments on this node.
fn programs_in_vain(rule: &Rule, policy: &Policy, host: HostNamespaces) -> Vec<Finding> {
    let Some(What::OneOf(runnables)) = rule.what.as_ref().filter(|_| rule.effect == Effect::Allow) else {
        return Vec::new();
    };
    let environments = rule.environments.as_deref().unwrap_or_default();
    let listed = runnables.iter().flat_map(|runnable| {
        let of_script = runnable.script.iter().map(|script| (&*script.interpreters, &script.resolves_to));
        let of_command = runnable.programs.iter().map(|programs| (&**programs, &runnable.resolves_to));
        of_command.chain(of_script)
    });
    let mut findings = Vec::new();
    for (paths, targets) in listed {
        let is_listed = |resolved: &str| {
            paths.iter().chain(targets.iter().flatten()).any(|listed| listed.as_str() == resolved)
        };
        for (path, environment) in
            paths.iter().flat_map(|path| environments.iter().map(move |one| (path, *one)))
        {
            if let Some(why) = why_in_vain(path.as_str(), environment, policy, host, &is_listed) {
                let message = format!("{path} {why}");
                findings.push(Finding { rule: rule.id.clone(), message });
            }
        }
    }
    findings
}

/// Why a rule that lists this program, and these targets of links, allows nothing with it in this environment.
fn why_in_vain(
    path: &str,
    environment: Environment,
    policy: &Policy,
    host: HostNamespaces,
    is_listed: &dyn Fn(&str) -> bool,
) -> Option<String> {
    let name = environment.as_str();
    if let Some(why) = refused_program(Path::new(path), environment, host) {
        return Some(format!("is refused here in the environment {name}: {why}"));
    }
    let facts = examined(&start_of(path, environment)?, host, policy, &Digests::default()).facts;
    match facts.program {
        // Nothing can be examined in this environment, and so no program is at fault.
        Err(_) if facts.identity.is_err() => None,
        Err(why) => Some(format!("is allowed in vain here in the environment {name}: {why}")),
        Ok(found) if is_listed(&found.resolved) => None,
        Ok(found) => Some(format!(
            "is allowed in vain here in the environment {name}: it is {} without symbolic links, and the rule lists that in neither \
             `programs` or `interpreters` nor `resolvesTo`",
            found.resolved
        )),
    }
}

/// A request for a program, to examine the program.
fn start_of(path: &str, environment: Environment) -> Option<Start> {
    let program = Program::Command(vec![path.to_owned()]);
    let request = RunRequest { environment, ..RunRequest::new(program) };
    let attempt = "lint/1/node/1".parse().ok()?;
    let (spec_hash, task) = (SpecHash::new("0".repeat(64)).ok()?, TaskRef::new("default", "lint").ok()?);
    let deadlines = Deadlines { start_ms: 0, run_ms: None, idle_ms: None, total_ms: None, grace_ms: 0 };
    Some(Start::new(attempt, spec_hash, Epoch::from(1), task, request, deadlines))
}

/// The requests of a file, at least one.
fn requests_in(path: &Path) -> Result<Vec<Start>, String> {
    let is_stdin = path == Path::new("-");
    let name = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
    let failed = |why: String| format!("failed to read requests from {name}: {why}");
    let mut json = Vec::new();
    let read = if is_stdin {
        io::stdin().take(MAX_REQUESTS + 1).read_to_end(&mut json)
    } else {
        File::open(path).and_then(|file| file.take(MAX_REQUESTS + 1).read_to_end(&mut json))
    };
    read.map_err(|error| failed(error.to_string()))?;
    if json.len() as u64 > MAX_REQUESTS {
        return Err(failed(format!("it has more than {}; test them in parts", human_bytes(MAX_REQUESTS))));
    }
    let mut requests = Vec::new();
    for request in serde_json::Deserializer::from_slice(&json).into_iter() {
        let request = request.map_err(|error| {
            let (number, error) = (requests.len() + 1, single_line(&error.to_string()));
            failed(format!("request {number}: {error}; it is not what `sentinel policy request TASK` prints"))
        })?;
        requests.push(request);
    }
    if requests.is_empty() {
        return Err(failed("it is empty; `sentinel policy request TASK` prints them".to_owned()));
    }
    Ok(requests)
}
