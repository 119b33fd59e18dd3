//! `get`: lists of Tasks, Runs, Executions and nodes, and single Tasks and Executions.

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};

use super::flags::context_flags;
use super::{describe, execution, nodes, sort, tables};
use crate::args::{ExecutionsArgs, GetArgs, Noun, StateFilter};
use crate::client::{Client, Listed, Query, task_path};
use crate::exit::{ExitResult, FAILED, Failure, OK};
use crate::output::counted;
use crate::output::format::{OutputFormat, note, print};
use crate::output::table::Table;
use crate::output::text::Text;
use crate::view::Task;

pub(super) fn execute<'a>(
    client: &'a Client,
    namespace: &'a str,
    args: &'a GetArgs,
) -> LocalBoxFuture<'a, ExitResult> {
    executed(client, namespace, args).boxed_local()
}

async fn executed(client: &Client, namespace: &str, args: &GetArgs) -> ExitResult {
    let scope = (!args.all_namespaces).then_some(namespace);
    let list = |path: &'static str, query: Query| async move {
        let limit = if args.limit == 0 { usize::MAX } else { args.limit as usize };
        Ok::<_, Failure>(client.list(path, query, limit, args.page.as_deref()).await?)
    };
    match &args.noun {
        Noun::Nodes { name: Some(name) } => nodes::execute(client, Some(name), args.output, None).await,
        Noun::Nodes { name: None } => nodes::execute(client, None, args.output, Some(args)).await,
        Noun::Tasks { name: Some(name) } => {
            let (namespace, name) = name.within(namespace);
            one_task(client, namespace, name, args.output).await
        }
        Noun::Tasks { name: None } => {
            let mut query = Query::default();
            query.maybe("namespace", scope);
            let listed = sorted(list("/api/v1/tasks", query).await?, args)?;
            let table = |items: &[Value], wide, namespace| tables::tasks(client, items, wide, namespace);
            print_list(&listed, args.output, "tasks", scope, &table)
        }
        Noun::Runs { task } => {
            let mut query = Query::default();
            query.maybe("namespace", scope);
            query.maybe("task", task.as_deref());
            let listed = sorted(list("/api/v1/runs", query).await?, args)?;
            let table = |items: &[Value], wide, namespace| Ok(tables::runs(items, wide, namespace));
            print_list(&listed, args.output, "runs", scope, &table)
        }
        Noun::Executions(filter) => {
            if let Some(name) = &filter.name {
                one_execution(client, namespace, name, args.output).await
            } else {
                let listed = list("/api/v1/executions", executions_query(filter, scope)).await?;
                let listed = sorted(listed, args)?;
                let table = |items: &[Value], wide, namespace| Ok(tables::executions(items, wide, namespace));
                print_list(&listed, args.output, "executions", scope, &table)
            }
        }
    }
}

fn sorted(mut listed: Listed, args: &GetArgs) -> Result<Listed, Failure> {
    if let Some(field) = &args.sort_by {
        sort::by(&mut listed.items, field, &args.noun)?;
    }
    Ok(listed)
}

/// Builds a table from items; wide or not, with a column for the namespace or not.
type TableOf<'a> = dyn Fn(&[Value], bool, bool) -> Result<Table, Failure> + 'a;

fn print_list(
    listed: &Listed,
    output: OutputFormat,
    noun: &str,
    scope: Option<&str>,
    table: &TableOf<'_>,
) -> ExitResult {
    let items = &listed.items;
    match output {
        OutputFormat::Json | OutputFormat::Yaml => {
            output.print_document(&document(listed))?;
        }
        OutputFormat::Name => {
            let names = items.iter().map(|item| name_of(item, noun));
            print(names.fold(Text::new(), |text, name| text.single_line(&name).plain("\n")))?;
        }
        OutputFormat::Table | OutputFormat::Wide => {
            let table = table(items, output == OutputFormat::Wide, scope.is_none())?;
            if !table.is_empty() {
                print(table.text())?;
            } else if listed.partial.is_none() {
                let namespace = scope.map_or(String::new(), |namespace| format!(" in namespace {namespace}"));
                note(&format!("No {noun} found{namespace}."));
            }
        }
    }
    if listed.next.is_some() {
        note(Text::message().plain(truncated(items.len(), noun)));
    }
    match &listed.partial {
        None => Ok(OK),
        Some(why) => {
            note(Text::message().plain(format!("{noun} may be missing: {why}")));
            Ok(FAILED)
        }
    }
}

/// A list as the API returns it, regardless of the number of pages.
fn document(listed: &Listed) -> Value {
    let mut value = json!({"items": listed.items});
    if let Some(next) = &listed.next {
        value["next"] = json!(next);
    }
    if let Some(why) = &listed.partial {
        value["partial"] = json!({"message": why});
    }
    value
}

