//! What the targets of a Run wrote, equal outputs as one: by outcome, exit code and the digests that agents report with
//! the end of a command, so that no output is read.

use std::cmp::Reverse;
use std::collections::HashMap;

use sentinel_api::fold::fold_names;
use sentinel_api::view::{OutputGroupView, OutputsView, Partial, StreamDetails};
use sentinel_protocol::to_operator::StreamSummary;

use super::answer::Answer;
use super::api::Api;
use super::error::ApiError;
use super::executions::{self, unable};
use super::request::{MAX_PAGE, Query};
use crate::history::{ExecutionQuery, ExecutionRecord, OutcomeName};

/// Which streams must be equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EqualBy {
    Stdout,
    Stderr,
    Both,
}

/// What the targets of a group have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    outcome: OutcomeName,
    exit_code: Option<u8>,
    stdout: Option<Content>,
    stderr: Option<Content>,
}

/// What is compared of a stream.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Content {
    bytes: u64,
    sha256: String,
}

impl Content {
    fn of(stream: &StreamSummary) -> Self {
        Self { bytes: stream.bytes, sha256: stream.sha256.clone() }
    }
}

impl Key {
    fn of(record: &ExecutionRecord, outcome: OutcomeName, equal: EqualBy) -> Self {
        Self {
            outcome,
            exit_code: record.exit_code,
            stdout: (equal != EqualBy::Stderr).then(|| Content::of(&record.output.stdout)),
            stderr: (equal != EqualBy::Stdout).then(|| Content::of(&record.output.stderr)),
        }
    }
}

/// Targets with one key: the first by name, and the names of all.
struct Group {
    first: ExecutionRecord,
    nodes: Vec<String>,
}

pub(super) async fn get(api: &Api, parts: &[String], query: &Query) -> Result<Answer, ApiError> {
    let equal = query
        .one_of(
            "equal",
            &[("stdout", EqualBy::Stdout), ("stderr", EqualBy::Stderr), ("both", EqualBy::Both)],
        )?
        .unwrap_or(EqualBy::Both);
    let (task, run) = executions::run_id(parts)?;
    let mut wanted = ExecutionQuery {
        namespace: api.within.as_ref().map(|within| within.as_str().to_owned()),
        task_uid: Some(task.clone()),
        run: Some(run),
        limit: MAX_PAGE as u32,
        ..ExecutionQuery::default()
    };
    let mut groups: HashMap<Key, Group> = HashMap::new();
    let (mut ended, mut pending, mut partial) = (0, 0, None);
    loop {
        let listed =
            api.records.executions(wanted.clone(), |_| true).await.map_err(|error| unable(&error))?;
        partial = partial.or(listed.partial);
        for execution in listed.items {
            let Some(outcome) = execution.outcome() else {
                pending += 1;
                continue;
            };
            ended += 1;
            let record = execution.record;
            let node = record.node.to_string();
            let group = groups
                .entry(Key::of(&record, outcome, equal))
                .or_insert_with(|| Group { first: record, nodes: Vec::new() });
            group.nodes.push(node);
        }
        match listed.next {
            Some(next) => wanted.after = Some(next),
            None => break,
        }
    }
    if ended + pending == 0 && partial.is_none() {
        return Err(ApiError::not_found(format!("no Run {run} of Task {task}")));
    }
    let mut groups: Vec<(Key, Group)> = groups.into_iter().collect();
    groups.sort_by_cached_key(|(key, group)| {
        let succeeded = key.outcome == OutcomeName::Succeeded;
        let count = group.nodes.len();
        // Of what failed, the most frequent first; of what succeeded, the odd ones first.
        let order = if succeeded { (1, count, Reverse(0)) } else { (0, 0, Reverse(count)) };
        (order, group.first.node.to_string())
    });
    let groups = groups.into_iter().map(|(key, group)| view(&key, &group)).collect();
    Answer::json(&OutputsView { groups, ended, pending, partial: partial.map(Partial::of) })
}

fn view(key: &Key, group: &Group) -> OutputGroupView {
    let first = &group.first;
    OutputGroupView {
        outcome: key.outcome.as_str().to_owned(),
        exit_code: key.exit_code,
        count: group.nodes.len() as u64,
        nodes: fold_names(group.nodes.iter().map(String::as_str)),
        node: first.node.to_string(),
        attempt: first.attempt,
        message: first.message.clone(),
        stdout: StreamDetails::from(&first.output.stdout),
        stderr: StreamDetails::from(&first.output.stderr),
    }
}
