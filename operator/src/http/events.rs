//! Changes of Tasks as server-sent events: the current state of each, then each change. Events:
//!
//! * `task`: a Task as it is now;
//! * `deleted`: a deleted Task as it was last, or only its name and uid when it was deleted long ago;
//! * `synced`: every Task that existed at the beginning has been sent.
//!
//! A reader that is slow or was disconnected may miss intermediate states and never the latest. It holds versions, and one
//! event at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use kube::ResourceExt as _;
use sentinel_protocol::ids::TaskRef;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, BodyError};
use super::api::Api;
use super::error::ApiError;
use super::feed::Feed;
use super::request::Query;
use super::snapshot::Snapshot;
use super::tasks;
use crate::controller::CacheProgress;
use crate::resource::{Task, version};

/// Interval of comments on an idle stream, by which a reader knows that it is connected.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

pub(super) async fn of_task(api: &Api, parts: &[String]) -> Result<Answer, ApiError> {
    let name = tasks::named(parts)?;
    // From the cluster: the feed may lag behind what this reader has just written.
    let seen = match (tasks::find(api, &name).await, api.feed.task(&name)) {
        (Ok(task), _) => Arc::new(task),
        (Err(error), Some(task)) if error.status.is_server_error() => task,
        (Err(error), _) => return Err(error),
    };
    Ok(stream(EventReader::new(api, Scope::One(name)).beginning_with(&seen)))
}

pub(super) async fn of_all(api: &Api, query: &Query) -> Answer {
    let namespace = query.text("namespace").map(str::to_owned);
    // While the cluster does not answer, the feed is the only source.
    if let Ok(listed) = api.store.list(namespace.clone()).await {
        api.feed.catch_up(&listed, namespace.as_deref()).await;
    }
    stream(EventReader::new(api, Scope::All { namespace }))
}

fn stream(reader: EventReader) -> Answer {
    Answer::stream("text/event-stream", events(reader))
}

fn events(reader: EventReader) -> impl Stream<Item = Result<Bytes, BodyError>> + Send {
    unfold(reader, |mut reader| async move { reader.next().await.map(|bytes| (Ok(bytes), reader)) })
}

enum Scope {
    One(TaskRef),
    All { namespace: Option<String> },
}

impl Scope {
    fn holds(&self, task: &Task) -> bool {
        let namespace = task.metadata.namespace.as_deref();
        match self {
            Self::One(name) => {
                namespace == Some(&*name.namespace) && task.metadata.name.as_deref() == Some(&*name.name)
            }
            Self::All { namespace: wanted } => wanted.is_none() || namespace == wanted.as_deref(),
        }
    }
}

/// The version of a Task that a reader has.
struct SentTask {
    version: u64,
    namespace: Option<String>,
    name: Option<String>,
}

impl SentTask {
    fn of(task: &Task) -> Self {
        let metadata = &task.metadata;
        Self { version: version(task), namespace: metadata.namespace.clone(), name: metadata.name.clone() }
    }
}

/// One reader of events.
struct EventReader {
    feed: Feed,
    changes: watch::Receiver<CacheProgress>,
    scope: Scope,
    /// What was sent, by uid: a Task can be deleted and created again.
    sent: HashMap<String, SentTask>,
    /// Uids of Tasks whose events are due; each is sent as it is then.
    due: VecDeque<String>,
    /// The rest of the event that is being sent: its data is shared between readers, its frame is not.
    pieces: VecDeque<Bytes>,
    synced: bool,
    /// Whether the feed has had the one Task of this reader. Before that, its absence there means nothing.
    arrived: bool,
    over: bool,
    stop: CancellationToken,
}

impl EventReader {
    fn new(api: &Api, scope: Scope) -> Self {
        Self {
            feed: api.feed.clone(),
            changes: api.feed.changes(),
            scope,
            sent: HashMap::new(),
            due: VecDeque::new(),
            pieces: VecDeque::new(),
            synced: false,
            arrived: false,
            over: false,
            stop: api.stop.clone(),
        }
    }

