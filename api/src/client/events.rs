//! Changes of Tasks, as server-sent events.

use std::sync::Arc;

use http::Method;

use super::Client;
use super::error::ClientError;
use super::event_stream::EventStream;
use super::lines::Lines;
use super::transport::Transport;
use crate::decode;
use crate::path::{self, Query};
use crate::task::Task;

/// One event.
#[derive(Debug)]
pub enum Event {
    /// A Task as it is now.
    Task(Box<Task>),
    /// A Task that was deleted, as it was last.
    Deleted(Box<Task>),
    /// Every existing Task has been sent once.
    Synced,
}

/// A stream of events.
#[derive(Debug)]
pub struct Events {
    stream: EventStream,
    transport: Arc<dyn Transport>,
}

impl Client {
    /// Events of one Task: its state, then each change.
    ///
    /// # Errors
    /// [`ClientError`] when the stream cannot be opened.
    pub async fn task_events(&self, namespace: &str, name: &str) -> Result<Events, ClientError> {
        self.events(&format!("{}/events", path::task(namespace, name))).await
    }

    /// Events of all Tasks.
    ///
    /// # Errors
    /// As [`Self::task_events`].
    pub async fn all_events(&self) -> Result<Events, ClientError> {
        self.events(&Query::default().of("/api/v1/events")).await
    }

    async fn events(&self, path: &str) -> Result<Events, ClientError> {
        let response = self.send(Method::GET, path, None).await?;
        let lines = Lines::new(self.server().clone(), response.into_body());
        Ok(Events { stream: EventStream::new(lines), transport: Arc::clone(&self.transport) })
    }
}

impl Events {
    /// The next event; `None` when the server ended the stream. Cancel safe.
    ///
    /// # Errors
    /// [`ClientError`] when the stream breaks, or an event is not of the expected shape.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        while let Some(raw) = self.stream.next().await? {
            if let Some(event) = self.event(&raw.kind, &raw.data)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// An event of a known type; others are skipped, so that a newer server may send more types.
    fn event(&self, kind: &str, data: &str) -> Result<Option<Event>, ClientError> {
        let task = || {
            let task: Task = decode::slice(data.as_bytes()).map_err(|shape| ClientError::Shape {
                server: self.stream.server().clone(),
                what: format!("an event of type {kind}"),
                shape: Box::new(shape),
            })?;
            let of = &task.metadata;
            self.transport.learn(&of.uid, &of.namespace, &of.name);
            Ok(Box::new(task))
        };
        Ok(match kind {
            "task" => Some(Event::Task(task()?)),
            "deleted" => Some(Event::Deleted(task()?)),
            "synced" => Some(Event::Synced),
            _ => None,
        })
    }
}
