//! `get`: lists, and single things.

use serde_json::{Value, json};

use super::run::flags;
use super::{describe, execution, nodes, sort};
use crate::args::{ExecutionsArgs, GetArgs, Noun, StateFilter};
use crate::client::{Client, Listed, Query, task_path};
use crate::exit::{Ended, FAILED, Failure, OK};
use crate::output::format::{Format, note, print};
use crate::output::table::{Cell, Table};
use crate::output::text::Text;
use crate::output::time;
use crate::view::Task;

pub(super) async fn perform(client: &Client, namespace: &str, args: &GetArgs) -> Ended {
    let scope = (!args.all_namespaces).then_some(namespace);
    let list = |path: &'static str, query: Query| async move {
        let most = if args.limit == 0 { usize::MAX } else { args.limit as usize };
        client.list(path, query, most, args.page.as_deref()).await
    };
    match &args.what {
        Noun::Nodes => nodes::perform(client, None, args.output, Some(args)).await,
        Noun::Tasks { name: Some(name) } => one_task(client, namespace, name, args.output).await,
        Noun::Tasks { name: None } => {
            let mut query = Query::default();
            query.maybe("namespace", scope);
            let listed = sorted(list("/api/v1/tasks", query).await?, args)?;
            show(&listed, args.output, "tasks", scope, &|items, wide| tasks(items, wide, scope.is_none()))
        }
        Noun::Runs { task } => {
            let mut query = Query::default();
            query.maybe("namespace", scope);
            query.maybe("task", task.as_deref());
            let listed = sorted(list("/api/v1/runs", query).await?, args)?;
            show(&listed, args.output, "runs", scope, &|items, wide| runs(items, wide, scope.is_none()))
        }
        Noun::Executions(wanted) => {
            if let Some(name) = &wanted.name {
                one_execution(client, namespace, name, args.output).await
            } else {
                let listed = list("/api/v1/executions", executions_query(wanted, scope)).await?;
                let listed = sorted(listed, args)?;
                show(&listed, args.output, "executions", scope, &|items, wide| {
                    executions(items, wide, scope.is_none())
                })
            }
        }
    }
}

fn sorted(mut listed: Listed, args: &GetArgs) -> Result<Listed, Failure> {
    if let Some(field) = &args.sort_by {
        sort::by(&mut listed.items, field, &args.what)?;
    }
    Ok(listed)
}

fn show(
    listed: &Listed,
    output: Format,
    what: &str,
    scope: Option<&str>,
    table: &dyn Fn(&[Value], bool) -> Table,
) -> Ended {
    let items = &listed.items;
    match output {
        Format::Json | Format::Yaml => {
            output.print_whole(&whole(listed))?;
        }
        Format::Name => {
            print(items.iter().fold(Text::new(), |text, item| text.name(&name_of(item, what)).then("\n")))?;
        }
        Format::Table | Format::Wide => {
            let table = table(items, output == Format::Wide);
            if !table.is_empty() {
                print(table.text())?;
            } else if listed.partial.is_none() {
                let place = scope.map_or(String::new(), |namespace| format!(" in namespace {namespace}"));
                note(&format!("No {what} found{place}."));
            }
        }
    }
    if listed.next.is_some() {
        note(Text::sentinel().then(cut(items.len(), what)));
    }
    match &listed.partial {
        None => Ok(OK),
        Some(why) => {
            note(Text::sentinel().then(format!("{what} may be missing: {why}")));
            Ok(FAILED)
        }
    }
}

/// A list as the API gives it, however many pages it came in.
fn whole(listed: &Listed) -> Value {
    let mut value = json!({"items": listed.items});
    if let Some(next) = &listed.next {
        value["next"] = json!(next);
    }
    if let Some(why) = &listed.partial {
        value["partial"] = json!({"message": why});
    }
    value
}

/// That there is more than is shown, and how to get it.
fn cut(shown: usize, what: &str) -> String {
    let narrower = match what {
        "executions" => ", or narrow with --task, --run, --node, --state or --outcome",
        "runs" => ", or narrow with --task",
        _ => "",
    };
    format!(
        "only the first {shown} {what} are shown, there are more: --limit N shows more, --limit 0 all{narrower}"
    )
}

fn name_of(item: &Value, what: &str) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    match what {
        "tasks" => format!("task/{}", text(&item["metadata"]["name"])),
        "runs" => format!("run/{}/{}", text(&item["task"]), item["run"]),
        _ => format!("execution/{}", text(&item["id"])),
    }
}

