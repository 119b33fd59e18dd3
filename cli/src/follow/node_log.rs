//! The log of one node of a Run, printed as it comes.

use std::time::Duration;

use jiff::Timestamp;
use sentinel_protocol::log::Stream;

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
}

impl NodeLog {
    /// Prints the log to its end. A reader of our output that went away ends it without a word.
    pub(crate) async fn print(self) -> Result<(), Failure> {
        let mut printer = Printer::new(self.prefix.clone());
        let mut clock = Timestamps::default();
        let mut position = self.look.from;
        let mut tries = 0;
        loop {
            let before = position;
            match self.read_on(&mut printer, &mut clock, &mut position).await {
                Ok(Ended::Log) => {
                    finish(&mut printer);
                    return Ok(());
                }
                Ok(Ended::Reader) => return Ok(()),
                Ok(Ended::Connection) => {}
                // What cannot be asked for at all will not get better.
                Err(failure) if tries >= TRIES || failure.code == crate::exit::USAGE || !self.look.follow => {
                    finish(&mut printer);
                    return Err(failure);
                }
                Err(_) => {}
            }
            tries = if position > before { 0 } else { tries + 1 };
            if tries > TRIES {
                finish(&mut printer);
                return Err(Failure::new(format!("the log {} breaks off again and again", self.path)));
            }
            tokio::time::sleep(Duration::from_millis((100 << tries.min(5)).min(2000))).await;
        }
    }

    async fn read_on(
        &self,
        printer: &mut Printer,
        clock: &mut Timestamps,
        position: &mut u64,
    ) -> Result<Ended, Failure> {
        let wanted = LogQuery { follow: self.look.follow, from: *position, stream: self.look.stream };
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
                LogItem::Pause if self.look.follow => return Ok(Ended::Connection),
                LogItem::Pause => return Ok(Ended::Log),
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

fn finish(printer: &mut Printer) {
    // A reader that went away needs no last line.
    let _ = printer.finish();
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
