//! Whether the server answers, for as long as something is followed: when it is gone, a person reads so within seconds.

use std::time::Duration;

use crate::client::Client;
use crate::output::color::Paint;
use crate::output::format::note;
use crate::output::text::Text;

/// How often the server is asked.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// How long what follows waits for a server that is gone.
pub(crate) const PATIENCE: Duration = Duration::from_mins(5);

/// Watches the server while the work is done, and reports on standard error when it is gone and when it is back.
pub(crate) async fn while_watching<T>(client: &Client, work: impl Future<Output = T>) -> T {
    tokio::select! {
        done = work => done,
        never = watch(client) => match never {},
    }
}

async fn watch(client: &Client) -> std::convert::Infallible {
    let mut was_there = true;
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        let why = match tokio::time::timeout(ANSWER_WITHIN, client.ping()).await {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure.message),
            Err(_) => Some(format!("{} has not answered for {} s", client.server(), ANSWER_WITHIN.as_secs())),
        };
        match (was_there, &why) {
            (true, Some(why)) => {
                let text = format!("{why}. Commands go on without it; waiting for it to come back.");
                note(Text::new().painted(Paint::Busy, "sentinel:").then(" ").then(text));
            }
            (false, None) => note(Text::sentinel().then("the server answers again")),
            _ => {}
        }
        was_there = why.is_none();
    }
}
