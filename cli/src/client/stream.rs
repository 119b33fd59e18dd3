//! An answer that goes on: its lines, one by one.

use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::exit::Failure;

/// Longest line that is read, bytes; a record of output in base64, or a Task, fits with room to spare.
const MAX_LINE: usize = 4 << 20;

/// The lines of a body.
#[derive(Debug)]
pub(super) struct Lines {
    body: Incoming,
    waiting: BytesMut,
    /// Up to where `waiting` is known to hold no line end.
    looked_at: usize,
}

impl Lines {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, waiting: BytesMut::new(), looked_at: 0 }
    }

    /// The next line without its end; `None` when the body ended. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            if let Some(found) = self.waiting[self.looked_at..].iter().position(|byte| *byte == b'\n') {
                let line = self.waiting.split_to(self.looked_at + found);
                self.waiting.advance(1);
                self.looked_at = 0;
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            self.looked_at = self.waiting.len();
            if self.waiting.len() > MAX_LINE {
                return Err(Failure::new(format!("the server sent a line of more than {MAX_LINE} bytes")));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.waiting.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(Failure::new(format!("the stream broke off: {error}"))),
            }
        }
    }
}
