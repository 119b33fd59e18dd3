//! `run`: a Task made from the command line, followed to its end.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::Read as _;
use std::path::Path;

use http::Method;
use serde_json::{Map, Value, json};

use super::{cancel, stdin};
use crate::args::{Leftovers, RunArgs, RunForm};
use crate::client::Client;
use crate::exit::{Ended, Failure, INTERRUPTED, OK};
use crate::follow::{Form, Look, Subject, Which, advice, exit_code, follow, report, summarize};
use crate::interrupt::{Came, or_interrupt, pressed_again};
use crate::output::format::{note, print};
use crate::output::sink::print_json_line;
use crate::output::text::Text;
use crate::view::Task;

/// Most bytes of a script that a Task carries.
const MAX_SCRIPT: usize = sentinel_protocol::limits::MAX_COMMAND_BYTES;

pub(super) async fn perform(client: &Client, namespace: &str, args: &RunArgs) -> Ended {
    let targets = targets(client, args).await?;
    let content = content(args)?;
    // What is written to a pipe may come later than we do; then it is seen at the end.
    let remarked = remark_on_input(args);
    let made_up = args.name.is_none();
    let name = args.name.clone().unwrap_or_else(made_up_name);
    let body = task(namespace, &name, &targets, content, args)?;
    let reply = client.call(Method::POST, "/api/v1/tasks", Some(&body)).await.map_err(|failure| {
        if !failure.is_conflict() {
            return failure;
        }
        let flags = flags(client, namespace);
        failure.hint(format!(
            "Run that one again with: sentinel rerun {name}{flags}\nOr remove it first with: sentinel delete {name}{flags}"
        ))
    })?;
    let task = Task::of(&reply.value);
    let form = match args.output {
        RunForm::Text => Form::Text,
        RunForm::Json => Form::Json,
    };
    if args.detach {
        note(&format!("Started. See it with: sentinel logs -f {name}{}", flags(client, namespace)));
        let created = json!({
            "type": "created",
            "namespace": task.metadata.namespace,
            "task": name,
            "taskUid": task.metadata.uid,
        });
        match form {
            Form::Text => print(&format!("{name}\n"))?,
            Form::Json => print_json_line(&created)
                .map_err(|error| Failure::new(format!("failed to write to standard output: {error}")))?,
        }
        return Ok(OK);
    }
    if !made_up {
        note(Text::sentinel().then(format!("task {}", task.full_name())));
    }
    let shown = Shown {
        look: Look { follow: true, timestamps: args.timestamps, form, ..Look::default() },
        prefixed: args.no_prefix.then_some(false),
    };
    let ended = watch(client, namespace, &name, Which::Latest, shown).await;
    if !remarked {
        remark_on_input(args);
    }
    ended
}

/// How what is followed is shown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shown {
    look: Look,
    prefixed: Option<bool>,
}

impl Shown {
    /// As it comes, to its end.
    pub(super) fn followed() -> Self {
        Self { look: Look { follow: true, ..Look::default() }, prefixed: None }
    }
}

/// Shows a Run to its end, and gives its exit code. The first Ctrl-C detaches, the second cancels.
pub(super) async fn watch(client: &Client, namespace: &str, name: &str, which: Which, shown: Shown) -> Ended {
    let subject = Subject {
        client: client.clone(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        which,
        only: BTreeSet::new(),
        look: shown.look,
        prefixed: shown.prefixed,
        origin: None,
    };
    match or_interrupt(follow(subject)).await? {
        Came::Through(followed) => {
            let followed = followed?;
            summarize(&followed);
            if let Some(advice) = advice(client, &followed).await {
                note(Text::sentinel().then(advice));
            }
            let code = exit_code(client, &followed).await?;
            if shown.look.form == Form::Json {
                report(&followed, code)?;
            }
            Ok(code)
        }
        Came::Interrupted => {
            let flags = flags(client, namespace);
            note(&format!(
                "\nDetached; it goes on. Ctrl-C again within 2 s cancels it.\n  follow it again:  sentinel logs -f {name}{flags}\n  cancel it:        sentinel cancel {name}{flags}"
            ));
            if pressed_again().await? {
                cancel::request(client, namespace, name, None).await?;
                note("Cancelled.");
            }
            Ok(INTERRUPTED)
        }
    }
}

/// The flags that a further command needs to find the same Task.
pub(super) fn flags(client: &Client, namespace: &str) -> String {
    let mut flags = String::new();
    if namespace != "default" {
        flags.push_str(" -n ");
        flags.push_str(namespace);
    }
    if !client.server().is_default() {
        flags.push_str(" --server ");
        flags.push_str(&client.server().to_string());
    }
    flags
}

async fn targets(client: &Client, args: &RunArgs) -> Result<Value, Failure> {
    let mut targets = if let Some(selector) = &args.selector {
        json!({"nodeSelector": parse_selector(selector)?})
    } else if !args.node.is_empty() {
        json!({"nodeNames": args.node})
    } else if args.all {
        json!({"all": true})
    } else {
        json!({"nodeNames": [the_only_node(client).await?]})
    };
    if !args.exclude.is_empty() {
        targets["exclude"] = json!({"nodeNames": args.exclude});
    }
    Ok(targets)
}

/// What is run: the command, or the script in its file.
fn content(args: &RunArgs) -> Result<Map<String, Value>, Failure> {
    let mut run = Map::new();
    match &args.script {
        None => {
            run.insert("command".to_owned(), json!(args.command));
        }
        Some(file) => {
            if args.stdin && file == Path::new("-") {
                return Err(Failure::usage("--script - and --stdin cannot both read standard input"));
            }
            run.insert("script".to_owned(), json!({"text": script(file)?}));
        }
    }
    if args.stdin {
        run.insert("stdin".to_owned(), json!(stdin::read()?));
    }
    Ok(run)
}

fn script(file: &Path) -> Result<String, Failure> {
    let name = file.display();
    // One byte more than fits, to know that there is more.
    let most = MAX_SCRIPT as u64 + 1;
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::usage(format!("failed to read the script {name}: {error}")))?;
    if bytes.len() > MAX_SCRIPT {
        let limit = MAX_SCRIPT >> 10;
        return Err(Failure::usage(format!(
            "the script {name} is longer than {limit} KiB, the most that a Task carries"
        ))
        .hint("Put it where the nodes can fetch it, and run what fetches it."));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::usage(format!(
            "the script {name} is not UTF-8 text: the byte at offset {at} is not part of a character"
        ))
    })
}

