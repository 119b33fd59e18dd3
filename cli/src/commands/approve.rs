//! `approve`: shows what a Task would run, and where, and approves exactly that.

use std::io::{BufRead as _, IsTerminal as _, stdin};

use sentinel_operator::resource::status::AwaitingApproval;
use sentinel_operator::resource::{self, validate};
use sentinel_protocol::human::human_duration;
use serde_json::{Map, Value};

use super::flags::context_flags;
use crate::args::ApproveArgs;
use crate::client::{Client, task_path};
use crate::exit::{ExitResult, FAILED, Failure, OK};
use crate::output::counted;
use crate::output::format::{OutputFormat, note, print};
use crate::output::text::Text;

pub(super) async fn execute(client: &Client, namespace: &str, args: &ApproveArgs) -> ExitResult {
    let (namespace, name) = args.task.within(namespace);
    let value = client.get(&task_path(namespace, name)).await?;
    let task: resource::Task = client.read("a Task", &value)?;
    let Some(awaiting) = task.status.as_ref().and_then(|status| status.awaiting_approval.as_ref()) else {
        let flags = context_flags(client, namespace);
        return Err(Failure::new(format!("task {namespace}/{name} waits for no approval"))
            .hint(format!("Its state: sentinel get task {name}{flags}")));
    };
    // What is shown is what is approved, whatever the operator states about it.
    let is_shown = validate::spec_hash(&task).is_some_and(|hash| awaiting.spec_hash == hash.as_str());
    if !is_shown {
        let message =
            format!("task {namespace}/{name} was changed, and the operator has not observed that yet");
        return Err(Failure::new(message).hint("Try again in a moment."));
    }
    OutputFormat::Yaml.print_document(&shown(&value["spec"]))?;
    print(Text::from("\n").append(summary(&format!("{namespace}/{name}"), awaiting)))?;
    if !args.yes && !is_confirmed()? {
        note("not approved");
        return Ok(FAILED);
    }
    let digests = (awaiting.spec_hash.as_str(), awaiting.targets_digest.as_str());
    client.approve_task(namespace, name, awaiting.run, digests).await?;
    print(&format!("task/{name} run {} approved\n", awaiting.run))?;
    Ok(OK)
}

/// What the approval is for, and what else decides how it runs and what is kept, which who may change the Task may still change.
fn shown(spec: &Value) -> Value {
    let fields = ["targets", "run", "rollout", "retry", "timeouts"];
    let present = fields.into_iter().filter(|field| !spec[field].is_null());
    present.map(|field| (field.to_owned(), spec[field].clone())).collect::<Map<_, _>>().into()
}

/// What the Run is, one property per line.
fn summary(task: &str, awaiting: &AwaitingApproval) -> Text {
    let count = u64::try_from(awaiting.target_count).unwrap_or_default();
    let first = awaiting.first_targets.join(", ");
    let more = count.saturating_sub(awaiting.first_targets.len() as u64);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let seconds = u64::try_from(awaiting.valid_for_seconds).unwrap_or_default();
    let lines = [
        ("Task", task.to_owned()),
        ("Run", awaiting.run.to_string()),
        ("Nodes", format!("{}: {first}{more}", counted(count, "node"))),
        ("Requested by", awaiting.requested_by.join(", ")),
        ("Ceiling", awaiting.ceiling.clone()),
        ("Spec", awaiting.spec_hash.clone()),
        ("Targets", awaiting.targets_digest.clone()),
        ("Valid for", human_duration(seconds.saturating_mul(1_000))),
    ];
    lines.iter().fold(Text::new(), |text, (label, value)| {
        text.plain(format!("{:<14}", format!("{label}:"))).single_line(value).plain("\n")
    })
}

/// Whether the person at the terminal approves.
fn is_confirmed() -> Result<bool, Failure> {
    if !stdin().is_terminal() {
        return Err(Failure::usage("standard input is not a terminal, so the question cannot be asked")
            .hint("Approve without being asked: --yes"));
    }
    note("Approve this? Type yes:");
    let mut answer = String::new();
    stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(format!("failed to read the answer: {error}")))?;
    Ok(answer.trim() == "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_what_is_approved() {
        let awaiting = AwaitingApproval {
            run: 3,
            spec_hash: "12ab".to_owned(),
            targets_digest: "34cd".to_owned(),
            requested_by: vec!["alice".to_owned()],
            target_count: 24,
            first_targets: vec!["a".to_owned(), "b".to_owned()],
            ceiling: "team-a".to_owned(),
            valid_for_seconds: 3_600,
        };
        let text = format!("{:?}", summary("ops/disk", &awaiting));
        for part in ["ops/disk", "24 nodes: a, b and 22 more", "alice", "team-a", "12ab", "34cd", "1h"] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }
}
