//! The log of one node of a Run, printed as it comes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sentinel_protocol::log::Stream;
use tokio::sync::{Semaphore, watch};

use super::link::PATIENCE;
use super::output::{Drops, Form, Output};
use crate::client::{Client, LogItem, LogQuery, Since};
use crate::exit::Failure;
use crate::output::printer::Prefix;

/// How output is shown.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    /// Begin lines with the node's time.
    pub(crate) timestamps: bool,
    /// Only this stream.
    pub(crate) stream: Option<Stream>,
    /// First position.
    pub(crate) from: u64,
    /// Only so many last lines.
    pub(crate) tail: Option<u32>,
    /// Only what was written since.
    pub(crate) since: Option<Since>,
    /// Go on until the Attempt has ended.
    pub(crate) follow: bool,
    /// For people or for programs.
    pub(crate) form: Form,
}

/// How long it must be quiet until a marker of dropped bytes is shown: with more of them it would be one of many.
const DROPS_WITHIN: Duration = Duration::from_secs(1);

/// How long the server may answer that there is no such log: just after its start it may not know yet.
const MISSING_FOR: Duration = Duration::from_secs(10);

/// A log to be printed.
#[derive(Debug)]
pub(crate) struct NodeLog {
    /// Who to ask.
    pub(crate) client: Client,
    /// The path of the log.
    pub(crate) path: String,
    /// The node.
    pub(crate) node: String,
    /// How each line begins.
    pub(crate) prefix: Prefix,
    /// How it is shown.
    pub(crate) look: Look,
    /// Of which Attempts.
    pub(crate) attempts: Attempts,
    /// How many logs are read at once, where many are.
    pub(crate) places: Option<Arc<Semaphore>>,
}

/// Of which Attempts of an Execution the output is printed.
#[derive(Debug)]
pub(crate) enum Attempts {
    /// Of the latest.
    Latest,
    /// Of the one with this number.
    Only(u32),
    /// Of all, the first to the last that becomes known before the sender is gone.
    All(watch::Receiver<u32>),
}

impl NodeLog {
    /// Prints the log to its end. When the reader of our output is gone it ends without an error.
    pub(crate) async fn print(mut self) -> Result<(), Failure> {
        let mut output = match self.look.form {
            Form::Text => Output::text(self.prefix.clone(), self.look.timestamps),
            Form::Json => Output::json(self.node.clone()),
        };
        let mut attempt = match &self.attempts {
            Attempts::Latest => None,
            Attempts::Only(number) => Some(*number),
            // The last lines are those of the latest.
            Attempts::All(known) if self.look.tail.is_some() => Some(*known.borrow()),
            Attempts::All(_) => Some(1),
        };
        if let Some(number) = attempt.filter(|number| *number > 1)
            && self.look.form == Form::Json
        {
            let _ = output.attempt(number);
        }
        let mut printed = self.print_attempt(&mut output, attempt, Start::of(&self.look)).await;
        while let (Ok(Ended::Log), Attempts::All(known), Some(number)) =
            (&printed, &mut self.attempts, attempt)
        {
            // The sender is gone: this was the last.
            if known.wait_for(|latest| *latest > number).await.is_err() {
                break;
            }
            let next = number + 1;
            if output.attempt(next).is_err() {
                return Ok(());
            }
            attempt = Some(next);
            let start = Start { tail: None, from: 0, ..Start::of(&self.look) };
            printed = self.print_attempt(&mut output, attempt, start).await;
        }
        if !matches!(printed, Ok(Ended::Reader)) {
            // A reader that is gone needs no last line.
            let _ = output.finish();
        }
        printed.map(|_| ())
    }