fn tasks(items: &[Value], wide: bool, with_namespace: bool) -> Table {
    let mut heads =
        vec!["NAME", "PHASE", "NODES", "OK", "FAILED", "UNREACHABLE", "RUNNING", "WAITING", "AGE"];
    if with_namespace {
        heads.insert(0, "NAMESPACE");
    }
    if wide {
        heads.extend(["RUN", "TRIGGER", "PROGRESS", "TARGET", "COMMAND", "REASON"]);
    }
    let mut table = Table::new(&heads);
    for item in items {
        let task = Task::of(item);
        let run = task.status.run.clone().unwrap_or_default();
        let mut row = vec![
            Cell::new(&task.metadata.name),
            Cell::state(&task.status.phase),
            run.target_count.to_string().into(),
            run.counts.succeeded.to_string().into(),
            run.counts.failed.to_string().into(),
            run.counts.unreachable.to_string().into(),
            run.counts.running.to_string().into(),
            run.counts.waiting.to_string().into(),
            time::ago(task.metadata.creation_timestamp.as_deref()).into(),
        ];
        if with_namespace {
            row.insert(0, Cell::new(&task.metadata.namespace));
        }
        if wide {
            let reason = ["Stalled", "Reconciling", "Ready"].iter().find_map(|kind| task.condition(kind));
            row.extend([
                run.number.to_string().into(),
                Cell::new(&run.trigger),
                Cell::new(&run.progress),
                Cell::new(task.target()).at_most(40),
                Cell::new(task.command()).at_most(60),
                Cell::new(reason.map(|condition| condition.reason.clone()).unwrap_or_default()),
            ]);
        }
        table.row(row);
    }
    table
}

fn runs(items: &[Value], wide: bool, with_namespace: bool) -> Table {
    let mut heads = vec!["TASK", "RUN", "VERDICT", "TRIGGER", "NODES", "ENDED", "STARTED"];
    if with_namespace {
        heads.insert(0, "NAMESPACE");
    }
    if wide {
        heads.extend(["OUTCOMES", "COMMAND", "REASON"]);
    }
    let mut table = Table::new(&heads);
    for item in items {
        let text = |key: &str| item[key].as_str().unwrap_or("");
        let outcomes: Vec<(&String, u64)> = item["outcomes"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| (k, v.as_u64().unwrap_or(0)))
            .collect();
        let mut row = vec![
            Cell::new(text("task")),
            item["run"].to_string().into(),
            Cell::state(item["verdict"].as_str().unwrap_or("Running")),
            Cell::new(text("trigger")),
            item["targets"].to_string().into(),
            outcomes.iter().map(|(_, n)| n).sum::<u64>().to_string().into(),
            time::ago(item["startedAt"].as_str()).into(),
        ];
        if with_namespace {
            row.insert(0, Cell::new(text("namespace")));
        }
        if wide {
            let counts: Vec<String> = outcomes.iter().map(|(name, n)| format!("{name}={n}")).collect();
            row.extend([
                Cell::new(counts.join(",")),
                Cell::new(text("command")).at_most(60),
                Cell::new(text("reason")),
            ]);
        }
        table.row(row);
    }
    table
}

fn executions(items: &[Value], wide: bool, with_namespace: bool) -> Table {
    let mut heads = vec!["TASK", "RUN", "NODE", "STATE", "CODE", "DURATION", "STARTED"];
    if with_namespace {
        heads.insert(0, "NAMESPACE");
    }
    if wide {
        heads.extend(["ATTEMPT", "MESSAGE", "COMMAND", "ID"]);
    }
    let mut table = Table::new(&heads);
    for item in items {
        let text = |key: &str| item[key].as_str().unwrap_or("");
        let mut row = vec![
            Cell::new(text("task")),
            item["run"].to_string().into(),
            Cell::node(text("node")),
            Cell::state(text("state")),
            Cell::new(item["exitCode"].as_u64().map(|code| code.to_string()).unwrap_or_default()),
            Cell::new(item["durationMs"].as_u64().map(time::span).unwrap_or_default()),
            time::ago(item["startedAt"].as_str()).into(),
        ];
        if with_namespace {
            row.insert(0, Cell::new(text("namespace")));
        }
        if wide {
            row.extend([
                item["attempt"].to_string().into(),
                Cell::new(text("message")),
                Cell::new(text("command")).at_most(60),
                Cell::new(text("id")),
            ]);
        }
        table.row(row);
    }
    table
}

