//! `sign`: has the author of a Task sign what it runs. Needs no server; `ssh-keygen` makes the signature.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use jiff::{SignedDuration, Timestamp};
use sentinel_core::plan::{Select, TaskPlan};
use sentinel_operator::files;
use sentinel_policy::signature::{
    AnyNode, NAMESPACE, Nodes, Statement, StatementId, Version, check_kind, check_signature, key_kind,
};
use sentinel_protocol::signed::{ANNOTATION, Signed};
use serde_json::{Value, json};

use super::policy::plan;
use crate::args::SignArgs;
use crate::exit::{ExitResult, Failure, OK};
use crate::manifests::{FileKind, Manifest, read_all};
use crate::output::format::{OutputFormat, print};

/// All annotations of an object, keys and values, bytes.
///
/// Source: `TotalAnnotationSizeLimitB` of Kubernetes.
const MAX_ANNOTATIONS: usize = 256 << 10;

pub(super) fn execute(args: &SignArgs, namespace: &str) -> ExitResult {
    check_key(&args.key)?;
    let manifests = read_all(std::slice::from_ref(&args.task), namespace, FileKind::Any)?;
    let several = manifests.len() > 1;
    for mut manifest in manifests {
        let statement = statement(&plan(&manifest)?, args)?;
        let statement = serde_json::to_string(&statement).map_err(|error| Failure::new(error.to_string()))?;
        let signature = signature(&statement, &args.key)?;
        let signed = Signed { statement, signature };
        check_signature(&signed).map_err(|why| unusable(&args.key, &why))?;
        let signed = serde_json::to_string(&signed).map_err(|error| Failure::new(error.to_string()))?;
        let annotations = &mut manifest.object["metadata"]["annotations"];
        if !annotations.is_object() {
            *annotations = json!({});
        }
        annotations[ANNOTATION] = Value::String(signed);
        check_size(&manifest)?;
        if several {
            print("---\n")?;
        }
        OutputFormat::Yaml.print_document(&manifest.object)?;
    }
    Ok(OK)
}

/// Most bytes of a key file, as ssh-keygen writes them.
const MAX_KEY: u64 = 64 << 10;

/// Refuses a key whose signatures no node can verify, before it asks for a passphrase or a touch.
fn check_key(path: &Path) -> Result<(), Failure> {
    let kind = |path: &Path| files::read_text(path, MAX_KEY).ok().and_then(|text| key_kind(&text));
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    match kind(path).or_else(|| kind(Path::new(&public))) {
        Some(kind) => check_kind(&kind).map_err(|why| unusable(path, &why)),
        // ssh-keygen states what is wrong with the file; the signature is checked in any case.
        None => Ok(()),
    }
}

fn unusable(key: &Path, why: &str) -> Failure {
    Failure::usage(format!("failed to sign with the key {}: {why}", key.display()))
        .hint("Make a key that nodes can verify: ssh-keygen -t ed25519")
}

/// Refuses a Task that the API server would refuse.
fn check_size(manifest: &Manifest) -> Result<(), Failure> {
    let annotations = manifest.object["metadata"]["annotations"].as_object().into_iter().flatten();
    let all: usize = annotations.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if all <= MAX_ANNOTATIONS {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "task/{}: signed, its annotations have {all} bytes, and an API server takes {MAX_ANNOTATIONS}: the statement has the script, \
         the arguments and the standard input once more",
        manifest.name
    ))
    .hint("Sign a Task that runs a program or a script which the nodes have, by its path"))
}

fn statement(plan: &TaskPlan, args: &SignArgs) -> Result<Statement, Failure> {
    let nodes = match (&plan.targets.select, args.any_node, &args.node[..]) {
        (_, true, _) => Nodes::Any(AnyNode::Any),
        (Select::Names(names), _, []) => Nodes::Named(names.iter().map(ToString::to_string).collect()),
        (_, _, []) => {
            let message =
                "nodes cannot verify a selector; name the nodes with --node, or sign for all with --any-node";
            return Err(Failure::usage(message));
        }
        (_, _, nodes) => Nodes::Named(nodes.to_vec()),
    };
    let id = StatementId::try_from(uuid::Uuid::new_v4().to_string()).map_err(Failure::new)?;
    let valid_for =
        SignedDuration::try_from(args.valid_for).map_err(|error| Failure::usage(error.to_string()))?;
    let not_after = Timestamp::now()
        .checked_add(valid_for)
        .map_err(|_| Failure::usage("--for is longer than a calendar has"))?;
    Ok(Statement {
        version: Version,
        id,
        namespace: plan.task.namespace.to_string(),
        name: plan.task.name.to_string(),
        run: plan.request.clone(),
        nodes,
        audience: args.audience.clone(),
        not_after,
        runs: args.runs,
    })
}

/// Has `ssh-keygen` sign the statement. It asks for a passphrase, or a touch, on the terminal.
fn signature(statement: &str, key: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(format!("failed to sign with ssh-keygen: {error}; it is a part of OpenSSH"))
    };
    let mut signer = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", NAMESPACE, "-f"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // It reads all of its input before it writes.
    if let Some(mut input) = signer.stdin.take() {
        // Where it has ended early, its message states why.
        let _ = input.write_all(statement.as_bytes());
    }
    let output = signer.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::new(format!("failed to sign with the key {}: {why}", key.display())))
}
