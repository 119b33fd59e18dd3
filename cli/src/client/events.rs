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
    /// Every Task there is has been said once.
    Synced,
}

/// A stream of events.
#[derive(Debug)]
pub(crate) struct Events(Lines);

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
        Ok(Events(Lines::new(response.into_body())))
    }
}

impl Events {
    /// The next event; `None` when the server ended the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Failure> {
        let (mut kind, mut data) = (String::new(), String::new());
        while let Some(line) = self.0.next().await? {
            if let Some(text) = line.strip_prefix("event:") {
                text.trim_start().clone_into(&mut kind);
            } else if let Some(text) = line.strip_prefix("data:") {
                data.push_str(text.strip_prefix(' ').unwrap_or(text));
            } else if line.is_empty() && !(kind.is_empty() && data.is_empty()) {
                if let Some(event) = event(&kind, &data)? {
                    return Ok(Some(event));
                }
                kind.clear();
                data.clear();
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
