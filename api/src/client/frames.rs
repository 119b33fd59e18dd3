//! The frames of a log ([`crate::records`]), from a body that arrives in pieces.
//!
//! Data is passed on as it arrives, each piece with the position behind it: a record of any length takes no memory, and a
//! reader whose connection breaks in the middle of one continues there.

use bytes::{Buf as _, Bytes};
use http_body_util::BodyExt as _;
use sentinel_protocol::limits::MAX_POSITION;
use sentinel_protocol::log::Stream;

use super::error::ClientError;
use super::log_item::{Head, LogItem};
use super::server::Server;
use super::transport::Body;
use crate::decode::{self, ShapeError};
use crate::records::MAX_HEAD;

/// The frames of a body.
#[derive(Debug)]
pub(super) struct Frames {
    server: Server,
    body: Body,
    /// The rest of the last piece of the body.
    piece: Bytes,
    /// A head that has not arrived as a whole, behind its length.
    begun: Vec<u8>,
    /// The record whose data follows.
    open: Option<OpenRecord>,
    /// What was wrong with a frame, behind which nothing can be read.
    failed: Option<ShapeError>,
}

/// A record whose data has not arrived as a whole.
#[derive(Debug)]
struct OpenRecord {
    stream: Stream,
    at_micros: i64,
    /// Where the next byte belongs.
    position: u64,
    end: u64,
}

impl Frames {
    pub(super) fn new(server: Server, body: Body) -> Self {
        Self { server, body, piece: Bytes::new(), begun: Vec::new(), open: None, failed: None }
    }

    /// The next parts, as far as they have arrived; none at the end of the body, be it in the middle of a frame. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Vec<LogItem>, ClientError> {
        let mut items = Vec::new();
        loop {
            // What stands before a wrong frame is passed on first.
            if self.failed.is_none() {
                self.failed = self.arrived(&mut items).err();
            }
            if !items.is_empty() {
                return Ok(items);
            }
            if let Some(shape) = &self.failed {
                let (server, shape) = (self.server.clone(), Box::new(shape.clone()));
                return Err(ClientError::Shape { server, what: "a record of a log".to_owned(), shape });
            }
            match self.body.frame().await {
                None => return Ok(items),
                Some(Ok(frame)) => self.piece = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Err(ClientError::of_body(&self.server, &error)),
            }
        }
    }

    /// The parts in the rest of the piece, which is used up.
    fn arrived(&mut self, items: &mut Vec<LogItem>) -> Result<(), ShapeError> {
        while !self.piece.is_empty() {
            if let Some(open) = &mut self.open {
                let len = usize::try_from(open.end - open.position).unwrap_or(usize::MAX);
                let data = self.piece.split_to(len.min(self.piece.len()));
                open.position += data.len() as u64;
                let (stream, at_micros, end) = (open.stream, open.at_micros, open.position);
                items.push(LogItem::Bytes { stream, at_micros, data, end });
                self.open = self.open.take().filter(|open| open.position < open.end);
            } else if let Some(head) = self.head()? {
                match begun(&head)? {
                    Begun::Record(open) => self.open = Some(open),
                    Begun::Whole(item) => items.extend(item),
                }
            }
        }
        Ok(())
    }

    /// The next head, once it has arrived as a whole.
    fn head(&mut self) -> Result<Option<Head>, ShapeError> {
        loop {
            let len = match self.begun[..] {
                [high, low, ..] => 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => 2,
            };
            if len > 2 + MAX_HEAD {
                return Err(wrong("length", &format!("{} bytes; at most {MAX_HEAD} are allowed", len - 2)));
            }
            let missing = len - self.begun.len();
            if missing == 0 {
                break;
            }
            if self.piece.is_empty() {
                return Ok(None);
            }
            let part = missing.min(self.piece.len());
            self.begun.extend_from_slice(&self.piece[..part]);
            self.piece.advance(part);
        }
        let head = decode::slice(&self.begun[2..]).map(Some);
        self.begun.clear();
        head
    }
}

enum Begun {
    /// Data follows.
    Record(OpenRecord),
    /// None follows: a part of its own, or one of a kind of a newer server.
    Whole(Option<LogItem>),
}

fn begun(head: &Head) -> Result<Begun, ShapeError> {
    let (Some(stream), "record", None) = (head.stream, head.kind.as_str(), head.dropped) else {
        return Ok(Begun::Whole(head.item()));
    };
    let end = head.position.checked_add(head.len).filter(|end| *end <= MAX_POSITION);
    let end = end.ok_or_else(|| wrong("len", "it leads beyond the last position"))?;
    if head.len == 0 {
        return Err(wrong("len", "a record has at least one byte"));
    }
    Ok(Begun::Record(OpenRecord { stream, at_micros: head.at_micros, position: head.position, end }))
}

