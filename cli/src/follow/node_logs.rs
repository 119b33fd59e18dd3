//! The logs of all nodes of a Run, printed concurrently.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sentinel_api::path::log as log_path;
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use unicode_width::UnicodeWidthStr as _;

use super::archived::executions;
use super::node_log::{AttemptSelector, NodeLog};
use super::request::FollowRequest;
use super::summary::names;
use super::waiting::Waiting;
use crate::client::escape;
use crate::exit::Failure;
use crate::output::color::Style;
use crate::output::counted;
use crate::output::format::{StreamFormat, note};
use crate::output::printer::Prefix;
use crate::output::sink::print_json_line;
use crate::output::text::Text;
use crate::program::phrased;
use crate::view::{Run, Task};

/// Maximum number of logs that are read at once; others follow when these have ended.
const MAX_LOGS: usize = 128;

/// How long logs may be silent after the end of the Run.
const LAST_OUTPUT_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether what the nodes write is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    Shown,
    Hidden,
}

/// The logs of a Run that are being printed.
pub(super) struct NodeLogs {
    request: FollowRequest,
    output: Output,
    printing: JoinSet<Result<(), Failure>>,
    permits: Arc<Semaphore>,
    /// Nodes whose logs are being printed, and the latest known Attempt of each.
    open: BTreeMap<String, watch::Sender<u32>>,
    /// Whether the `started` object was written.
    started: bool,
    /// Nodes on which the command has not started.
    waiting: Waiting,
    /// Why the Run does not begin, as it was reported.
    held: Option<String>,
    /// Whether it was asked if the output may be read.
    is_probed: bool,
    /// Whether the output may not be read, which is reported once.
    is_refused: bool,
}

impl NodeLogs {
    pub(super) fn new(request: &FollowRequest, output: Output) -> Self {
        Self {
            request: request.clone(),
            output,
            printing: JoinSet::new(),
            permits: Arc::new(Semaphore::new(MAX_LOGS)),
            open: BTreeMap::new(),
            started: false,
            waiting: Waiting::default(),
            held: None,
            is_probed: false,
            is_refused: false,
        }
    }

    /// Updates the logs from the status of a Task; returns whether the Run has ended.
    pub(super) async fn observe(&mut self, task: &Task, run: &Run) -> Result<bool, Failure> {
        self.report_started(task, run)?;
        match self.output {
            Output::Shown if self.is_refused => {}
            Output::Shown => self.open(task, run).await?,
            Output::Hidden => self.probe(task, run),
        }
        let ended = run.verdict.is_some() || run.finished_at.is_some();
        let listed = if ended { &[][..] } else { &task.status.nodes[..] };
        self.waiting.observe(listed, &self.request.nodes, Instant::now());
        if ended && task.spec["retry"]["limit"].as_u64() > Some(0) {
            self.announce_all_attempts(task, run).await?;
        }
        Ok(ended)
    }

