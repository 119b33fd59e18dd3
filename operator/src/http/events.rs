//! What happens to Tasks, as server-sent events: how each stands now, then each change. Events:
//!
//! * `task`: the Task as it now is;
//! * `deleted`: it is gone; the data is how it stood last, or only its name and uid where it has been gone for long;
//! * `synced`: every Task that there was at the beginning has been said.
//!
//! A reader that is slow or was away misses steps and never the state. It holds versions, and one event at a time.

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
use super::feed::{Feed, Snapshot};
use super::request::Query;
use super::tasks;
use crate::controller::Seen;
use crate::resource::{Task, version};

/// How often a silent stream says that it is there.
const ALIVE_EVERY: Duration = Duration::from_secs(10);

pub(super) async fn of_task(api: &Api, parts: &[String]) -> Result<Answer, ApiError> {
    let name = tasks::named(parts)?;
    // From the cluster, for the feed may lag behind what this reader wrote a moment ago.
    let seen = match (tasks::find(api, &name).await, api.feed.task(&name)) {
        (Ok(task), _) => Arc::new(task),
        (Err(error), Some(task)) if error.status.is_server_error() => task,
        (Err(error), _) => return Err(error),
    };
    Ok(stream(Reader::new(api, Scope::One(name)).knowing(&seen)))
}

pub(super) async fn of_all(api: &Api, query: &Query) -> Answer {
    let namespace = query.text("namespace").map(str::to_owned);
    // While the cluster does not answer, the feed is all there is.
    if let Ok(listed) = api.cluster.list(namespace.clone()).await {
        api.feed.catch_up(&listed, namespace.as_deref()).await;
    }
    stream(Reader::new(api, Scope::All { namespace }))
}

fn stream(reader: Reader) -> Answer {
    Answer::stream("text/event-stream", events(reader))
}

fn events(reader: Reader) -> impl Stream<Item = Result<Bytes, BodyError>> + Send {
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

/// What a reader knows of a Task.
struct Known {
    version: u64,
    namespace: Option<String>,
    name: Option<String>,
}

impl Known {
    fn of(task: &Task) -> Self {
        let metadata = &task.metadata;
        Self { version: version(task), namespace: metadata.namespace.clone(), name: metadata.name.clone() }
    }
}

/// One reader of events.
struct Reader {
    feed: Feed,
    bell: watch::Receiver<Seen>,
    scope: Scope,
    /// What the reader knows of each Task: by uid, for a Task can be deleted and made again.
    known: HashMap<String, Known>,
    /// The Tasks whose events are due, by uid; each is sent as it then is.
    due: VecDeque<String>,
    /// What is left of the event that is being sent: its bytes are shared, what frames them is not.
    pieces: VecDeque<Bytes>,
    synced: bool,
    /// Whether the feed has had the one Task of this reader. Before that, its absence there says nothing.
    arrived: bool,
    over: bool,
    stop: CancellationToken,
}

impl Reader {
    fn new(api: &Api, scope: Scope) -> Self {
        Self {
            feed: api.feed.clone(),
            bell: api.feed.bell(),
            scope,
            known: HashMap::new(),
            due: VecDeque::new(),
            pieces: VecDeque::new(),
            synced: false,
            arrived: false,
            over: false,
            stop: api.stop.clone(),
        }
    }

    /// Begins with this Task, said at once.
    fn knowing(mut self, task: &Arc<Task>) -> Self {
        self.say(task);
        self
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.pieces.pop_front() {
                return Some(bytes);
            }
            if let Some(uid) = self.due.pop_front() {
                self.say_or_miss(&uid);
                continue;
            }
            if self.over {
                return None;
            }
            // Before the look, so that a change during it rings again.
            self.bell.borrow_and_update();
            self.look();
            if !self.due.is_empty() || !self.pieces.is_empty() {
                continue;
            }
            if !self.synced {
                self.synced = true;
                return Some(Bytes::from_static(b"event: synced\ndata: {}\n\n"));
            }
            if !self.over {
                let rung = tokio::select! {
                    rung = tokio::time::timeout(ALIVE_EVERY, self.bell.changed()) => rung,
                    () = self.stop.cancelled() => return None,
                };
                match rung {
                    Ok(Ok(())) => {}
                    // The operator is ending.
                    Ok(Err(_)) => self.over = true,
                    Err(_) => {
                        // Made and gone again before the feed heard of it: the reader asks anew and is told.
                        self.over = matches!(self.scope, Scope::One(_)) && !self.arrived;
                        return Some(Bytes::from_static(b": alive\n\n"));
                    }
                }
            }
        }
    }

    /// Compares what is with what the reader knows.
    fn look(&mut self) {
        let snapshot = self.feed.snapshot();
        let is_one = matches!(self.scope, Scope::One(_));
        // An older one is what the Task was before the reader received it, or another of its name.
        let is_older = |task: &Task| is_one && self.known.values().any(|known| version(task) < known.version);
        let now = || snapshot.tasks.iter().filter(|task| self.scope.holds(task) && !is_older(task));
        self.arrived |= now().next().is_some();
        if is_one && !self.arrived {
            return;
        }
        let is_new = |task: &&Arc<Task>| {
            let known = self.known.get(task.metadata.uid.as_deref().unwrap_or_default());
            known.is_none_or(|known| known.version < version(task))
        };
        let new: VecDeque<String> = now().filter(is_new).map(|task| task.uid().unwrap_or_default()).collect();
        let gone: Vec<String> =
            self.known.keys().filter(|uid| snapshot.by_uid(uid).is_none()).cloned().collect();
        for uid in gone {
            self.say_gone(&snapshot, &uid);
            self.over |= is_one;
        }
        if !self.over {
            self.due = new;
        }
    }

    /// Says a Task as it is by now. One that is gone meanwhile is for the next look.
    fn say_or_miss(&mut self, uid: &str) {
        let snapshot = self.feed.snapshot();
        if let Some(task) = snapshot.by_uid(uid) {
            self.say(task);
        }
    }

    fn say(&mut self, task: &Task) {
        // What has no JSON form cannot be sent, and is not tried again before it changes.
        if let Ok(data) = self.feed.shown(task) {
            self.event(b"event: task\ndata: ", data);
        }
        self.known.insert(task.uid().unwrap_or_default(), Known::of(task));
    }

    fn say_gone(&mut self, snapshot: &Snapshot, uid: &str) {
        let Some(known) = self.known.remove(uid) else { return };
        let last = snapshot.gone(uid).and_then(|task| self.feed.shown(task).ok());
        let data = last.unwrap_or_else(|| {
            let metadata = json!({"namespace": known.namespace, "name": known.name, "uid": uid});
            Bytes::from(json!({"metadata": metadata}).to_string())
        });
        self.event(b"event: deleted\ndata: ", data);
    }

    fn event(&mut self, begin: &'static [u8], data: Bytes) {
        self.pieces.extend([Bytes::from_static(begin), data, Bytes::from_static(b"\n\n")]);
    }
}
