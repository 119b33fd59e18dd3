//! `policy`: what the policy of a node allows, and what it decides about a Task. Needs no server.

use std::path::Path;

use jiff::Timestamp;
use sentinel_core::plan::{Select, TaskPlan};
use sentinel_node_agent::policy::{self, Digests, examined};
use sentinel_node_agent::supervisor::HostNamespaces;
use sentinel_operator::resource::{Task, validate};
use sentinel_policy::asked::{Asked, IdentityFacts, NodeFacts, ProgramFacts};
use sentinel_policy::document::Policy;
use sentinel_policy::signature::{self, Nodes};
use sentinel_policy::verdict::Decision;
use sentinel_protocol::ids::{AttemptId, Epoch};
use sentinel_protocol::request::{Deadlines, Program, RunRequest, Sandbox};
use sentinel_protocol::requester::{RequestedBy, Requester};
use sentinel_protocol::signed::{ANNOTATION, Signed};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::Start;

use crate::args::{ExplainArgs, PolicyArgs, PolicyVerb, RequestArgs};
use crate::exit::{ExitResult, FAILED, Failure, OK};
use crate::manifests::{FileKind, Manifest, read_all};
use crate::output::format::print;
use crate::output::text::Text;

/// In the place of the uid that the API server will give to the Task.
const NO_UID: &str = "00000000-0000-0000-0000-000000000000";

/// The user that a name stands for, where it is not looked up: any but root.
const ASSUMED_UID: u32 = 1000;

/// The user of a command in the sandbox Restricted that names none.
const NOBODY: u32 = 65534;

pub(super) fn execute(args: &PolicyArgs, namespace: &str) -> ExitResult {
    match &args.what {
        PolicyVerb::Lint { policy, strict } => lint(policy, *strict),
        PolicyVerb::Explain(args) => explain(args, namespace),
        PolicyVerb::Request(args) => {
            for start in requests(args, namespace)? {
                let json = serde_json::to_string(&start).map_err(|error| Failure::new(error.to_string()))?;
                print(Text::from("").plain(json).plain("\n"))?;
            }
            Ok(OK)
        }
    }
}

fn lint(path: &Path, strict: bool) -> ExitResult {
    let findings = read(path)?.lint();
    if findings.is_empty() {
        print(Text::from("").single_line(&path.display().to_string()).plain(": nothing found\n"))?;
    }
    for finding in &findings {
        print(Text::from("").single_line(&finding.to_string()).plain("\n"))?;
    }
    Ok(if strict && !findings.is_empty() { FAILED } else { OK })
}

fn explain(args: &ExplainArgs, namespace: &str) -> ExitResult {
    let policy = read(&args.policy)?;
    let starts = requests(&args.request, namespace)?;
    let mut code = OK;
    for start in &starts {
        let mut facts = if args.here { facts_here(&policy, start) } else { assumed(&start.request) };
        facts.name = Some(start.attempt.node.to_string());
        let verdict =
            policy.verdict(&Asked::of(start, &facts, UnixMillis(Timestamp::now().as_millisecond())));
        if starts.len() > 1 {
            print(Text::from("task/").single_line(&start.task.name).plain(":\n"))?;
        }
        for line in verdict.to_string().lines() {
            print(Text::from("").single_line(line).plain("\n"))?;
        }
        if let Decision::Refused { .. } = verdict.decision {
            code = FAILED;
        }
    }
    Ok(code)
}

fn read(path: &Path) -> Result<Policy, Failure> {
    policy::read(path).map_err(Failure::usage)
}

fn facts_here(policy: &Policy, start: &Start) -> NodeFacts {
    let digests = Digests::default();
    examined(start, HostNamespaces::Own, policy, &digests).facts
}

/// What a node would know about the request if nothing about it is unusual.
fn assumed(request: &RunRequest) -> NodeFacts {
    let named = match &request.program {
        Program::Command(argv) => argv.first().map_or("", String::as_str),
        Program::Script { interpreter, .. } => interpreter,
    };
    let program = if named.starts_with('/') {
        let (requested, resolved) = (named.to_owned(), named.to_owned());
        Ok(ProgramFacts { requested, resolved, sha256: None, replaceable: None, also_named: Vec::new() })
    } else {
        Err(format!(
            "where {named:?} is found is known on a node alone; name its absolute path, or use --here"
        ))
    };
    NodeFacts {
        name: None,
        program,
        working_dir: Ok(request.working_dir.clone()),
        identity: Ok(assumed_identity(request)),
    }
}