    /// Writes the `started` object once, in JSON.
    fn report_started(&mut self, task: &Task, run: &Run) -> Result<(), Failure> {
        if self.started || self.request.options.format != StreamFormat::Json {
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
        .map_err(|error| Failure::stdout(&error))
    }

    /// When [`NodeLogs::report_waiting`] is due.
    pub(super) fn report_due(&self) -> Option<Instant> {
        self.waiting.due()
    }

    /// Reports nodes that keep the Run waiting and the reason, if not reported yet.
    pub(super) fn report_waiting(&mut self, task: Option<&Task>) -> Result<(), Failure> {
        for (nodes, message) in self.waiting.take(Instant::now()) {
            if self.request.options.format == StreamFormat::Json {
                print_json_line(&json!({"type": "waiting", "nodes": nodes, "message": message}))
                    .map_err(|error| Failure::stdout(&error))?;
                continue;
            }
            let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
            let text = match task {
                Some(task) if self.request.show_task => Text::message().plain(task.full_name()).plain(": "),
                _ => Text::message(),
            };
            note(text.append(names(&nodes)).plain(format!(": waiting: {message}")));
        }
        Ok(())
    }

    /// Reports that the Run waits for an approval, or for its ceiling to be readable, if that is new.
    pub(super) fn report_held(&mut self, task: &Task) -> Result<(), Failure> {
        let held = task.held().map(str::to_owned);
        if held == self.held {
            return Ok(());
        }
        self.held.clone_from(&held);
        let Some(message) = held else { return Ok(()) };
        if self.request.options.format == StreamFormat::Json {
            return print_json_line(&json!({"type": "waiting", "nodes": [], "message": message}))
                .map_err(|error| Failure::stdout(&error));
        }
        note(Text::message().plain(task.full_name()).plain(": waiting: ").single_line(&message));
        Ok(())
    }

    /// Asks once whether the output may be read, where that is done at the end only.
    fn probe(&mut self, task: &Task, run: &Run) {
        if std::mem::replace(&mut self.is_probed, true) {
            return;
        }
        let client = self.request.client.clone();
        let path = format!("/api/v1/runs/{}/{}/outputs", escape(&task.metadata.uid), run.number);
        self.printing.spawn(async move {
            let asked = client.get(&path).await.map_err(Failure::from);
            asked.map(|_| ()).or_else(|failure| if failure.is_refusal() { Err(failure) } else { Ok(()) })
        });
    }

    /// Waits until a log has failed.
    pub(super) async fn failed(&mut self) -> Failure {
        loop {
            match self.printing.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(failure))) => return failure,
                Some(Err(error)) => return Failure::new(format!("failed to print a log: {error}")),
                None => std::future::pending().await,
            }
        }
    }

    /// Reports that a log cannot be printed: of those that may not be read, only the first.
    pub(super) fn report_failure(&mut self, failure: Failure) -> Result<(), Failure> {
        if !failure.is_refusal() {
            note(Text::new().styled(Style::Error, format!("sentinel: {failure}")));
            return Ok(());
        }
        if self.request.output_only {
            return Err(failure);
        }
        if std::mem::replace(&mut self.is_refused, true) {
            return Ok(());
        }
        let FollowRequest { namespace, name, options, .. } = &self.request;
        let message = format!("you may not read the output of {namespace}/{name}: {failure}");
        if options.format == StreamFormat::Json {
            print_json_line(&json!({"type": "refused", "message": message, "advice": failure.hint}))
                .map_err(|error| Failure::stdout(&error))?;
        }
        note(Text::new().styled(Style::Error, format!("sentinel: {message}")));
        if let Some(hint) = &failure.hint {
            note(&phrased(hint));
        }
        Ok(())
    }

    /// Opens the logs of nodes that are not open yet, and announces new Attempts to all.
    async fn open(&mut self, task: &Task, run: &Run) -> Result<(), Failure> {
        let nodes = self.nodes(task, run).await?;
        if self.request.options.format == StreamFormat::Raw {
            self.check_raw(&nodes)?;
        }
        let prefixed = self.request.prefixed.unwrap_or(run.target_count > 1 || nodes.len() > 1);
        let task_name = self.request.show_task.then(|| task.metadata.name.clone());
        let task_width = task_name.as_ref().map_or(0, |name| name.width() + 1);
        let width = nodes.iter().map(|node| node.width()).max().unwrap_or(0) + task_width;
        for node in nodes {
            let selected = self.request.nodes.is_empty() || self.request.nodes.contains(&node);
            if !selected || self.open.contains_key(&node) {
                continue;
            }
            let status = task.status.nodes.iter().find(|status| status.name == node);
            let (latest, known) = watch::channel(status.and_then(|status| status.attempt).unwrap_or(1));
            self.open.insert(node.clone(), latest);
            let prefix = if prefixed {
                Prefix::Node { name: node.clone(), task: task_name.clone(), width }
            } else {
                Prefix::None
            };
            let log = NodeLog {
                client: self.request.client.clone(),
                path: log_path(&task.metadata.uid, run.number, &node),
                node,
                prefix,
                options: self.request.options,
                attempts: AttemptSelector::All(known),
                permits: Some(Arc::clone(&self.permits)),
            };
            self.printing.spawn(log.print());
        }
        for node in &task.status.nodes {
            self.announce_attempt(&node.name, node.attempt.unwrap_or(1));
        }
        Ok(())
    }

    /// The bytes of several nodes cannot be separated while they are written.
    fn check_raw(&self, nodes: &[String]) -> Result<(), Failure> {
        let wanted = &self.request.nodes;
        let count = nodes.iter().filter(|node| wanted.is_empty() || wanted.contains(*node)).count();
        if count <= 1 {
            return Ok(());
        }
        let name = &self.request.name;
        Err(Failure::usage(format!(
            "-o raw follows the output of one node, and this Run has {}",
            counted(count as u64, "node")
        ))
        .hint(format!(
            "Choose one: sentinel logs -f {name} -o raw --node NAME\nOr follow the lines of all: sentinel logs -f {name} -o json"
        )))
    }

    fn announce_attempt(&self, node: &str, attempt: u32) {
        if let Some(latest) = self.open.get(node) {
            latest.send_if_modified(|latest| {
                let later = attempt > *latest;
                *latest = attempt.max(*latest);
                later
            });
        }
    }

    /// A status lists only some of the nodes, and a short Attempt may come and go between two of them; at the end the
    /// list of Executions has them all.
    async fn announce_all_attempts(&self, task: &Task, run: &Run) -> Result<(), Failure> {
        for item in executions(&self.request.client, task, run).await? {
            self.announce_attempt(&item.node, item.attempt);
        }
        Ok(())
    }

    /// The nodes whose logs can be opened.
    async fn nodes(&self, task: &Task, run: &Run) -> Result<Vec<String>, Failure> {
        if !run.targets.is_empty() || run.target_count == 0 {
            return Ok(run.targets.clone());
        }
        // The status omits a long target list; the Executions name the nodes that have started.
        let items = executions(&self.request.client, task, run).await?;
        Ok(items.into_iter().map(|item| item.node).collect())
    }

    /// Waits until every log is printed; gives up on those that stay silent.
    pub(super) async fn finish(&mut self) -> Result<(), Failure> {
        // Drops the senders: no further Attempts follow.
        self.open.clear();
        loop {
            match tokio::time::timeout(LAST_OUTPUT_TIMEOUT, self.printing.join_next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(Ok(())))) => {}
                Ok(Some(Ok(Err(failure)))) => self.report_failure(failure)?,
                Ok(Some(Err(error))) => return Err(Failure::new(format!("failed to print a log: {error}"))),
                Err(_) => {
                    let left = self.printing.len();
                    self.printing.abort_all();
                    note(Text::message().plain(format!(
                        "the output of {} has not arrived yet; read it later with: sentinel logs {}",
                        counted(left as u64, "node"),
                        self.request.name
                    )));
                    return Ok(());
                }
            }
        }
    }
}
