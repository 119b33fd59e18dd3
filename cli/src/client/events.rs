//! What happens to Tasks, as it happens: server-sent events.

use http::Method;
use serde_json::Value;

use super::stream::Lines;
use super::{Client, Query, task_path};
use crate::exit::Failure;

/// One event.
#[derive(Debug)]
pub(crate) enum Event {
    /// This is how a Task stands now.
    Task(Value),
    /// A Task is gone; this is how it stood last.
    Deleted(Value),
    /// Every Task there is has come once.
    Synced,
}

/// A stream of events.
#[derive(Debug)]
pub(crate) struct Events {
    lines: Lines,
    /// What has come of the next event.
    kind: String,
    data: String,
}

impl Client {
    /// Events of one Task: how it stands, then each change.
    pub(crate) async fn task_events(&self, namespace: &str, name: &str) -> Result<Events, Failure> {
        self.events(&format!("{}/events", task_path(namespace, name))).await
    }

    /// Events of all Tasks.
    pub(crate) async fn all_events(&self) -> Result<Events, Failure> {
        self.events(&Query::default().of("/api/v1/events")).await
    }

    async fn events(&self, path: &str) -> Result<Events, Failure> {
        let response = self.send(Method::GET, path, None).await?;
        let lines = Lines::new(response.into_body());
        Ok(Events { lines, kind: String::new(), data: String::new() })
    }
}

impl Events {
    /// The next event; `None` when the server ended the stream. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Failure> {
        while let Some(line) = self.lines.next().await? {
            if let Some(text) = line.strip_prefix("event:") {
                text.trim_start().clone_into(&mut self.kind);
            } else if let Some(text) = line.strip_prefix("data:") {
                self.data.push_str(text.strip_prefix(' ').unwrap_or(text));
            } else if line.is_empty() && !(self.kind.is_empty() && self.data.is_empty()) {
                let (kind, data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
                if let Some(event) = event(&kind, &data)? {
                    return Ok(Some(event));
                }
            }
        }
        Ok(None)
    }
}

/// An event of a kind that is known; others are passed over, so that a newer server can say more.
fn event(kind: &str, data: &str) -> Result<Option<Event>, Failure> {
    let value =
        || serde_json::from_str(data).map_err(|error| Failure::new(format!("unreadable event: {error}")));
    Ok(match kind {
        "task" => Some(Event::Task(value()?)),
        "deleted" => Some(Event::Deleted(value()?)),
        "synced" => Some(Event::Synced),
        _ => None,
    })
}