    /// Begins with this Task.
    fn beginning_with(mut self, task: &Arc<Task>) -> Self {
        self.send(task);
        self
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.pieces.pop_front() {
                return Some(bytes);
            }
            if let Some(uid) = self.due.pop_front() {
                self.send_current(&uid);
                continue;
            }
            if self.over {
                return None;
            }
            // Before the comparison, so that a change during it is noticed after it.
            self.changes.borrow_and_update();
            self.compare();
            if !self.due.is_empty() || !self.pieces.is_empty() {
                continue;
            }
            if !self.synced {
                self.synced = true;
                return Some(Bytes::from_static(b"event: synced\ndata: {}\n\n"));
            }
            if !self.over {
                let changed = tokio::select! {
                    changed = tokio::time::timeout(KEEP_ALIVE, self.changes.changed()) => changed,
                    () = self.stop.cancelled() => return None,
                };
                match changed {
                    Ok(Ok(())) => {}
                    // The operator is shutting down.
                    Ok(Err(_)) => self.over = true,
                    Err(_) => {
                        // Created and deleted before the feed had it: the reader requests it again and gets a 404.
                        self.over = matches!(self.scope, Scope::One(_)) && !self.arrived;
                        return Some(Bytes::from_static(b": alive\n\n"));
                    }
                }
            }
        }
    }

    /// Compares the Tasks with what was sent.
    fn compare(&mut self) {
        let snapshot = self.feed.snapshot();
        let is_one = matches!(self.scope, Scope::One(_));
        // An older one is a version before the one that was sent, or an earlier Task of the same name.
        let is_older = |task: &Task| is_one && self.sent.values().any(|sent| version(task) < sent.version);
        let now = || snapshot.tasks.iter().filter(|task| self.scope.holds(task) && !is_older(task));
        self.arrived |= now().next().is_some();
        if is_one && !self.arrived {
            return;
        }
        let mut known = 0;
        let is_new = |task: &&Arc<Task>| {
            let sent = self.sent.get(task.metadata.uid.as_deref().unwrap_or_default());
            known += usize::from(sent.is_some());
            sent.is_none_or(|sent| sent.version < version(task))
        };
        let new: VecDeque<String> = now().filter(is_new).map(|task| task.uid().unwrap_or_default()).collect();
        let is_gone = |uid: &&String| snapshot.by_uid(uid).is_none();
        // Mostly each that was sent is still there, and was counted.
        let gone: Vec<String> = match self.sent.len() - known {
            0 => Vec::new(),
            _ => self.sent.keys().filter(is_gone).cloned().collect(),
        };
        for uid in gone {
            self.send_deleted(&snapshot, &uid);
            self.over |= is_one;
        }
        if !self.over {
            self.due = new;
        }
    }

    /// Sends a Task as it is now. One that was deleted meanwhile is left to the next comparison.
    fn send_current(&mut self, uid: &str) {
        let snapshot = self.feed.snapshot();
        if let Some(task) = snapshot.by_uid(uid) {
            self.send(task);
        }
    }

    fn send(&mut self, task: &Task) {
        // A Task without a JSON form cannot be sent, and is not tried again before it changes.
        if let Ok(data) = self.feed.json(task) {
            self.event(b"event: task\ndata: ", data);
        }
        self.sent.insert(task.uid().unwrap_or_default(), SentTask::of(task));
    }

    fn send_deleted(&mut self, snapshot: &Snapshot, uid: &str) {
        let Some(sent) = self.sent.remove(uid) else { return };
        let last = snapshot.deleted(uid).and_then(|task| self.feed.json(task).ok());
        let data = last.unwrap_or_else(|| {
            let metadata = json!({"namespace": sent.namespace, "name": sent.name, "uid": uid});
            Bytes::from(json!({"metadata": metadata}).to_string())
        });
        self.event(b"event: deleted\ndata: ", data);
    }

    fn event(&mut self, begin: &'static [u8], data: Bytes) {
        self.pieces.extend([Bytes::from_static(begin), data, Bytes::from_static(b"\n\n")]);
    }
}
