//! What happens to Tasks, as server-sent events: how each stands now, then each change. Events:
//!
//! * `task`: the Task as it now is;
//! * `deleted`: it is gone; the data is how it stood last;
//! * `synced`: every Task that there was at the beginning has been said.
//!
//! A reader that is slow or was away misses steps and never the state.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use kube::ResourceExt as _;
use sentinel_protocol::ids::TaskRef;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, BodyError};
use super::api::Api;
use super::error::ApiError;
use super::feed::Feed;
use super::request::Query;
use super::tasks;
use crate::controller::Seen;
use crate::records::Records;
use crate::resource::{Task, version};

/// How often a silent stream says that it is there.
const ALIVE_EVERY: Duration = Duration::from_secs(10);

pub(super) async fn of_task(api: &Api, parts: &[String]) -> Result<Answer, ApiError> {
    let name = tasks::named(parts)?;
    let place = api.place()?;
    // From the cluster, for the feed may lag behind what this reader wrote a moment ago.
    let seen = match (tasks::find(api, &name).await, api.feed.task(&name)) {
        (Ok(task), _) => Arc::new(task),
        (Err(error), Some(task)) if error.status.is_server_error() => task,
        (Err(error), _) => return Err(error),
    };
    let state = Reader::new(api, Scope::One(name), place).knowing(&seen);
    Ok(stream(state))
}

pub(super) async fn of_all(api: &Api, query: &Query) -> Result<Answer, ApiError> {
    let namespace = query.text("namespace").map(str::to_owned);
    // While the cluster does not answer, the feed is all there is.
    if let Ok(listed) = api.cluster.list(namespace.clone()).await {
        api.feed.catch_up(&listed, namespace.as_deref()).await;
    }
    Ok(stream(Reader::new(api, Scope::All { namespace }, api.place()?)))
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

/// One reader of events.
struct Reader {
    feed: Feed,
    records: Records,
    bell: watch::Receiver<Seen>,
    scope: Scope,
    /// What the reader knows of each Task: by uid, for a Task can be deleted and made again.
    known: HashMap<String, Arc<Task>>,
    ready: VecDeque<Bytes>,
    synced: bool,
    /// Whether the feed has had the one Task of this reader. Before that, its absence there says nothing.
    arrived: bool,
    over: bool,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    fn new(api: &Api, scope: Scope, place: OwnedSemaphorePermit) -> Self {
        Self {
            feed: api.feed.clone(),
            records: api.records.clone(),
            bell: api.feed.bell(),
            scope,
            known: HashMap::new(),
            ready: VecDeque::new(),
            synced: false,
            arrived: false,
            over: false,
            stop: api.stop.clone(),
            _place: place,
        }
    }

    /// Begins with this Task, said at once.
    fn knowing(mut self, task: &Arc<Task>) -> Self {
        self.say(task);
        self
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            if self.over {
                return None;
            }
            // Before the look, so that a change during it rings again.
            self.bell.borrow_and_update();
            self.look();
            if !self.synced {
                self.synced = true;
                self.ready.push_back(Bytes::from_static(b"event: synced\ndata: {}\n\n"));
            }
            if self.ready.is_empty() && !self.over {
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
        let now: Vec<Arc<Task>> = match &self.scope {
            // An older one is what the Task was before the reader was told of it, or another of its name.
            Scope::One(name) => {
                self.feed.task(name).into_iter().filter(|task| !self.is_older(task)).collect()
            }
            Scope::All { namespace } => self.feed.tasks(namespace.as_deref()),
        };
        let is_one = matches!(self.scope, Scope::One(_));
        self.arrived |= !now.is_empty();
        if is_one && !self.arrived {
            return;
        }
        let gone: Vec<String> = self
            .known
            .keys()
            .filter(|uid| !now.iter().any(|task| task.uid().as_deref() == Some(uid.as_str())))
            .cloned()
            .collect();
        for uid in gone {
            if let Some(last) = self.known.remove(&uid) {
                self.ready.push_back(event("deleted", &last));
                self.over |= is_one;
            }
        }
        for task in now {
            if self.over {
                return;
            }
            let known = task.uid().and_then(|uid| self.known.get(&uid));
            if known.is_none_or(|known| version(known) < version(&task)) {
                self.say(&task);
            }
        }
    }

    fn is_older(&self, task: &Task) -> bool {
        self.known.values().any(|known| version(task) < version(known))
    }

    fn say(&mut self, task: &Arc<Task>) {
        let current = self.records.current(task);
        self.ready.push_back(event("task", current.as_ref().unwrap_or(task)));
        self.known.insert(task.uid().unwrap_or_default(), Arc::clone(task));
    }
}

fn event(kind: &str, task: &Task) -> Bytes {
    let data = tasks::shown(task).map(|value| value.to_string()).unwrap_or_default();
    Bytes::from(format!("event: {kind}\ndata: {data}\n\n"))
}
