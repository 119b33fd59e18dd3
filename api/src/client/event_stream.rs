//! Server-sent events, of any type.

use super::error::ClientError;
use super::lines::Lines;
use super::server::Server;

/// An event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawEvent {
    /// The last id that the stream has sent; empty before the first.
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) data: String,
}

/// A stream of events. An event counts once all of it has arrived.
#[derive(Debug)]
pub(super) struct EventStream {
    lines: Lines,
    unfinished: Unfinished,
}

/// The fields of the next event, as far as received.
#[derive(Debug, Default)]
struct Unfinished {
    id: String,
    kind: String,
    data: Option<String>,
}

impl EventStream {
    pub(super) fn new(lines: Lines) -> Self {
        Self { lines, unfinished: Unfinished::default() }
    }

    /// The server that sends them.
    pub(super) fn server(&self) -> &Server {
        self.lines.server()
    }

    /// The next event; `None` when the server ended the stream. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<RawEvent>, ClientError> {
        while let Some(line) = self.lines.next().await? {
            if let Some(event) = self.unfinished.add(&line) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}

impl Unfinished {
    /// Adds a line; returns the event that it ends.
    fn add(&mut self, line: &str) -> Option<RawEvent> {
        if line.is_empty() {
            let (kind, data) = (std::mem::take(&mut self.kind), self.data.take());
            return data.map(|data| RawEvent { id: self.id.clone(), kind, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut self.id),
            "event" => value.clone_into(&mut self.kind),
            "data" => match &mut self.data {
                None => self.data = Some(value.to_owned()),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
            },
            // Comments, which keep a connection alive, and fields of a newer server.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_counts_once_it_has_ended_and_keeps_the_last_id() {
        let mut unfinished = Unfinished::default();
        let text =
            ": alive\n\nid: a:1\nevent: lines\ndata: {\ndata:}\n\nevent: end\ndata: {}\n\nid: b\ndata: cut";
        let events: Vec<RawEvent> = text.split('\n').filter_map(|line| unfinished.add(line)).collect();
        let event = |kind: &str, data: &str| RawEvent {
            id: "a:1".to_owned(),
            kind: kind.to_owned(),
            data: data.to_owned(),
        };
        assert_eq!(events, [event("lines", "{\n}"), event("end", "{}")]);
    }
}
