//! The Task that `run` creates from its flags.

use std::hash::{BuildHasher as _, Hasher as _};
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{input, selector};
use crate::args::{Leftovers, RunArgs, Sandbox};
use crate::client::Client;
use crate::exit::Failure;
use crate::output::counted;

/// The Task, with what the flags read from files and from standard input.
///
/// # Errors
/// A flag is invalid, input cannot be read, or the node is ambiguous.
pub(super) async fn task(
    client: &Client,
    namespace: &str,
    name: &str,
    args: &RunArgs,
) -> Result<Value, Failure> {
    let targets = targets(client, args).await?;
    let run = run(args)?;
    let mut spec = json!({
        "targets": targets,
        "run": run,
        "ttlAfterFinished": duration(args.ttl),
    });
    let timeouts: Map<String, Value> = [("run", args.timeout), ("idle", args.idle), ("grace", args.grace)]
        .into_iter()
        .filter_map(|(field, value)| Some((field.to_owned(), json!(duration(value?)))))
        .collect();
    if !timeouts.is_empty() {
        spec["timeouts"] = Value::Object(timeouts);
    }
    if let Some(limit) = args.retry {
        spec["retry"] = json!({"limit": limit});
    }
    if let Some(amount) = &args.max_concurrent {
        spec["rollout"] = json!({"maxConcurrent": number_or_string(amount)});
    }
    Ok(json!({
        "apiVersion": "sentinelnode.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }))
}

/// `spec.targets`.
async fn targets(client: &Client, args: &RunArgs) -> Result<Value, Failure> {
    let mut targets = if let Some(text) = &args.selector {
        json!({"nodeSelector": selector::parse(text)?})
    } else if !args.node.is_empty() {
        exist(client, &args.node).await?;
        json!({"nodeNames": args.node})
    } else if args.all {
        json!({"all": true})
    } else {
        json!({"nodeNames": [only_node(client).await?]})
    };
    if !args.exclude.is_empty() {
        targets["exclude"] = json!({"nodeNames": args.exclude});
    }
    Ok(targets)
}

/// Refuses names that no node has, where the caller may list nodes: a Run would wait for them in vain.
async fn exist(client: &Client, names: &[String]) -> Result<(), Failure> {
    let Ok(nodes) = client.nodes().await else { return Ok(()) };
    let is_unknown = |name: &&String| nodes.iter().all(|node| node.name != **name);
    let unknown: Vec<&str> = names.iter().filter(is_unknown).map(String::as_str).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let no = if unknown.len() == 1 { "no node" } else { "no nodes" };
    Err(Failure::new(format!("{} has {no} {}; nothing was started", client.server(), unknown.join(", ")))
        .hint("List nodes with: sentinel nodes"))
}

/// The name of the only node; with several, a flag is required.
async fn only_node(client: &Client) -> Result<String, Failure> {
    let nodes = client.nodes().await?;
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    match names[..] {
        [only] => Ok(only.to_owned()),
        [] => Err(Failure::new("no nodes yet").hint("List nodes with: sentinel nodes")),
        _ => Err(Failure::usage(format!(
            "there are {}: choose with --node NAME, -l SELECTOR or --all",
            counted(names.len() as u64, "node")
        ))
        .hint("List nodes with: sentinel nodes")),
    }
}

/// `spec.run`.
fn run(args: &RunArgs) -> Result<Map<String, Value>, Failure> {
    let mut run = Map::new();
    match &args.script {
        None => {
            run.insert("command".to_owned(), json!(args.command));
        }
        Some(file) => {
            if args.stdin && file == Path::new("-") {
                return Err(Failure::usage("--script - and --stdin cannot both read standard input"));
            }
            run.insert("script".to_owned(), json!({"text": input::script(file)?}));
        }
    }
    if args.stdin {
        run.insert("stdin".to_owned(), json!(input::stdin()?));
    }
    if !args.env.is_empty() {
        run.insert("env".to_owned(), Value::Array(env(args)?));
    }
    let leftovers = args.leftovers.map(|leftovers| match leftovers {
        Leftovers::End => "End",
        Leftovers::Keep => "Keep",
    });
    let sandbox = args.sandbox.map(|sandbox| match sandbox {
        Sandbox::Restricted => "Restricted",
        Sandbox::Baseline => "Baseline",
        Sandbox::Privileged => "Privileged",
    });
    let fields = [
        ("user", args.user.as_deref()),
        ("group", args.group.as_deref()),
        ("workingDir", args.workdir.as_deref()),
        ("environment", args.host.then_some("Host")),
        ("leftovers", leftovers),
        ("sandbox", sandbox),
    ];
    for (field, value) in fields {
        if let Some(value) = value {
            run.insert(field.to_owned(), json!(value));
        }
    }
    if args.read_only {
        run.insert("readOnlyRootFilesystem".to_owned(), json!(true));
    }
    if args.merge {
        run.insert("output".to_owned(), json!({"merge": true}));
    }
    let limits = limits(args);
    if !limits.is_empty() {
        run.insert("limits".to_owned(), Value::Object(limits));
    }
    Ok(run)
}

/// `spec.run.env`.
fn env(args: &RunArgs) -> Result<Vec<Value>, Failure> {
    args.env
        .iter()
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(json!({"name": name, "value": value})),
            _ => Err(Failure::usage(format!("invalid --env {pair:?}: expected NAME=VALUE"))),
        })
        .collect()
}

/// `spec.run.limits`.
fn limits(args: &RunArgs) -> Map<String, Value> {
    let limits = [
        ("cpu", args.cpu.as_deref().map(number_or_string)),
        ("memory", args.memory.as_deref().map(Value::from)),
        ("pids", args.pids.map(Value::from)),
        ("nofile", args.nofile.map(Value::from)),
        ("core", args.core.as_deref().map(Value::from)),
    ];
    limits.into_iter().filter_map(|(limit, value)| Some((limit.to_owned(), value?))).collect()
}

/// A value that is a number or a string, such as 2 or 25%.
fn number_or_string(text: &str) -> Value {
    text.parse::<u32>().map_or_else(|_| json!(text), |number| json!(number))
}

/// A duration as in a Task.
fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}

/// A random name: `run-` and eight letters or digits.
pub(crate) fn random_name() -> String {
    format!("run-{}", random_letters())
}

/// Eight random letters or digits.
pub(crate) fn random_letters() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    // Seeded randomly by the standard library.
    let mut random = std::collections::hash_map::RandomState::new().build_hasher();
    random.write_u32(std::process::id());
    let bits = random.finish();
    (0..8).map(|index| LETTERS[(bits >> (index * 5)) as usize & 31] as char).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn random_names_differ_and_are_valid() {
        let names: BTreeSet<String> = (0..100).map(|_| random_name()).collect();
        assert!(names.len() > 95);
        assert!(names.iter().all(|name| name.len() == 12
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')));
    }

    #[test]
    fn durations_have_the_form_of_a_task() {
        assert_eq!(duration(Duration::from_mins(10)), "600s");
        assert_eq!(duration(Duration::from_millis(1500)), "1500ms");
    }
}
