//! Follows one Run of a Task until it is over and its output is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::node_log::{Attempts, Look, NodeLog};
use crate::client::{Client, Event, Events, Query, escape};
use crate::exit::Failure;
use crate::output::color::{Paint, To};
use crate::output::format::note;
use crate::output::printer::Prefix;
use crate::view::{Run, Standing, Task};

/// Most logs that are read at once; others follow as these end.
const LOGS_AT_ONCE: usize = 128;

/// How long after the end of a Run its logs may still be silent.
const LAST_OUTPUT_WITHIN: Duration = Duration::from_secs(10);

/// How often a broken event stream is made anew, a second apart at most.
const TRIES: u32 = 60;

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
    /// The Run; `None` when the Task could not be run, or is gone.
    pub(crate) run: Option<Run>,
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
    let mut logs = Logs::new(&subject);
    let mut seen: Option<Task> = None;
    let mut tries = 0;
    loop {
        match watch(&subject, &mut logs, &mut seen).await {
            Ok(Some(followed)) => {
                logs.finish().await?;
                return Ok(followed);
            }
            // The stream ended; the server may be starting anew.
            Ok(None) => {}
            Err(failure) if tries >= TRIES || seen.is_none() => return Err(failure),
            Err(_) => {}
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis((50 << tries.min(5)).min(1000))).await;
    }
}

/// Looks at events until the Run is over; `None` when the stream ended before.
async fn watch(
    subject: &Subject,
    logs: &mut Logs,
    seen: &mut Option<Task>,
) -> Result<Option<Followed>, Failure> {
    let mut events: Events = subject.client.task_events(&subject.namespace, &subject.name).await?;
    while let Some(event) = events.next().await? {
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
                return Ok(Some(Followed { run: task.status.run.clone(), task }));
            }
            Event::Synced => {}
        }
    }
    Ok(None)
}

/// Opens the logs that can be opened; says whether the Run is over.
async fn look(subject: &Subject, logs: &mut Logs, task: &Task) -> Result<Option<Followed>, Failure> {
    if matches!(subject.which, Which::Latest) && matches!(task.standing(), Standing::Invalid(_)) {
        return Ok(Some(Followed { task: task.clone(), run: None }));
    }
    let Some(run) = wanted(&subject.which, task) else { return Ok(None) };
    if let Some(current) = &task.status.run
        && current.number > run
    {
        return Ok(Some(Followed { task: task.clone(), run: None }));
    }
    let Some(current) = task.status.run.clone().filter(|current| current.number == run) else {
        return Ok(None);
    };
    logs.open(task, &current).await?;
    let over = current.verdict.is_some() || current.finished_at.is_some();
    if over && task.spec["retry"]["limit"].as_u64() > Some(0) {
        logs.hear_of_all_attempts(task, &current).await?;
    }
    Ok(over.then(|| Followed { task: task.clone(), run: Some(current) }))
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
}

impl Logs {
    fn new(subject: &Subject) -> Self {
        Self {
            subject: subject.clone(),
            printing: JoinSet::new(),
            places: Arc::new(Semaphore::new(LOGS_AT_ONCE)),
            open: BTreeMap::new(),
        }
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
            let (latest, known) = watch::channel(1);
            self.open.insert(node.clone(), latest);
            let prefix = if self.subject.prefixed.unwrap_or(many) {
                Prefix::Node { name: node.clone(), origin: self.subject.origin.clone(), width }
            } else {
                Prefix::None
            };
            let log = NodeLog {
                client: self.subject.client.clone(),
                path: log_path(&task.metadata.uid, run.number, &node),
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
                    note(&Paint::Bad.on(To::Err, &format!("sentinel: {failure}")));
                }
                Ok(Some(Err(error))) => return Err(Failure::new(format!("failed to print a log: {error}"))),
                Err(_) => {
                    let left = self.printing.len();
                    self.printing.abort_all();
                    note(&format!(
                        "sentinel: output of {left} node(s) has not arrived yet; read it later with: sentinel logs {}",
                        self.subject.name
                    ));
                    return Ok(());
                }
            }
        }
    }
}

/// The path of the log of a node of a Run.
pub(crate) fn log_path(uid: &str, run: u32, node: &str) -> String {
    format!("/api/v1/executions/{}/{run}/{}/log", escape(uid), escape(node))
}
