//! The API's event stream.

use std::time::Instant;

use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::mpsc;

use super::setup::Api;

/// When Runs end, from the API's event stream.
pub(super) struct Ends(mpsc::Receiver<(String, Instant)>);

impl Ends {
    pub(super) async fn of(api: &Api) -> Self {
        let answer = api.http.get(format!("{}/api/v1/events", api.url)).send().await.expect("events");
        let (sender, ends) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut bytes = answer.bytes_stream();
            let mut text = Vec::new();
            while let Some(Ok(more)) = bytes.next().await {
                let at = Instant::now();
                text.extend_from_slice(&more);
                while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
                    let event: Vec<u8> = text.drain(..end + 2).collect();
                    if let Some(name) = ended(&event)
                        && sender.send((name, at)).await.is_err()
                    {
                        return;
                    }
                }
            }
        });
        Self(ends)
    }

    /// When the Run of this Task ended; earlier ends are skipped.
    pub(super) async fn of_task(&mut self, name: &str) -> Instant {
        loop {
            let (of, at) = self.0.recv().await.expect("the event stream is open");
            if of == name {
                return at;
            }
        }
    }
}

/// The name of the Task, if the event shows that its Run is over; all of its nodes must have succeeded.
fn ended(event: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(event);
    let data = text.lines().find_map(|line| line.strip_prefix("data: "))?;
    let task: Value = serde_json::from_str(data).ok()?;
    let run = &task["status"]["run"];
    run["finishedAt"].as_str()?;
    assert_eq!(run["verdict"], "Complete", "{run}");
    task["metadata"]["name"].as_str().map(str::to_owned)
}