fn executions_query(wanted: &ExecutionsArgs, scope: Option<&str>) -> Query {
    let mut query = Query::default();
    query.maybe("namespace", scope);
    query.maybe("task", wanted.task.as_deref());
    query.maybe("run", wanted.run);
    query.maybe("node", wanted.node.as_deref());
    query.maybe("outcome", wanted.outcome());
    query.maybe(
        "state",
        wanted.state.map(|state| match state {
            StateFilter::Pending => "Pending",
            StateFilter::WaitingForNode => "WaitingForNode",
            StateFilter::Dispatched => "Dispatched",
            StateFilter::Running => "Running",
            StateFilter::Ended => "Ended",
        }),
    );
    query
}

async fn one_task(client: &Client, namespace: &str, name: &str, output: Format) -> Ended {
    let value = client.get(&task_path(namespace, name)).await?;
    let flags = flags(client, namespace);
    match output {
        Format::Json | Format::Yaml => {
            output.print_whole(&value)?;
            note_left_out(&Task::of(&value), &value, &flags);
        }
        Format::Name => print(Text::from("task/").name(name).then("\n"))?,
        Format::Table | Format::Wide => {
            let wide = output == Format::Wide;
            print(tasks(std::slice::from_ref(&value), wide, false).text())?;
            let task = Task::of(&value);
            if let Some(sentence) = why(&task) {
                print(&format!("\n{sentence}\n"))?;
            }
            let nodes = nodes_of(&task);
            if !nodes.is_empty() {
                print(Text::from("\n").append(nodes.text()))?;
            }
            let number = task.status.run.as_ref().map(|run| run.number);
            let left = task
                .status
                .run
                .map_or(0, |run| run.target_count)
                .saturating_sub(task.status.nodes.len() as u64);
            if left > 0 {
                let run = number.map(|number| format!(" --run {number}")).unwrap_or_default();
                print(&format!(
                    "and {left} more: sentinel get executions --task {name}{run} --limit 0{flags}\n"
                ))?;
            }
        }
    }
    Ok(OK)
}

/// What the status of a Task leaves out, for those who read it as JSON or YAML.
fn note_left_out(task: &Task, value: &Value, flags: &str) {
    let name = &task.metadata.name;
    let run = task.status.run.clone().unwrap_or_default();
    let (listed, all) = (task.status.nodes.len() as u64, run.target_count);
    if listed > 0 && listed < all {
        note(&format!(
            "sentinel: status.nodes has {listed} of {all} nodes; all: sentinel get executions --task {name} --run {} --limit 0{flags}",
            run.number
        ));
    }
    let recent = value["status"]["recentRuns"].as_array().map_or(0, Vec::len) as u64;
    let earlier = u64::from(run.number).saturating_sub(1);
    if recent > 0 && recent < earlier {
        note(&format!(
            "sentinel: status.recentRuns has the latest {recent} earlier runs only; all: sentinel get runs --task {name} --limit 0{flags}"
        ));
    }
}

/// The sentence that says most about how a Task stands.
fn why(task: &Task) -> Option<String> {
    let refused = task.condition("Accepted").filter(|condition| condition.status == "False");
    let kinds = ["Stalled", "Suspended", "Degraded", "Reconciling"];
    let current =
        || kinds.iter().find_map(|kind| task.condition(kind).filter(|condition| condition.status == "True"));
    let condition = refused.or_else(current)?;
    (!condition.message.is_empty()).then(|| format!("{}: {}", condition.reason, condition.message))
}

fn nodes_of(task: &Task) -> Table {
    let mut table = Table::new(&["NODE", "STATE", "CODE", "STARTED", "MESSAGE"]);
    for node in &task.status.nodes {
        table.row(vec![
            Cell::node(&node.name),
            Cell::state(&node.state),
            Cell::new(node.exit_code.map(|code| code.to_string()).unwrap_or_default()),
            time::ago(node.started_at.as_deref()).into(),
            Cell::new(&node.message),
        ]);
    }
    table
}

async fn one_execution(client: &Client, namespace: &str, name: &str, output: Format) -> Ended {
    let value = client.get(&execution::path_of(client, namespace, name).await?).await?;
    match output {
        Format::Json | Format::Yaml => {
            output.print_whole(&value)?;
        }
        Format::Name => print(Text::new().name(&name_of(&value, "executions")).then("\n"))?,
        Format::Table => print(describe::execution(&value))?,
        Format::Wide => print(executions(std::slice::from_ref(&value), true, false).text())?,
    }
    if let Some(why) = value["partial"]["message"].as_str() {
        note(Text::sentinel().then(why));
        return Ok(FAILED);
    }
    Ok(OK)
}
