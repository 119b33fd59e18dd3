//! `logs --fold`: what the nodes of a Run wrote, equal outputs as one.

use sentinel_api::view::{OutputGroupView, OutputsView};

use super::execution;
use crate::client::{Client, escape};
use crate::exit::{ExitResult, FAILED, OK};
use crate::follow::{AttemptSelector, LogOptions, NodeLog};
use crate::output::format::{note, print as print_text};
use crate::output::printer::Prefix;
use crate::output::text::Text;

pub(super) async fn print(client: &Client, task_uid: &str, run: u32, options: LogOptions) -> ExitResult {
    let path = format!("/api/v1/runs/{}/{run}/outputs", escape(task_uid));
    let outputs: OutputsView = client.read("the outputs of a Run", &client.get(&path).await?)?;
    for (index, group) in outputs.groups.iter().enumerate() {
        print_text(head(group, index > 0))?;
        if group.stdout.bytes + group.stderr.bytes == 0 {
            continue;
        }
        let log = NodeLog {
            client: client.clone(),
            path: format!("{}/log", execution::path(task_uid, run, &group.node)),
            node: group.node.clone(),
            prefix: Prefix::None,
            options,
            attempts: AttemptSelector::Number(group.attempt.max(1)),
            permits: None,
        };
        Box::pin(log.print()).await?;
    }
    if outputs.pending > 0 {
        note(&format!("{} nodes have not ended.", outputs.pending));
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
    let nodes = if group.count == 1 { String::new() } else { format!(" ({} nodes)", group.count) };
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
