//! Prints the log of one node of a Run while it is written, across broken connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;

use super::drops::Drops;
use super::output::OutputWriter;
use super::request::LogOptions;
use super::server_watch::{RECONNECT_TIMEOUT, is_final};
use crate::client::{Client, LogItem, LogQuery, Since};
use crate::exit::Failure;
use crate::output::counted;
use crate::output::format::StreamFormat;
use crate::output::printer::Prefix;

/// After how long without output a marker of dropped bytes is written; before that, more drops may follow.
const DROPS_PAUSE: Duration = Duration::from_secs(1);

/// Pauses between connections: the first one, doubled up to the last.
const RECONNECT_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A log to print.
#[derive(Debug)]
pub(crate) struct NodeLog {
    pub(crate) client: Client,
    /// The API path of the log.
    pub(crate) path: String,
    /// The name of the node.
    pub(crate) node: String,
    /// The prefix of each line.
    pub(crate) prefix: Prefix,
    pub(crate) options: LogOptions,
    pub(crate) attempts: AttemptSelector,
    /// Limits the number of logs that are read at once.
    pub(crate) permits: Option<Arc<Semaphore>>,
}

/// The Attempts of an Execution whose output is printed.
#[derive(Debug)]
pub(crate) enum AttemptSelector {
    /// The latest.
    Latest,
    /// The one with this number.
    Number(u32),
    /// All, from the first to the latest that the channel has when its sender is dropped.
    All(watch::Receiver<u32>),
}

impl NodeLog {
    /// Prints the log to its end. A closed standard output ends it without an error.
    pub(crate) async fn print(mut self) -> Result<(), Failure> {
        let mut output = match self.options.format {
            StreamFormat::Text => OutputWriter::text(self.prefix.clone(), self.options.timestamps),
            StreamFormat::Json => OutputWriter::json(self.node.clone()),
            StreamFormat::Raw => OutputWriter::raw(self.node.clone()),
        };
        let mut attempt = match &self.attempts {
            AttemptSelector::Latest => None,
            AttemptSelector::Number(number) => Some(*number),
            // The last lines are those of the latest Attempt.
            AttemptSelector::All(latest) if self.options.tail.is_some() => Some(*latest.borrow()),
            AttemptSelector::All(_) => Some(1),
        };
        if let Some(number) = attempt.filter(|number| *number > 1)
            && self.options.format == StreamFormat::Json
        {
            let _ = output.attempt(number);
        }
        let mut end = self.print_attempt(&mut output, attempt, Cursor::new(&self.options)).await;
        while let (Ok(LogEnd::Complete), AttemptSelector::All(latest), Some(number)) =
            (&end, &mut self.attempts, attempt)
        {
            // A dropped sender means that this was the last Attempt.
            if latest.wait_for(|latest| *latest > number).await.is_err() {
                break;
            }
            let next = number + 1;
            if output.attempt(next).is_err() {
                return Ok(());
            }
            attempt = Some(next);
            let cursor = Cursor { tail: None, from: 0, ..Cursor::new(&self.options) };
            end = self.print_attempt(&mut output, attempt, cursor).await;
        }
        if !matches!(end, Ok(LogEnd::OutputClosed)) {
            let _ = output.finish();
        }
        end.map(|_| ())
    }

    /// The same in a task of its own: beside that of the connection, whose pieces then need not go from thread to thread.
    pub(crate) async fn print_beside(self) -> Result<(), Failure> {
        let printed = AbortOnDropHandle::new(tokio::spawn(self.print())).await;
        printed.map_err(|error| Failure::new(format!("failed to print a log: {error}")))?
    }

