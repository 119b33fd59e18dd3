//! Changes of Tasks, as server-sent events.

use http::Method;

use super::Client;
use super::error::ClientError;
use super::lines::Lines;
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
    lines: Lines,
    /// Type and data of the next event, as far as received.
    kind: String,
    data: String,
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
        Ok(Events { lines, kind: String::new(), data: String::new() })
    }
}

impl Events {
    /// The next event; `None` when the server ended the stream. Cancel safe.
    ///
    /// # Errors
    /// [`ClientError`] when the stream breaks, or an event is not of the expected shape.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        while let Some(line) = self.lines.next().await? {
            if let Some(text) = line.strip_prefix("event:") {
                text.trim_start().clone_into(&mut self.kind);
            } else if let Some(text) = line.strip_prefix("data:") {
                self.data.push_str(text.strip_prefix(' ').unwrap_or(text));
            } else if line.is_empty() && !(self.kind.is_empty() && self.data.is_empty()) {
                let (kind, data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
                if let Some(event) = self.event(&kind, &data)? {
                    return Ok(Some(event));
                }
            }
        }
        Ok(None)
    }

    /// An event of a known type; others are skipped, so that a newer server may send more types.
    fn event(&self, kind: &str, data: &str) -> Result<Option<Event>, ClientError> {
        let task = || {
            decode::slice(data.as_bytes()).map(Box::new).map_err(|shape| ClientError::Shape {
                server: self.lines.server().clone(),
                what: format!("an event of type {kind}"),
                shape: Box::new(shape),
            })
        };
        Ok(match kind {
            "task" => Some(Event::Task(task()?)),
            "deleted" => Some(Event::Deleted(task()?)),
            "synced" => Some(Event::Synced),
            _ => None,
        })
    }
}
