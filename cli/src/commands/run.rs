//! `run`: a Task made from the command line, followed to its end.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _};

use http::Method;
use serde_json::{Map, Value, json};

use super::cancel;
use crate::args::RunArgs;
use crate::client::Client;
use crate::exit::{Ended, Failure, INTERRUPTED, OK};
use crate::follow::{Look, Subject, Which, exit_code, follow, summarize};
use crate::interrupt::{Came, or_interrupt, pressed_again};
use crate::output::format::{note, print};
use crate::view::Task;

pub(super) async fn perform(client: &Client, namespace: &str, args: RunArgs) -> Ended {
    let targets = targets(client, &args).await?;
    let made_up = args.name.is_none();
    let name = args.name.clone().unwrap_or_else(made_up_name);
    let body = task(namespace, &name, &targets, &args)?;
    let reply = client.call(Method::POST, "/api/v1/tasks", Some(&body)).await?;
    let task = Task::of(&reply.value);
    if args.detach {
        note(&format!("Started. See it with: sentinel logs -f {name}{}", flags(client, namespace)));
        print(&format!("{name}\n"))?;
        return Ok(OK);
    }
    if !made_up {
        note(&format!("sentinel: task {}", task.full_name()));
    }
    watch(client, namespace, &name, Which::Latest).await
}

/// Shows a Run to its end, and gives its exit code. The first Ctrl-C detaches, the second cancels.
pub(super) async fn watch(client: &Client, namespace: &str, name: &str, which: Which) -> Ended {
    let subject = Subject {
        client: client.clone(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        which,
        only: BTreeSet::new(),
        look: Look { follow: true, ..Look::default() },
        prefixed: None,
        origin: None,
    };
    match or_interrupt(follow(subject)).await? {
        Came::Through(followed) => {
            let followed = followed?;
            summarize(&followed);
            exit_code(client, &followed).await
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
        flags.push_str(client.server().base());
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

/// The one node there is; with several of them, somebody must say which.
async fn the_only_node(client: &Client) -> Result<String, Failure> {
    let nodes = client.get("/api/v1/nodes").await?;
    let names: Vec<&str> =
        nodes["items"].as_array().into_iter().flatten().filter_map(|node| node["name"].as_str()).collect();
    match names[..] {
        [only] => Ok(only.to_owned()),
        [] => Err(Failure::new("no node is known yet").hint("See: sentinel nodes")),
        _ => Err(Failure::usage(format!("on which of {} nodes?", names.len()))
            .hint("Say --node NAME, -l SELECTOR or --all. See: sentinel nodes")),
    }
}

fn task(namespace: &str, name: &str, targets: &Value, args: &RunArgs) -> Result<Value, Failure> {
    let mut run = json!({"command": args.command});
    if !args.env.is_empty() {
        let env: Result<Vec<Value>, Failure> = args
            .env
            .iter()
            .map(|pair| match pair.split_once('=') {
                Some((name, value)) if !name.is_empty() => Ok(json!({"name": name, "value": value})),
                _ => Err(Failure::usage(format!("--env {pair:?} is not NAME=VALUE"))),
            })
            .collect();
        run["env"] = Value::Array(env?);
    }
    if let Some(user) = &args.user {
        run["user"] = json!(user);
    }
    if let Some(directory) = &args.workdir {
        run["workingDir"] = json!(directory);
    }
    if args.host {
        run["environment"] = json!("Host");
    }
    let mut spec = json!({
        "targets": targets,
        "run": run,
        "ttlAfterFinished": duration(args.ttl),
    });
    if let Some(timeout) = args.timeout {
        spec["timeouts"] = json!({"run": duration(timeout)});
    }
    if let Some(amount) = &args.max_concurrent {
        let amount = amount.parse::<u32>().map_or_else(|_| json!(amount), |number| json!(number));
        spec["rollout"] = json!({"maxConcurrent": amount});
    }
    Ok(json!({
        "apiVersion": "sentinelnode.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }))
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
        Failure::usage(format!("{part:?} is no part of a label selector"))
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
