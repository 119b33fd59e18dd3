//! `logs --fold` and `run --fold`: what the nodes of a Run wrote, equal outputs as one.

use sentinel_api::view::{OutputGroupView, OutputsView};

use super::execution;
use crate::client::{Client, escape};
use crate::exit::{ExitResult, FAILED, Failure, OK};
use crate::follow::{AttemptSelector, LogOptions, NodeLog};
use crate::output::counted;
use crate::output::format::{note, print as print_text};
use crate::output::printer::Prefix;
use crate::output::text::Text;

/// More nodes than this that wrote the same are shown as one without being asked.
const MANY: u64 = 8;

/// Most lines of a group that is shown after the output itself.
const LAST_LINES: u32 = 10;

pub(super) async fn print(client: &Client, task_uid: &str, run: u32, options: LogOptions) -> ExitResult {
    let outputs = read(client, task_uid, run).await?;
    groups(client, task_uid, run, options, outputs).await
}

/// The same after the output itself, if so many nodes wrote the same that it helps: the last lines of each group. `whole`
/// is the command that shows all of them.
pub(super) async fn print_if_many(
    client: &Client,
    task_uid: &str,
    run: u32,
    options: LogOptions,
    whole: &str,
) -> Result<(), Failure> {
    let outputs = read(client, task_uid, run).await?;
    let is_large =
        |group: &OutputGroupView| group.count > MANY && group.stdout.bytes + group.stderr.bytes > 0;
    if outputs.groups.iter().any(is_large) {
        note(&format!(
            "\nEqual outputs as one, the last {LAST_LINES} lines of each; in full with: {whole}\n"
        ));
        groups(client, task_uid, run, LogOptions { tail: Some(LAST_LINES), ..options }, outputs).await?;
        note("");
    }
    Ok(())
}

async fn read(client: &Client, task_uid: &str, run: u32) -> Result<OutputsView, Failure> {
    let path = format!("/api/v1/runs/{}/{run}/outputs", escape(task_uid));
    Ok(client.read("the outputs of a Run", &client.get(&path).await?)?)
}

async fn groups(
    client: &Client,
    task_uid: &str,
    run: u32,
    options: LogOptions,
    outputs: OutputsView,
) -> ExitResult {
    for (index, group) in outputs.groups.iter().enumerate() {
        print_text(head(group, index > 0))?;
        if group.stdout.bytes + group.stderr.bytes == 0 {
            continue;
        }
        let log = NodeLog {
            client: client.clone(),
            path: format!("{}/log", execution::path(task_uid, run, &group.node)),
            node: group.node.clone(),
            prefix: Prefix::Section,
            options,
            attempts: AttemptSelector::Number(group.attempt.max(1)),
            permits: None,
        };
        Box::pin(log.print()).await?;
    }
    if outputs.pending > 0 {
        let have = if outputs.pending == 1 { "has" } else { "have" };
        note(&format!("{} {have} not ended.", counted(outputs.pending, "node")));
    }
    if let Some(partial) = outputs.partial {
        note(Text::message().plain(format!("nodes may be missing: {}", partial.message)));
        return Ok(FAILED);
    }
    Ok(OK)
}

/// `== web-[1-40,43] (41 nodes): Failed: exit code 3`, with an empty line before all but the first.
fn head(group: &OutputGroupView, is_after: bool) -> Text {
    let begin = if is_after { "\n== " } else { "== " };
    let nodes = if group.count == 1 { String::new() } else { format!(" ({})", counted(group.count, "node")) };
    let has_news = group.outcome != "Succeeded" && !group.message.is_empty();
    let why = if has_news { format!(": {}", group.message) } else { String::new() };
    let nothing = if group.stdout.bytes + group.stderr.bytes == 0 { "; no output" } else { "" };
    Text::from(begin)
        .single_line(&group.nodes)
        .plain(nodes)
        .plain(": ")
        .single_line(&group.outcome)
        .single_line(&why)
        .plain(nothing)
        .plain("\n")
}
