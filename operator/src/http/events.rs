//! Changes of Tasks as server-sent events: the current state of each, then each change. Events:
//!
//! * `task`: a Task as it is now;
//! * `deleted`: a deleted Task as it was last, or only its name and uid when it was deleted long ago;
//! * `synced`: every Task that existed at the beginning has been sent.
//!
//! A reader that is slow or was disconnected may miss intermediate states and never the latest. It holds versions, and one
//! event at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, BodyError};
use super::api::Api;
use super::error::ApiError;
use super::feed::Feed;
use super::request::Query;
use super::sent_tasks::{Due, Scope, SentTasks};
use super::snapshot::Snapshot;
use super::tasks;
use crate::controller::CacheProgress;
use crate::resource::Task;

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
        api.feed.catch_up(listed, namespace.as_deref()).await;
    }
    stream(EventReader::new(api, Scope::All { namespace }))
}

fn stream(reader: EventReader) -> Answer {
    Answer::stream("text/event-stream", events(reader))
}

fn events(reader: EventReader) -> impl Stream<Item = Result<Bytes, BodyError>> + Send {
    unfold(reader, |mut reader| async move { reader.next().await.map(|bytes| (Ok(bytes), reader)) })
}

/// One reader of events.
struct EventReader {
    feed: Feed,
    changes: watch::Receiver<CacheProgress>,
    sent: SentTasks,
    /// Uids of Tasks whose events are due; each is sent as it is then.
    due: VecDeque<String>,
    /// The rest of the event that is being sent: its data is shared between readers, its frame is not.
    pieces: VecDeque<Bytes>,
    synced: bool,
    over: bool,
    stop: CancellationToken,
}

impl EventReader {
    fn new(api: &Api, scope: Scope) -> Self {
        Self {
            feed: api.feed.clone(),
            changes: api.feed.changes(),
            sent: SentTasks::new(scope),
            due: VecDeque::new(),
            pieces: VecDeque::new(),
            synced: false,
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
                        self.over = self.sent.is_one() && !self.sent.arrived;
                        return Some(Bytes::from_static(b": alive\n\n"));
                    }
                }
            }
        }
    }

    /// Compares the Tasks with what was sent.
    fn compare(&mut self) {
        let snapshot = self.feed.snapshot();
        let Due { gone, changed } = self.sent.compare(&snapshot, &self.changes);
        for uid in gone {
            self.send_deleted(&snapshot, &uid);
            self.over |= self.sent.is_one();
        }
        if !self.over {
            self.due = changed;
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
        self.sent.insert(task);
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