    /// Prints the log of one Attempt to its end.
    async fn print_attempt(
        &self,
        output: &mut Output,
        attempt: Option<u32>,
        mut start: Start,
    ) -> Result<Ended, Failure> {
        let _place = match &self.places {
            Some(places) => places.acquire().await.ok(),
            None => None,
        };
        let mut pause = Duration::from_millis(100);
        let mut reached = Instant::now();
        loop {
            let before = start.from;
            let ended = self.read_on(output, attempt, &mut start).await;
            if std::mem::take(&mut start.answered) {
                reached = Instant::now();
            }
            if start.from > before {
                pause = Duration::from_millis(100);
            }
            match ended {
                Ok(Ended::Connection) => {}
                Ok(ended) => return Ok(ended),
                Err(failure) if !self.look.follow || is_final(&failure, reached.elapsed()) => {
                    return Err(failure);
                }
                Err(_) => {}
            }
            if reached.elapsed() > PATIENCE {
                return Err(Failure::new(format!(
                    "the log {} has broken off and could not be read on for {} minutes",
                    self.path,
                    PATIENCE.as_secs() / 60
                )));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    async fn read_on(
        &self,
        output: &mut Output,
        attempt: Option<u32>,
        start: &mut Start,
    ) -> Result<Ended, Failure> {
        let wanted = LogQuery {
            follow: self.look.follow,
            from: start.from,
            stream: self.look.stream,
            attempt,
            tail: start.tail,
            since: start.since,
        };
        let mut lines = self.client.log(&self.path, wanted).await?;
        start.answered = true;
        if let Some(position) = lines.begins_at {
            // From now on the position alone names what is still to be read.
            *start = Start { from: position, tail: None, since: None, ..*start };
        }
        let mut drops = Drops::default();
        let ended = loop {
            let pause = output.pause_after();
            let quiet = pause.or_else(|| (!drops.is_empty()).then_some(DROPS_WITHIN));
            let next = match quiet {
                None => lines.next().await,
                Some(quiet) => {
                    if let Ok(next) = tokio::time::timeout(quiet, lines.next()).await {
                        next
                    } else {
                        let shown = if pause.is_some() { output.pause() } else { show(&mut drops, output) };
                        if shown.is_err() {
                            return Ok(Ended::Reader);
                        }
                        continue;
                    }
                }
            };
            let item = match next {
                Ok(Some(item)) => item,
                Ok(None) => break Ok(Ended::Connection),
                Err(failure) => break Err(failure),
            };
            let written = match item {
                LogItem::Bytes { stream, at_micros, data, end } => {
                    start.from = end;
                    show(&mut drops, output).and_then(|()| output.bytes(stream, at_micros, &data))
                }
                LogItem::Hole { stream, len, why, end } => {
                    start.from = end;
                    match drops.add(stream, len, why) {
                        Some((len, why)) => output.dropped(stream, len, why),
                        None => Ok(()),
                    }
                }
                LogItem::End => break Ok(Ended::Log),
                LogItem::Pause { .. } if self.look.follow => break Ok(Ended::Connection),
                LogItem::Pause { missing: 0 } => break Ok(Ended::Log),
                LogItem::Pause { missing } => {
                    break Err(Failure::new(format!(
                        "{missing} bytes of the output in {} have not arrived from the node yet",
                        self.path
                    ))
                    .hint("They come when the node is connected again: ask once more, or wait with -f"));
                }
            };
            if written.is_err() {
                return Ok(Ended::Reader);
            }
        };
        if show(&mut drops, output).is_err() { Ok(Ended::Reader) } else { ended }
    }
}

fn show(drops: &mut Drops, output: &mut Output) -> std::io::Result<()> {
    drops.take().try_for_each(|(stream, len, why)| output.dropped(stream, len, why))
}

/// Whether asking again cannot help.
fn is_final(failure: &Failure, since: Duration) -> bool {
    failure.code == crate::exit::USAGE || (failure.is_not_found() && since > MISSING_FOR)
}

/// Where reading begins.
#[derive(Debug, Clone, Copy)]
struct Start {
    from: u64,
    tail: Option<u32>,
    since: Option<Since>,
    /// Whether the server has begun to answer.
    answered: bool,
}

impl Start {
    fn of(look: &Look) -> Self {
        Self { from: look.from, tail: look.tail, since: look.since, answered: false }
    }
}

enum Ended {
    /// There is no more.
    Log,
    /// The connection went before the log ended.
    Connection,
    /// What we print is not read any more.
    Reader,
}