fn wrong(field: &str, message: &str) -> ShapeError {
    ShapeError { field: field.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream::iter;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use sentinel_protocol::log::DropReason;

    use super::*;
    use crate::client::transport::boxed;
    use crate::records::frame;

    fn framed(head: &str, data: &[u8]) -> Vec<u8> {
        [frame(head.as_bytes(), 0).unwrap(), data.to_vec()].concat()
    }

    /// The parts of a body that arrives in pieces of this size.
    async fn read(bytes: &[u8], size: usize) -> Result<Vec<LogItem>, ClientError> {
        let pieces: Vec<_> = bytes
            .chunks(size)
            .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(piece))))
            .collect();
        let server = "http://127.0.0.1:1".parse().unwrap();
        let mut frames = Frames::new(server, boxed(StreamBody::new(iter(pieces))));
        let mut all = Vec::new();
        loop {
            let items = frames.next().await?;
            if items.is_empty() {
                return Ok(all);
            }
            all.extend(items);
        }
    }

    /// The data joined, with the position behind it; then the other parts.
    fn joined(items: Vec<LogItem>) -> (Vec<u8>, u64, Vec<LogItem>) {
        let (mut bytes, mut position, mut others) = (Vec::new(), 0, Vec::new());
        for item in items {
            match item {
                LogItem::Bytes { data, end, .. } => {
                    assert!(!data.is_empty());
                    bytes.extend_from_slice(&data);
                    position = end;
                }
                other => others.push(other),
            }
        }
        (bytes, position, others)
    }

    fn whole() -> Vec<u8> {
        [
            framed(
                r#"{"kind":"record","stream":"stdout","position":7,"len":4,"atMicros":5,"new":1}"#,
                b"\xff\0\n\x01",
            ),
            framed(r#"{"kind":"weather"}"#, b""),
            framed(r#"{"kind":"record","stream":"stderr","position":11,"len":9,"dropped":"spoolFull"}"#, b""),
            framed(r#"{"kind":"record","stream":"stdout","position":20,"len":2}"#, b"ab"),
            framed(r#"{"kind":"end","position":22,"ended":true}"#, b""),
        ]
        .concat()
    }

    #[tokio::test]
    async fn frames_are_the_same_however_they_arrive() {
        let bytes = whole();
        for size in 1..=bytes.len() {
            let (data, position, others) = joined(read(&bytes, size).await.unwrap());
            assert_eq!((&data[..], position), (&b"\xff\0\n\x01ab"[..], 22), "pieces of {size}");
            let [
                LogItem::Hole { stream: Stream::Stderr, len: 9, why: DropReason::SpoolFull, end: 20 },
                LogItem::End,
            ] = others[..]
            else {
                panic!("pieces of {size}: {others:?}")
            };
        }
    }

    /// What was not sent is requested again from the position that was reached.
    #[tokio::test]
    async fn truncated_frame_is_read_as_far_as_it_was_sent() {
        let bytes = whole();
        let mut last = 0;
        for len in 0..bytes.len() {
            let (data, position, others) = joined(read(&bytes[..len], 5).await.unwrap());
            assert!(!others.iter().any(|item| matches!(item, LogItem::End)), "{len} bytes");
            assert!(b"\xff\0\n\x01ab".starts_with(&data) && position >= last, "{len} bytes");
            last = position;
        }
        assert_eq!(last, 22);
    }

    #[tokio::test]
    async fn hostile_frames_are_errors_and_take_no_memory() {
        let record = |rest: &str| format!(r#"{{"kind":"record","stream":"stdout",{rest}}}"#);
        for (bytes, field) in [
            (vec![0xff; 70_000], "length"),
            (vec![0, 0], "."),
            (framed("<html>", b""), "."),
            (framed("[]", b""), "."),
            (framed(&record(r#""position":-1"#), b""), "position"),
            (framed(&record(r#""position":0,"len":"9""#), b""), "len"),
            (framed(&record(r#""position":0,"len":0"#), b""), "len"),
            (framed(&record(r#""position":5"#), b""), "len"),
            (framed(&record(r#""position":1,"len":9223372036854775807"#), b"x"), "len"),
            (framed(&record(r#""position":18446744073709551615,"len":18446744073709551615"#), b"x"), "len"),
        ] {
            for size in [1, 7, 100_000] {
                match read(&bytes, size).await {
                    Err(ClientError::Shape { shape, .. }) => assert_eq!(shape.field, field, "{bytes:?}"),
                    other => panic!("{other:?}"),
                }
            }
        }
        let behind = [whole(), vec![0xff; 9]].concat();
        let server = "http://127.0.0.1:1".parse().unwrap();
        let piece = Ok::<_, Infallible>(Frame::data(Bytes::from(behind)));
        let mut frames = Frames::new(server, boxed(StreamBody::new(iter([piece]))));
        assert_eq!(frames.next().await.unwrap().len(), 4, "what stands before it");
        assert!(frames.next().await.is_err() && frames.next().await.is_err());
        // A record may be as long as a log may be: it is never held.
        let endless = framed(&record(r#""position":0,"len":9223372036854775807"#), &[b'x'; 100]);
        let (data, position, _) = joined(read(&endless, 30).await.unwrap());
        assert_eq!((data.len(), position), (100, 100));
    }
}
