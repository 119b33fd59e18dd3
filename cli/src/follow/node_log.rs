//! The log of one node of a Run, printed as it comes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sentinel_protocol::log::Stream;
use tokio::sync::{Semaphore, watch};

use crate::client::{Client, LogItem, LogQuery};
use crate::exit::Failure;
use crate::output::printer::{Prefix, Printer};

/// How output is shown.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    /// Begin lines with the node's time.
    pub(crate) timestamps: bool,
    /// Only this stream.
    pub(crate) stream: Option<Stream>,
    /// First position.
    pub(crate) from: u64,
    /// Go on until the Attempt has ended.
    pub(crate) follow: bool,
}

/// How often a broken connection is made anew before giving up; pauses grow from 100 ms to 2 s.
const TRIES: u32 = 30;

/// A log to be printed.
#[derive(Debug)]
pub(crate) struct NodeLog {
    /// Who to ask.
    pub(crate) client: Client,
    /// The path of the log.
    pub(crate) path: String,
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
    /// Prints the log to its end. A reader of our output that went away ends it without a word.
    pub(crate) async fn print(mut self) -> Result<(), Failure> {
        let mut printer = Printer::new(self.prefix.clone());
        let mut attempt = match self.attempts {
            Attempts::Latest => None,
            Attempts::Only(number) => Some(number),
            Attempts::All(_) => Some(1),
        };
        let mut printed = self.print_attempt(&mut printer, attempt, self.look.from).await;
        while let (Ok(Ended::Log), Attempts::All(known), Some(number)) =
            (&printed, &mut self.attempts, attempt)
        {
            // Whoever knew of further Attempts is gone: this was the last.
            if known.wait_for(|latest| *latest > number).await.is_err() {
                break;
            }
            let next = number + 1;
            if printer.remark(Stream::Stderr, &format!("[sentinel: attempt {next}]")).is_err() {
                return Ok(());
            }
            attempt = Some(next);
            printed = self.print_attempt(&mut printer, attempt, 0).await;
        }
        if !matches!(printed, Ok(Ended::Reader)) {
            // A reader that went away needs no last line.
            let _ = printer.finish();
        }
        printed.map(|_| ())
    }

    /// Prints the log of one Attempt to its end.
    async fn print_attempt(
        &self,
        printer: &mut Printer,
        attempt: Option<u32>,
        from: u64,
    ) -> Result<Ended, Failure> {
        let _place = match &self.places {
            Some(places) => places.acquire().await.ok(),
            None => None,
        };
        let mut clock = Timestamps::default();
        let mut position = from;
        let mut tries = 0;
        loop {
            let before = position;
            match self.read_on(printer, &mut clock, attempt, &mut position).await {
                Ok(Ended::Connection) => {}
                Ok(ended) => return Ok(ended),
                // What cannot be asked for at all will not get better.
                Err(failure) if tries >= TRIES || failure.code == crate::exit::USAGE || !self.look.follow => {
                    return Err(failure);
                }
                Err(_) => {}
            }
            tries = if position > before { 0 } else { tries + 1 };
            if tries > TRIES {
                return Err(Failure::new(format!("the log {} breaks off again and again", self.path)));
            }
            tokio::time::sleep(Duration::from_millis((100 << tries.min(5)).min(2000))).await;
        }
    }

    async fn read_on(
        &self,
        printer: &mut Printer,
        clock: &mut Timestamps,
        attempt: Option<u32>,
        position: &mut u64,
    ) -> Result<Ended, Failure> {
        let Look { follow, stream, .. } = self.look;
        let wanted = LogQuery { follow, from: *position, stream, attempt };
        let mut lines = self.client.log(&self.path, wanted).await?;
        while let Some(item) = lines.next().await? {
            let written = match item {
                LogItem::Bytes { stream, at_micros, data, end } => {
                    *position = end;
                    if self.look.timestamps {
                        printer.bytes(stream, &clock.before_each_line(stream, at_micros, &data))
                    } else {
                        printer.bytes(stream, &data)
                    }
                }
                LogItem::Hole { stream, len, why, end } => {
                    *position = end;
                    clock.at_line_start(stream);
                    printer.remark(stream, &format!("[sentinel: {len} bytes dropped here: {}]", why.as_str()))
                }
                LogItem::End => return Ok(Ended::Log),
                LogItem::Pause { .. } if self.look.follow => return Ok(Ended::Connection),
                LogItem::Pause { missing: 0 } => return Ok(Ended::Log),
                LogItem::Pause { missing } => {
                    return Err(Failure::new(format!(
                        "{missing} bytes of the output in {} have not arrived from the node yet",
                        self.path
                    ))
                    .hint("They come when the node is connected again: ask once more, or wait with -f"));
                }
            };
            if written.is_err() {
                return Ok(Ended::Reader);
            }
        }
        Ok(Ended::Connection)
    }
}

enum Ended {
    /// There is no more.
    Log,
    /// The connection went before the log ended.
    Connection,
    /// Nobody reads what we print.
    Reader,
}

/// Puts the node's time before each line, also when a line comes in pieces.
#[derive(Debug, Default)]
struct Timestamps {
    inside: [bool; 2],
}

impl Timestamps {
    fn before_each_line(&mut self, stream: Stream, at_micros: i64, data: &[u8]) -> Vec<u8> {
        let time = Timestamp::from_microsecond(at_micros)
            .map_or_else(|_| "?".to_owned(), |time| format!("{time:.6}"));
        let inside = &mut self.inside[lane(stream)];
        let mut text = Vec::with_capacity(data.len() + 32);
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            if !*inside {
                text.extend_from_slice(time.as_bytes());
                text.push(b' ');
            }
            text.extend_from_slice(line);
            *inside = !line.ends_with(b"\n");
        }
        text
    }

    fn at_line_start(&mut self, stream: Stream) {
        self.inside[lane(stream)] = false;
    }
}

fn lane(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_comes_in_pieces_has_one_time() {
        let mut clock = Timestamps::default();
        let first = clock.before_each_line(Stream::Stdout, 0, b"a\nb");
        let second = clock.before_each_line(Stream::Stdout, 1_000_000, b"c\n");
        assert_eq!(
            String::from_utf8([first, second].concat()).unwrap(),
            "1970-01-01T00:00:00.000000Z a\n1970-01-01T00:00:00.000000Z bc\n"
        );
    }
}
