//! Follows one Run of a Task until it is over and its output is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sentinel_core::reconcile::run::TargetState;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::link::{PATIENCE, while_watching};
use super::node_log::{Attempts, Look, NodeLog};
use super::output::Form;
use super::summary::names;
use super::waiting::Waiting;
use crate::client::{Client, Event, Events, Query, escape};
use crate::exit::Failure;
use crate::output::color::Paint;
use crate::output::format::note;
use crate::output::printer::Prefix;
use crate::output::sink::print_json_line;
use crate::output::text::Text;
use crate::view::{self, Counts, Node, Run, Task};

/// Most logs that are read at once; others follow as these end.
const LOGS_AT_ONCE: usize = 128;

/// How long after the end of a Run its logs may still be silent.
const LAST_OUTPUT_WITHIN: Duration = Duration::from_secs(10);

/// How long the server may answer that there is no such Task: just after its start it may not know yet.
const MISSING_FOR: Duration = Duration::from_secs(10);

/// How long History may lag behind the end of a Run.
const HISTORY_WITHIN: Duration = Duration::from_secs(3);

/// Which Run.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    /// That of the Task's latest edit.
    Latest,
    /// The one with this number.
    Number(u32),
    /// The one that a rerun request began.
    OfToken(String),
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Followed {
    /// The Task as it stood at the end of the Run.
    pub(crate) task: Task,
    /// The Run; `None` when the Task could not be run, or runs anew already.
    pub(crate) run: Option<Run>,
    /// Why there is no more to follow.
    pub(crate) end: RunEnd,
}

/// Why a Run is not followed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunEnd {
    /// It is over.
    Over,
    /// Its Task was deleted, and it with it.
    Deleted,
    /// A newer Run has taken its place.
    Replaced,
    /// The Task cannot be run.
    Invalid,
}

/// What is followed.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) which: Which,
    /// Only these nodes; all when empty.
    pub(crate) only: BTreeSet<String>,
    pub(crate) look: Look,
    /// Whether lines begin with their node: `None` is when there is more than one.
    pub(crate) prefixed: Option<bool>,
    /// What else lines begin with.
    pub(crate) origin: Option<String>,
}

/// Follows a Run to its end.
pub(crate) async fn follow(subject: Subject) -> Result<Followed, Failure> {
    let client = subject.client.clone();
    while_watching(&client, Box::pin(follow_on(subject))).await
}