    /// Prints the log of one Attempt to its end, reconnecting as needed.
    async fn print_attempt(
        &self,
        output: &mut OutputWriter,
        attempt: Option<u32>,
        mut cursor: Cursor,
    ) -> Result<LogEnd, Failure> {
        let _permit = match &self.permits {
            Some(permits) => permits.acquire().await.ok(),
            None => None,
        };
        let (first_pause, last_pause) = RECONNECT_PAUSES;
        let mut pause = first_pause;
        let mut last_answer = Instant::now();
        let mut has_answered = false;
        loop {
            let previous = cursor.from;
            let end = self.print_connection(output, attempt, &mut cursor).await;
            if std::mem::take(&mut cursor.answered) {
                (last_answer, has_answered) = (Instant::now(), true);
            }
            if cursor.from > previous {
                pause = first_pause;
            }
            match end {
                Ok(LogEnd::Disconnected) => {}
                Ok(end) => return Ok(end),
                Err(failure)
                    if !self.options.follow || is_final(&failure, has_answered, last_answer.elapsed()) =>
                {
                    return Err(failure);
                }
                Err(_) => {}
            }
            if last_answer.elapsed() > RECONNECT_TIMEOUT {
                return Err(Failure::new(format!(
                    "the connection to the log {} was lost and could not be restored within {} minutes",
                    self.path,
                    RECONNECT_TIMEOUT.as_secs() / 60
                )));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(last_pause);
        }
    }

    /// Prints what one connection returns, and advances the cursor.
    async fn print_connection(
        &self,
        output: &mut OutputWriter,
        attempt: Option<u32>,
        cursor: &mut Cursor,
    ) -> Result<LogEnd, Failure> {
        let mut log = self.client.log(&self.path, self.query(attempt, cursor)).await?;
        cursor.answered = true;
        if let Some(position) = log.begins_at {
            // The position replaces `tail` and `since` when the log is requested again.
            *cursor = Cursor { from: position, tail: None, since: None, ..*cursor };
        }
        let mut drops = Drops::default();
        let end = loop {
            let flush_after = output.flush_after();
            let pause = flush_after.or_else(|| (!drops.is_empty()).then_some(DROPS_PAUSE));
            let next = match pause {
                None => log.next().await,
                Some(pause) => {
                    if let Ok(next) = tokio::time::timeout(pause, log.next()).await {
                        next
                    } else {
                        let flushed = match flush_after {
                            Some(_) => output.flush_paused(),
                            None => write_drops(&mut drops, output),
                        };
                        if flushed.is_err() {
                            return Ok(LogEnd::OutputClosed);
                        }
                        continue;
                    }
                }
            };
            let items = match next {
                Ok(items) if items.is_empty() => break Ok(LogEnd::Disconnected),
                Ok(items) => items,
                Err(error) => break Err(error.into()),
            };
            let end = self.print_items(items, output, &mut drops, cursor);
            if output.flush().is_err() {
                return Ok(LogEnd::OutputClosed);
            }
            if let Some(end) = end.transpose() {
                break end;
            }
        };
        if write_drops(&mut drops, output).is_err() { Ok(LogEnd::OutputClosed) } else { end }
    }

    fn query(&self, attempt: Option<u32>, cursor: &Cursor) -> LogQuery {
        LogQuery {
            follow: self.options.follow,
            from: cursor.from,
            stream: self.options.stream,
            attempt,
            tail: cursor.tail,
            since: cursor.since,
        }
    }

    /// Prints items; returns how the log ended, if the last one was among them.
    fn print_items(
        &self,
        items: Vec<LogItem>,
        output: &mut OutputWriter,
        drops: &mut Drops,
        cursor: &mut Cursor,
    ) -> Result<Option<LogEnd>, Failure> {
        for item in items {
            if let Some(end) = self.print_item(item, output, drops, cursor)? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    /// Prints one item; returns how the log ended, if this was its last one.
    fn print_item(
        &self,
        item: LogItem,
        output: &mut OutputWriter,
        drops: &mut Drops,
        cursor: &mut Cursor,
    ) -> Result<Option<LogEnd>, Failure> {
        let written = match item {
            LogItem::Bytes { stream, at_micros, data, end } => {
                cursor.from = end;
                write_drops(drops, output).and_then(|()| output.bytes(stream, at_micros, &data))
            }
            LogItem::Hole { stream, len, why, end } => {
                cursor.from = end;
                match drops.add(stream, len, why) {
                    Some((len, why)) => output.dropped(stream, len, why),
                    None => Ok(()),
                }
            }
            LogItem::End => return Ok(Some(LogEnd::Complete)),
            LogItem::Pause { .. } if self.options.follow => return Ok(Some(LogEnd::Disconnected)),
            LogItem::Pause { missing: 0 } => return Ok(Some(LogEnd::Complete)),
            LogItem::Pause { missing } => {
                let have = if missing == 1 { "has" } else { "have" };
                return Err(Failure::new(format!(
                    "{} of the output in {} {have} not arrived from the node yet",
                    counted(missing, "byte"),
                    self.path
                ))
                .hint("They arrive when the node reconnects: try again later, or wait with -f"));
            }
        };
        Ok(written.is_err().then_some(LogEnd::OutputClosed))
    }
}

fn write_drops(drops: &mut Drops, output: &mut OutputWriter) -> std::io::Result<()> {
    drops.take().try_for_each(|(stream, len, why)| output.dropped(stream, len, why))
}

/// Where reading continues.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    from: u64,
    tail: Option<u32>,
    since: Option<Since>,
    /// Whether the server has answered.
    answered: bool,
}

impl Cursor {
    fn new(options: &LogOptions) -> Self {
        Self { from: options.from, tail: options.tail, since: options.since, answered: false }
    }
}

/// Why no more is read.
enum LogEnd {
    /// The log ended.
    Complete,
    /// The connection ended first.
    Disconnected,
    /// Our own output is closed.
    OutputClosed,
}