fn assumed_identity(request: &RunRequest) -> IdentityFacts {
    let sandbox = request.sandbox();
    let number = |name: Option<&String>, unnamed: u32| match name.map(String::as_str) {
        None => unnamed,
        Some("root") => 0,
        Some(name) => name.parse().unwrap_or(ASSUMED_UID),
    };
    // Without a user a command runs as the agent, which is root, unless its sandbox keeps it from that.
    let uid = number(request.user.as_ref(), if sandbox == Sandbox::Restricted { NOBODY } else { 0 });
    let gid = number(request.group.as_ref(), uid);
    let name = |name: Option<&String>, number: u32| match (name, number) {
        (Some(name), _) => Some(name.clone()),
        (None, 0) => Some("root".to_owned()),
        (None, NOBODY) => Some("nobody".to_owned()),
        (None, _) => None,
    };
    IdentityFacts {
        uid,
        user: name(request.user.as_ref(), uid),
        user_names: Vec::new(),
        gid,
        group: name(request.group.as_ref(), gid),
        primary_gid: request.group.is_none().then_some(gid),
        groups: Vec::new(),
        group_names: Vec::new(),
    }
}

fn requests(args: &RequestArgs, namespace: &str) -> Result<Vec<Start>, Failure> {
    let manifests = read_all(std::slice::from_ref(&args.task), namespace, FileKind::Any)?;
    manifests.iter().map(|manifest| request(manifest, args)).collect()
}

/// The plan of a Task that need not exist yet.
///
/// # Errors
/// Its problems.
pub(super) fn plan(manifest: &Manifest) -> Result<TaskPlan, Failure> {
    let invalid = |error: String| Failure::usage(format!("task/{}: {error}", manifest.name));
    let mut task: Task =
        serde_json::from_value(manifest.object.clone()).map_err(|error| invalid(error.to_string()))?;
    task.metadata.uid.get_or_insert_with(|| NO_UID.to_owned());
    validate::validate(&task).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        invalid(problems.join("; "))
    })
}

/// What the annotation of a signed Task has.
fn signed(manifest: &Manifest) -> Result<Option<Signed>, Failure> {
    let Some(text) = manifest.object["metadata"]["annotations"][ANNOTATION].as_str() else { return Ok(None) };
    let wrong = |error| Failure::usage(format!("task/{}: annotation {ANNOTATION}: {error}", manifest.name));
    serde_json::from_str(text).map(Some).map_err(wrong)
}

/// A node that the Task is meant for, where it states one.
fn usual_node(plan: &TaskPlan, signed: Option<&Signed>) -> String {
    let statement = signed.and_then(|signed| signature::read(&signed.statement).ok());
    let signed_for = match statement.map(|statement| statement.nodes) {
        Some(Nodes::Named(nodes)) => nodes.into_iter().next(),
        Some(Nodes::Any(_)) | None => None,
    };
    let named = match &plan.targets.select {
        Select::Names(names) => names.first().map(ToString::to_string),
        _ => None,
    };
    signed_for.or(named).unwrap_or_else(|| "node".to_owned())
}

/// The request for the first Attempt of a Task on a node.
fn request(manifest: &Manifest, args: &RequestArgs) -> Result<Start, Failure> {
    let plan = plan(manifest)?;
    let signed = signed(manifest)?;
    let node = args.node.clone().unwrap_or_else(|| usual_node(&plan, signed.as_ref()));
    let attempt: AttemptId = format!("{}/1/{node}/1", plan.uid)
        .parse()
        .map_err(|_| Failure::usage("--node is not the name of a node"))?;
    let requester = args.user.as_ref().map(|user| Requester {
        user: user.as_str().into(),
        uid: None,
        groups: args.group.iter().map(|group| group.as_str().into()).collect(),
    });
    let timeouts = &plan.timeouts;
    Ok(Start {
        attempt,
        spec_hash: plan.spec_hash,
        epoch: Epoch::from(1),
        task: plan.task,
        request: plan.request,
        deadlines: Deadlines {
            start_ms: timeouts.start_ms,
            run_ms: timeouts.run_ms,
            idle_ms: timeouts.idle_ms,
            total_ms: timeouts.total_ms,
            grace_ms: timeouts.grace_ms,
        },
        credit: 0,
        offer: 0,
        trace: None,
        requested_by: requester.map(|author| RequestedBy::new(author, None)),
        signed,
        secrets: None,
    })
}