async fn follow_on(subject: Subject) -> Result<Followed, Failure> {
    let mut logs = Logs::new(&subject);
    let mut seen: Option<Task> = None;
    let mut pause = Duration::from_millis(50);
    let mut reached = Instant::now();
    loop {
        let mut answered = false;
        match watch(&subject, &mut logs, &mut seen, &mut answered).await {
            Ok(Some(followed)) => {
                logs.finish().await?;
                return logs.settled(followed).await;
            }
            // The stream ended; the server may be starting anew.
            Ok(None) => {}
            Err(failure) => {
                let missing = failure.is_not_found() && reached.elapsed() > MISSING_FOR;
                if seen.is_none() || missing || reached.elapsed() > PATIENCE {
                    return Err(failure);
                }
            }
        }
        if answered {
            reached = Instant::now();
            pause = Duration::from_millis(50);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// Follows events until the Run is over; `None` when the stream ended before.
async fn watch(
    subject: &Subject,
    logs: &mut Logs,
    seen: &mut Option<Task>,
    answered: &mut bool,
) -> Result<Option<Followed>, Failure> {
    let mut events: Events = subject.client.task_events(&subject.namespace, &subject.name).await?;
    *answered = true;
    loop {
        let event = tokio::select! {
            event = events.next() => event?,
            () = until(logs.waiting.due()) => {
                logs.report_waiting(seen.as_ref())?;
                continue;
            }
        };
        let Some(event) = event else { return Ok(None) };
        match event {
            Event::Task(value) => {
                let task = Task::of(&value);
                let over = look(subject, logs, &task).await?;
                *seen = Some(task);
                if over.is_some() {
                    return Ok(over);
                }
            }
            Event::Deleted(value) => {
                let task = Task::of(&value);
                let run = task.status.run.clone();
                // Its Run may have ended, and its status not have been written again, before it was gone.
                return Ok(Some(Followed { run, task, end: RunEnd::Deleted }));
            }
            Event::Synced => {}
        }
    }
}

/// Done at that moment; never without one.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// Opens the logs that can be opened; gives the Run when it is over.
async fn look(subject: &Subject, logs: &mut Logs, task: &Task) -> Result<Option<Followed>, Failure> {
    let without_run = |end| Ok(Some(Followed { task: task.clone(), run: None, end }));
    if matches!(subject.which, Which::Latest) && matches!(task.standing(), view::Standing::Invalid(_)) {
        return without_run(RunEnd::Invalid);
    }
    let Some(run) = wanted(&subject.which, task) else { return Ok(None) };
    if let Some(current) = &task.status.run
        && current.number > run
    {
        return without_run(RunEnd::Replaced);
    }
    let Some(current) = task.status.run.clone().filter(|current| current.number == run) else {
        return Ok(None);
    };
    logs.started(task, &current)?;
    logs.open(task, &current).await?;
    let over = current.verdict.is_some() || current.finished_at.is_some();
    let listed = if over { &[][..] } else { &task.status.nodes[..] };
    logs.waiting.observe(listed, &subject.only, Instant::now());
    if over && task.spec["retry"]["limit"].as_u64() > Some(0) {
        logs.hear_of_all_attempts(task, &current).await?;
    }
    Ok(over.then(|| Followed { task: task.clone(), run: Some(current), end: RunEnd::Over }))
}

/// The number of the wanted Run, once it is known.
fn wanted(which: &Which, task: &Task) -> Option<u32> {
    let current = task.status.run.as_ref().map(|run| run.number);
    match which {
        Which::Number(number) => Some(*number),
        Which::Latest => {
            current.filter(|_| task.status.observed_generation == Some(task.metadata.generation))
        }
        Which::OfToken(token) => current.filter(|_| task.status.handled.rerun.as_deref() == Some(token)),
    }
}

/// The logs being printed.
struct Logs {
    subject: Subject,
    printing: JoinSet<Result<(), Failure>>,
    places: Arc<Semaphore>,
    /// The nodes whose logs are being printed, and the latest Attempt known of each.
    open: BTreeMap<String, watch::Sender<u32>>,
    /// Whether the beginning of the Run was written.
    started: bool,
    /// The nodes on which it has not begun.
    waiting: Waiting,
}

impl Logs {
    fn new(subject: &Subject) -> Self {
        Self {
            subject: subject.clone(),
            printing: JoinSet::new(),
            places: Arc::new(Semaphore::new(LOGS_AT_ONCE)),
            open: BTreeMap::new(),
            started: false,
            waiting: Waiting::default(),
        }
    }

    /// The Run has begun: the first object for programs.
    fn started(&mut self, task: &Task, run: &Run) -> Result<(), Failure> {
        if self.started || self.subject.look.form == Form::Text {
            return Ok(());
        }
        self.started = true;
        print_json_line(&json!({
            "type": "started",
            "namespace": task.metadata.namespace,
            "task": task.metadata.name,
            "taskUid": task.metadata.uid,
            "run": run.number,
            "targets": run.target_count,
        }))
        .map_err(|error| Failure::new(format!("failed to write to standard output: {error}")))
    }

    /// Why nodes keep the Run waiting, where that was not reported yet.
    fn report_waiting(&mut self, task: Option<&Task>) -> Result<(), Failure> {
        for (nodes, message) in self.waiting.take(Instant::now()) {
            if self.subject.look.form == Form::Json {
                print_json_line(&json!({"type": "waiting", "nodes": nodes, "message": message}))
                    .map_err(|error| Failure::new(format!("failed to write to standard output: {error}")))?;
                continue;
            }
            let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
            let text = match task {
                // Beside the Runs of other Tasks.
                Some(task) if self.subject.origin.is_some() => {
                    Text::sentinel().then(task.full_name()).then(": ")
                }
                _ => Text::sentinel(),
            };
            note(text.append(names(&nodes)).then(format!(": waiting: {message}")));
        }
        Ok(())
    }

    async fn open(&mut self, task: &Task, run: &Run) -> Result<(), Failure> {
        let nodes = self.nodes(task, run).await?;
        let many = run.target_count > 1 || nodes.len() > 1;
        let origin = self.subject.origin.as_ref().map_or(0, |origin| origin.len() + 1);
        let width = nodes.iter().map(String::len).max().unwrap_or(0) + origin;
        for node in nodes {
            let wanted = self.subject.only.is_empty() || self.subject.only.contains(&node);
            if !wanted || self.open.contains_key(&node) {
                continue;
            }
            let attempt = task.status.nodes.iter().find(|status| status.name == node);
            let (latest, known) = watch::channel(attempt.and_then(|status| status.attempt).unwrap_or(1));
            self.open.insert(node.clone(), latest);
            let prefix = if self.subject.prefixed.unwrap_or(many) {
                Prefix::Node { name: node.clone(), origin: self.subject.origin.clone(), width }
            } else {
                Prefix::None
            };
            let log = NodeLog {
                client: self.subject.client.clone(),
                path: log_path(&task.metadata.uid, run.number, &node),
                node,
                prefix,
                look: self.subject.look,
                attempts: Attempts::All(known),
                places: Some(Arc::clone(&self.places)),
            };
            self.printing.spawn(log.print());
        }
        for node in &task.status.nodes {
            self.hear_of(&node.name, node.attempt.unwrap_or(1));
        }
        Ok(())
    }

    fn hear_of(&self, node: &str, attempt: u32) {
        if let Some(latest) = self.open.get(node) {
            latest.send_if_modified(|latest| {
                let later = attempt > *latest;
                *latest = attempt.max(*latest);
                later
            });
        }
    }

    /// The status lists a part of the nodes only, and each look at it may miss an Attempt: the end tells all of them.
    async fn hear_of_all_attempts(&self, task: &Task, run: &Run) -> Result<(), Failure> {
        for item in self.executions(task, run).await? {
            let attempt = item["attempt"].as_u64().and_then(|number| u32::try_from(number).ok());
            self.hear_of(item["node"].as_str().unwrap_or_default(), attempt.unwrap_or(1));
        }
        Ok(())
    }

    async fn executions(&self, task: &Task, run: &Run) -> Result<Vec<Value>, Failure> {
        let mut query = Query::default();
        query.add("taskUid", &task.metadata.uid);
        query.add("run", run.number);
        self.subject.client.list_all("/api/v1/executions", query).await
    }

    /// The nodes of a Run whose logs can be opened by now.
    async fn nodes(&self, task: &Task, run: &Run) -> Result<Vec<String>, Failure> {
        if !run.targets.is_empty() || run.target_count == 0 {
            return Ok(run.targets.clone());
        }
        // A long target list is not in the status: those that are under way or over are asked for.
        let items = self.executions(task, run).await?;
        Ok(items.iter().filter_map(|item: &Value| item["node"].as_str().map(str::to_owned)).collect())
    }

    /// Waits until every log is printed; gives up on those that stay silent after the end of the Run.
    async fn finish(&mut self) -> Result<(), Failure> {
        // No further Attempts will be heard of.
        self.open.clear();
        loop {
            match tokio::time::timeout(LAST_OUTPUT_WITHIN, self.printing.join_next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(Ok(())))) => {}
                Ok(Some(Ok(Err(failure)))) => {
                    note(Text::new().painted(Paint::Bad, format!("sentinel: {failure}")));
                }
                Ok(Some(Err(error))) => return Err(Failure::new(format!("failed to print a log: {error}"))),
                Err(_) => {
                    let left = self.printing.len();
                    self.printing.abort_all();
                    note(Text::sentinel().then(format!(
                        "output of {left} node(s) has not arrived yet; read it later with: sentinel logs {}",
                        self.subject.name
                    )));
                    return Ok(());
                }
            }
        }
    }
}

impl Logs {
    /// The Run with how each of its nodes ended, where its Task does not have that: a Task that was deleted was not
    /// written again after its Run had ended. What is for programs lists every node, of which a Task holds 100.
    async fn settled(&self, mut followed: Followed) -> Result<Followed, Failure> {
        let deleted = followed.end == RunEnd::Deleted;
        let for_programs = self.subject.look.form == Form::Json;
        let Some(run) = followed.run.clone().filter(|_| deleted || for_programs) else { return Ok(followed) };
        let until = Instant::now() + HISTORY_WITHIN;
        let mut nodes: Vec<Node>;
        loop {
            let items = self.executions(&followed.task, &run).await?;
            let ended = items.iter().filter(|item| item["outcome"].is_string()).count() as u64;
            nodes = items.iter().map(Node::of_execution).collect();
            if ended >= run.target_count || Instant::now() > until {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // A node of which History knows nothing is as its Task had it.
        let missing = |node: &&Node| nodes.iter().all(|known| known.name != node.name);
        let missing: Vec<Node> = followed.task.status.nodes.iter().filter(missing).cloned().collect();
        nodes.extend(missing);
        if deleted && let Some(run) = &mut followed.run {
            run.counts = count(&nodes, run.target_count);
            self.conclude(&followed.task, run).await?;
        }
        // As the status has them: those that did not succeed first.
        nodes.sort_by_key(|node| node.state == "Succeeded");
        followed.task.status.nodes = nodes;
        Ok(followed)
    }

    /// The verdict of a Run that History has and its Task had not.
    async fn conclude(&self, task: &Task, run: &mut Run) -> Result<(), Failure> {
        let mut query = Query::default();
        query.add("taskUid", &task.metadata.uid);
        let runs = self.subject.client.list_all("/api/v1/runs", query).await?;
        if let Some(known) = runs.iter().find(|known| known["run"] == run.number) {
            let text = |key: &str| known[key].as_str().map(str::to_owned);
            run.verdict = run.verdict.take().or_else(|| text("verdict"));
            run.finished_at = run.finished_at.take().or_else(|| text("finishedAt"));
        }
        Ok(())
    }
}

/// How many nodes stand how; those of which nothing is known are waiting.
fn count(nodes: &[Node], targets: u64) -> Counts {
    let mut counts = Counts::default();
    for node in nodes {
        match TargetState::from_status(&node.state) {
            TargetState::Succeeded => counts.succeeded += 1,
            TargetState::Unreachable => counts.unreachable += 1,
            TargetState::Waiting => {}
            TargetState::Running => counts.running += 1,
            TargetState::Failed => counts.failed += 1,
        }
    }
    let known = counts.succeeded + counts.unreachable + counts.running + counts.failed;
    counts.waiting = targets.saturating_sub(known);
    counts
}

/// The path of the log of a node of a Run.
pub(crate) fn log_path(uid: &str, run: u32, node: &str) -> String {
    format!("/api/v1/executions/{}/{run}/{}/log", escape(uid), escape(node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_was_never_reached_is_unreachable_as_in_a_status() {
        let node = |state: &str| Node { state: state.to_owned(), ..Node::default() };
        let states = ["Succeeded", "StartTimedOut", "Lost", "TimedOut", "Running", "WaitingForNode"];
        let nodes: Vec<Node> = states.into_iter().map(node).collect();
        let counts = count(&nodes, 7);
        let Counts { waiting, running, succeeded, failed, unreachable } = counts;
        assert_eq!((succeeded, unreachable, failed, running, waiting), (1, 2, 1, 1, 2));
    }
}