/// The warning that a list is truncated, and how to list the rest.
fn truncated(shown: usize, noun: &str) -> String {
    let filters = match noun {
        "executions" => ", or filter with --task, --run, --node, --state or --outcome",
        "runs" => ", or filter with --task",
        _ => "",
    };
    let one = noun.trim_end_matches('s');
    let only = if shown == 1 { format!("first {one} is") } else { format!("first {shown} {noun} are") };
    format!("only the {only} shown: list more with --limit N, all with --limit 0{filters}")
}

fn name_of(item: &Value, noun: &str) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    match noun {
        "tasks" => format!("task/{}", text(&item["metadata"]["name"])),
        "runs" => format!("run/{}/{}", text(&item["task"]), item["run"]),
        _ => format!("execution/{}", text(&item["id"])),
    }
}

fn executions_query(filter: &ExecutionsArgs, scope: Option<&str>) -> Query {
    let mut query = Query::default();
    query.maybe("namespace", scope);
    query.maybe("task", filter.task.as_deref());
    query.maybe("run", filter.run);
    query.maybe("node", filter.node.as_deref());
    query.maybe("outcome", filter.outcome());
    query.maybe(
        "state",
        filter.state.map(|state| match state {
            StateFilter::Pending => "Pending",
            StateFilter::WaitingForNode => "WaitingForNode",
            StateFilter::Dispatched => "Dispatched",
            StateFilter::Running => "Running",
            StateFilter::Ended => "Ended",
        }),
    );
    query
}

async fn one_task(client: &Client, namespace: &str, name: &str, output: OutputFormat) -> ExitResult {
    let value = client.get(&task_path(namespace, name)).await?;
    let flags = context_flags(client, namespace);
    let task: Task = client.read("a Task", &value)?;
    match output {
        OutputFormat::Json | OutputFormat::Yaml => {
            output.print_document(&value)?;
            note_omissions(&task, &value, &flags);
        }
        OutputFormat::Name => print(Text::from("task/").single_line(name).plain("\n"))?,
        OutputFormat::Table | OutputFormat::Wide => {
            let wide = output == OutputFormat::Wide;
            print(tables::tasks(client, std::slice::from_ref(&value), wide, false)?.text())?;
            if let Some(sentence) = explanation(&task) {
                print(&format!("\n{sentence}\n"))?;
            }
            let nodes = tables::nodes_of(&task);
            if !nodes.is_empty() {
                print(Text::from("\n").append(nodes.text()))?;
            }
            let run = task.status.run.unwrap_or_default();
            let left = run.target_count.saturating_sub(task.status.nodes.len() as u64);
            if left > 0 {
                print(&format!(
                    "and {left} more: sentinel get executions --task {name} --run {} --limit 0{flags}\n",
                    run.number
                ))?;
            }
        }
    }
    Ok(OK)
}

/// Warns readers of JSON and YAML of what the status of a Task omits.
fn note_omissions(task: &Task, value: &Value, flags: &str) {
    let name = &task.metadata.name;
    let run = task.status.run.clone().unwrap_or_default();
    let (listed, all) = (task.status.nodes.len() as u64, run.target_count);
    if listed > 0 && listed < all {
        note(&format!(
            "sentinel: status.nodes has {listed} of {}; list all with: sentinel get executions --task {name} --run {} --limit 0{flags}",
            counted(all, "node"),
            run.number
        ));
    }
    let recent = value["status"]["recentRuns"].as_array().map_or(0, Vec::len) as u64;
    let earlier = u64::from(run.number).saturating_sub(1);
    if recent > 0 && recent < earlier {
        note(&format!(
            "sentinel: status.recentRuns has only the latest {}; list all with: sentinel get runs --task {name} --limit 0{flags}",
            counted(recent, "earlier run")
        ));
    }
}

/// Reason and message of the condition that explains the status best.
fn explanation(task: &Task) -> Option<String> {
    let rejected = task.condition("Accepted").filter(|condition| condition.status == "False");
    let kinds = ["Stalled", "Suspended", "Degraded", "Reconciling"];
    let current =
        || kinds.iter().find_map(|kind| task.condition(kind).filter(|condition| condition.status == "True"));
    let condition = rejected.or_else(current).or_else(|| task.already_executed())?;
    (!condition.message.is_empty()).then(|| format!("{}: {}", condition.reason, condition.message))
}

async fn one_execution(client: &Client, namespace: &str, name: &str, output: OutputFormat) -> ExitResult {
    let value = client.get(&execution::path_of(client, namespace, name).await?).await?;
    match output {
        OutputFormat::Json | OutputFormat::Yaml => {
            output.print_document(&value)?;
        }
        OutputFormat::Name => print(Text::new().single_line(&name_of(&value, "executions")).plain("\n"))?,
        OutputFormat::Table => print(describe::execution(&value))?,
        OutputFormat::Wide => print(tables::executions(std::slice::from_ref(&value), true, false).text())?,
    }
    if let Some(why) = value["partial"]["message"].as_str() {
        note(Text::message().plain(why));
        return Ok(FAILED);
    }
    Ok(OK)
}
