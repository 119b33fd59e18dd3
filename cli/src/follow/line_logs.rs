//! Prints lines of one node or of several by time as JSON: as they are now, or as they are written.

use std::time::{Duration, Instant};

use sentinel_protocol::log::Stream;

use super::server_watch::{RECONNECT_TIMEOUT, is_final};
use super::settling::Settling;
use crate::client::{
    Client, ClientError, Event, LineAttempt, LineEvent, LineEvents, LineLog, LineLogItem, LineSource, LogEnd,
};
use crate::exit::Failure;
use crate::output::counted;
use crate::output::sink::{print_json_line, print_json_lines};
use crate::view::{Standing, Task};

/// Pauses between connections: the first one, doubled up to the last.
const RECONNECT_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Which lines are followed.
#[derive(Debug)]
pub(crate) enum FollowedLines<'a> {
    /// Those of a Run.
    Run(LineSource<'a>),
    /// Those of one Attempt of the Execution at a path.
    Attempt { path: &'a str, attempt: LineAttempt, stream: Option<Stream> },
}

impl FollowedLines<'_> {
    async fn open(&self, client: &Client, after: Option<&str>) -> Result<LineEvents, ClientError> {
        match self {
            Self::Run(source) => client.run_line_events(source, after).await,
            Self::Attempt { path, attempt, stream } => {
                client.line_events(path, attempt, *stream, after).await
            }
        }
    }
}

/// Why no more is read.
enum LinesEnd {
    /// The log ended.
    Complete,
    /// The connection ended first.
    Disconnected,
    /// Our own output is closed.
    OutputClosed,
}

/// Prints lines as they are now. A closed standard output ends it without an error.
///
/// # Errors
/// The answer breaks, or output has not arrived from its node.
pub(crate) async fn print_lines(mut log: LineLog) -> Result<(), Failure> {
    loop {
        let parts = log.next().await?;
        if parts.is_empty() {
            return Err(Failure::new("the log broke off; the server may be restarting")
                .hint("Try again, or follow it with -f, which continues automatically"));
        }
        let mut lines = Vec::new();
        let mut end = None;
        for part in parts {
            match part {
                LineLogItem::Line(line) => lines.push(line),
                LineLogItem::End(last) => end = Some(last),
            }
        }
        let written = print_json_lines(&lines).and_then(|()| end.as_ref().map_or(Ok(()), print_json_line));
        if !is_open(written)? {
            return Ok(());
        }
        match end {
            Some(LogEnd { missing, .. }) if missing > 0 => return Err(not_arrived(missing)),
            Some(_) => return Ok(()),
            None => {}
        }
    }
}

fn not_arrived(missing: u64) -> Failure {
    let have = if missing == 1 { "has" } else { "have" };
    Failure::new(format!("{} of the output {have} not arrived from the nodes yet", counted(missing, "byte")))
        .hint("They arrive when the nodes reconnect: try again later, or wait with -f")
}

/// Whether more can be written.
fn is_open(written: std::io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::stdout(&error)),
    }
}

/// Prints each line once it has ended, across broken connections: all, or those behind an event.
///
/// # Errors
/// The log does not exist, the server does not answer for [`RECONNECT_TIMEOUT`], or output cannot be written.
pub(crate) async fn follow_lines(
    client: &Client,
    lines: &FollowedLines<'_>,
    mut after: Option<String>,
) -> Result<(), Failure> {
    let mut settling = Settling::default();
    let mut retries = Retries::new();
    let mut has_answered = false;
    loop {
        let mut answered = false;
        let end = connection(client, lines, &mut after, &mut settling, &mut answered).await;
        if answered {
            retries = Retries::new();
            has_answered = true;
        }
        match end {
            Ok(LinesEnd::OutputClosed) => return Ok(()),
            Ok(LinesEnd::Complete) => {
                let end = LogEnd { kind: "end".to_owned(), position: None, ended: true, missing: 0 };
                let written = print_json_lines(&settling.finish()).and_then(|()| print_json_line(&end));
                return is_open(written).map(|_| ());
            }
            Ok(LinesEnd::Disconnected) => {}
            Err(failure) if is_final(&failure, has_answered, retries.last_answer.elapsed()) => {
                return Err(failure);
            }
            Err(_) => {}
        }
        retries.pause().await?;
    }
}

/// Prints what one connection sends.
async fn connection(
    client: &Client,
    lines: &FollowedLines<'_>,
    after: &mut Option<String>,
    settling: &mut Settling,
    answered: &mut bool,
) -> Result<LinesEnd, Failure> {
    let mut events = lines.open(client, after.as_deref()).await?;
    *answered = true;
    loop {
        match events.next().await? {
            None => return Ok(LinesEnd::Disconnected),
            Some(LineEvent::End) => return Ok(LinesEnd::Complete),
            Some(LineEvent::Lines { id, lines }) => {
                let ended = settling.add(lines);
                *after = Some(id);
                if !is_open(print_json_lines(&ended))? {
                    return Ok(LinesEnd::OutputClosed);
                }
            }
        }
    }
}

/// The Task, once it has a Run.
///
/// # Errors
/// It cannot be run, or is deleted, or the server does not answer.
pub(crate) async fn with_run(client: &Client, namespace: &str, name: &str) -> Result<Box<Task>, Failure> {
    let mut retries = Retries::new();
    loop {
        match first_run(client, namespace, name).await {
            Ok(found) => return found,
            Err(error) if error.is_retryable() => {}
            Err(error) => return Err(error.into()),
        }
        retries.pause().await?;
    }
}

async fn first_run(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Result<Box<Task>, Failure>, ClientError> {
    let mut events = client.task_events(namespace, name).await?;
    while let Some(event) = events.next().await? {
        match event {
            Event::Task(task) => {
                if let Standing::Invalid(why) = task.standing() {
                    return Ok(Err(Failure::new(format!("task {namespace}/{name} cannot be run: {why}"))));
                }
                if let Some(executed) = task.already_executed() {
                    let why = &executed.message;
                    return Ok(Err(Failure::new(format!("task {namespace}/{name} runs nothing: {why}"))));
                }
                if task.status.run.is_some() {
                    return Ok(Ok(task));
                }
            }
            Event::Deleted(_) => {
                return Ok(Err(Failure::new(format!("task {namespace}/{name} was deleted without a Run"))));
            }
            Event::Synced => {}
        }
    }
    // The server may be restarting.
    Err(ClientError::Disconnected {
        server: client.server().clone(),
        cause: "the stream of events ended".to_owned(),
    })
}

/// When another connection is tried.
struct Retries {
    pause: Duration,
    last_answer: Instant,
}

impl Retries {
    fn new() -> Self {
        Self { pause: RECONNECT_PAUSES.0, last_answer: Instant::now() }
    }

    async fn pause(&mut self) -> Result<(), Failure> {
        if self.last_answer.elapsed() > RECONNECT_TIMEOUT {
            return Err(Failure::new(format!(
                "the connection to the log was lost and could not be restored within {} minutes",
                RECONNECT_TIMEOUT.as_secs() / 60
            )));
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(RECONNECT_PAUSES.1);
        Ok(())
    }
}