/// Remarks that our input goes nowhere, where one was meant to be read; gives whether it did.
fn remark_on_input(args: &RunArgs) -> bool {
    let takes_it = args.stdin || args.script.as_deref() == Some(Path::new("-"));
    let offered = !takes_it && stdin::is_offered();
    if offered {
        note(Text::sentinel().then("standard input is not handed to the command; --stdin does that"));
    }
    offered
}

/// The one node there is; with several of them, a flag must name those that are meant.
async fn the_only_node(client: &Client) -> Result<String, Failure> {
    let nodes = client.get("/api/v1/nodes").await?;
    let names: Vec<&str> =
        nodes["items"].as_array().into_iter().flatten().filter_map(|node| node["name"].as_str()).collect();
    match names[..] {
        [only] => Ok(only.to_owned()),
        [] => Err(Failure::new("no node is known yet").hint("See: sentinel nodes")),
        _ => Err(Failure::usage(format!("on which of {} nodes?", names.len()))
            .hint("Add --node NAME, -l SELECTOR or --all. See: sentinel nodes")),
    }
}

fn task(
    namespace: &str,
    name: &str,
    targets: &Value,
    mut run: Map<String, Value>,
    args: &RunArgs,
) -> Result<Value, Failure> {
    if !args.env.is_empty() {
        let env: Result<Vec<Value>, Failure> = args
            .env
            .iter()
            .map(|pair| match pair.split_once('=') {
                Some((name, value)) if !name.is_empty() => Ok(json!({"name": name, "value": value})),
                _ => Err(Failure::usage(format!("--env {pair:?} is not NAME=VALUE"))),
            })
            .collect();
        run.insert("env".to_owned(), Value::Array(env?));
    }
    let leftovers = args.leftovers.map(|leftovers| match leftovers {
        Leftovers::End => "End",
        Leftovers::Keep => "Keep",
    });
    let fields = [
        ("user", args.user.as_deref()),
        ("group", args.group.as_deref()),
        ("workingDir", args.workdir.as_deref()),
        ("environment", args.host.then_some("Host")),
        ("leftovers", leftovers),
    ];
    for (field, value) in fields {
        if let Some(value) = value {
            run.insert(field.to_owned(), json!(value));
        }
    }
    if args.merge {
        run.insert("output".to_owned(), json!({"merge": true}));
    }
    let limits = limits(args);
    if !limits.is_empty() {
        run.insert("limits".to_owned(), Value::Object(limits));
    }
    let mut spec = json!({
        "targets": targets,
        "run": run,
        "ttlAfterFinished": duration(args.ttl),
    });
    let timeouts: Map<String, Value> = [("run", args.timeout), ("idle", args.idle), ("grace", args.grace)]
        .into_iter()
        .filter_map(|(clock, span)| Some((clock.to_owned(), json!(duration(span?)))))
        .collect();
    if !timeouts.is_empty() {
        spec["timeouts"] = Value::Object(timeouts);
    }
    if let Some(limit) = args.retry {
        spec["retry"] = json!({"limit": limit});
    }
    if let Some(amount) = &args.max_concurrent {
        spec["rollout"] = json!({"maxConcurrent": number_or_text(amount)});
    }
    Ok(json!({
        "apiVersion": "sentinelnode.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }))
}

fn limits(args: &RunArgs) -> Map<String, Value> {
    let limits = [
        ("cpu", args.cpu.as_deref().map(number_or_text)),
        ("memory", args.memory.as_deref().map(Value::from)),
        ("pids", args.pids.map(Value::from)),
        ("nofile", args.nofile.map(Value::from)),
        ("core", args.core.as_deref().map(Value::from)),
    ];
    limits.into_iter().filter_map(|(limit, value)| Some((limit.to_owned(), value?))).collect()
}

/// What may be a number or a text, such as 2 or 25%.
fn number_or_text(text: &str) -> Value {
    text.parse::<u32>().map_or_else(|_| json!(text), |number| json!(number))
}

/// A span of time as a Task has it.
fn duration(span: std::time::Duration) -> String {
    let millis = span.as_millis();
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}

/// A name that nobody has had: `run-` and eight letters.
fn made_up_name() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = std::collections::hash_map::RandomState::new().build_hasher();
    random.write_u32(std::process::id());
    let bits = random.finish();
    let letters = (0..8).map(|index| LETTERS[(bits >> (index * 5)) as usize & 31] as char);
    format!("run-{}", letters.collect::<String>())
}

/// A label selector as kubectl takes it, as the `nodeSelector` of a Task.
fn parse_selector(text: &str) -> Result<Value, Failure> {
    let wrong = |part: &str| {
        Failure::usage(format!("{part:?} is not part of a label selector"))
            .hint("Parts, joined by commas: key=value, key!=value, key in (a,b), key notin (a,b), key, !key")
    };
    let mut labels = Map::new();
    let mut expressions = Vec::new();
    for part in selector_parts(text) {
        let part = part.trim();
        let expression = |key: &str, operator: &str, values: Vec<&str>| {
            let key = key.trim();
            if key.is_empty()
                || key.contains(char::is_whitespace)
                || values.iter().any(|v| v.contains(char::is_whitespace))
            {
                return Err(wrong(part));
            }
            let mut expression = json!({"key": key, "operator": operator});
            if !values.is_empty() {
                expression["values"] = json!(values);
            }
            Ok(expression)
        };
        if let Some((key, list)) = part.strip_suffix(')').and_then(|rest| rest.split_once('(')) {
            let values: Vec<&str> = list.split(',').map(str::trim).collect();
            let key = key.trim_end();
            if let Some(key) = key.strip_suffix(" notin") {
                expressions.push(expression(key, "NotIn", values)?);
            } else if let Some(key) = key.strip_suffix(" in") {
                expressions.push(expression(key, "In", values)?);
            } else {
                return Err(wrong(part));
            }
        } else if let Some((key, value)) = part.split_once("!=") {
            expressions.push(expression(key, "NotIn", vec![value.trim()])?);
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            expression(key, "In", vec![value.trim()])?;
            if labels.insert(key.trim().to_owned(), json!(value.trim())).is_some() {
                return Err(wrong(part));
            }
        } else if let Some(key) = part.strip_prefix('!') {
            expressions.push(expression(key, "DoesNotExist", Vec::new())?);
        } else {
            expressions.push(expression(part, "Exists", Vec::new())?);
        }
    }
    let mut selector = json!({});
    if !labels.is_empty() {
        selector["matchLabels"] = Value::Object(labels);
    }
    if !expressions.is_empty() {
        selector["matchExpressions"] = Value::Array(expressions);
    }
    Ok(selector)
}

/// Splits at commas outside of parentheses.
fn selector_parts(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    text.split(|character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_reads_as_kubectl_reads_it() {
        let selector = parse_selector("pool=web, zone!=a,gpu,!old,tier in (x, y),os notin (w)").unwrap();
        let expected = json!({
            "matchLabels": {"pool": "web"},
            "matchExpressions": [
                {"key": "zone", "operator": "NotIn", "values": ["a"]},
                {"key": "gpu", "operator": "Exists"},
                {"key": "old", "operator": "DoesNotExist"},
                {"key": "tier", "operator": "In", "values": ["x", "y"]},
                {"key": "os", "operator": "NotIn", "values": ["w"]},
            ],
        });
        assert_eq!(selector, expected);
    }

    #[test]
    fn what_is_no_selector_is_refused_by_name() {
        for text in ["", "a b", "=x", "a in", "(a)", "a=b,a=c", "a=b,,c", "a like (b)"] {
            assert!(parse_selector(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn made_up_names_differ_and_are_names() {
        let names: BTreeSet<String> = (0..100).map(|_| made_up_name()).collect();
        assert!(names.len() > 95);
        assert!(names.iter().all(|name| name.len() == 12
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')));
    }

    #[test]
    fn spans_are_written_as_a_task_has_them() {
        assert_eq!(duration(std::time::Duration::from_mins(10)), "600s");
        assert_eq!(duration(std::time::Duration::from_millis(1500)), "1500ms");
    }
}
