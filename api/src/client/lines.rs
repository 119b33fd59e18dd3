//! The body of a streaming answer, line by line.

use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use memchr::memchr;

use super::error::ClientError;
use super::server::Server;
use super::transport::Body;

/// Longest line, bytes; a record of output in base64, or a Task, fits with room to spare.
const MAX_LINE: usize = 4 << 20;

/// The lines of a body.
#[derive(Debug)]
pub(super) struct Lines {
    server: Server,
    body: Body,
    buffer: BytesMut,
    /// Length of the prefix of `buffer` that is known to hold no line end.
    scanned: usize,
}

impl Lines {
    pub(super) fn new(server: Server, body: Body) -> Self {
        Self { server, body, buffer: BytesMut::new(), scanned: 0 }
    }

    /// The server that sends them.
    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// Whether the next line has arrived already.
    pub(super) fn has_line(&self) -> bool {
        memchr(b'\n', &self.buffer[self.scanned..]).is_some()
    }

    /// The next line without its end; `None` at the end of the body. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(found) = memchr(b'\n', &self.buffer[self.scanned..]) {
                let line = self.buffer.split_to(self.scanned + found);
                self.buffer.advance(1);
                self.scanned = 0;
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            self.scanned = self.buffer.len();
            if self.buffer.len() > MAX_LINE {
                return Err(ClientError::LineTooLong { server: self.server.clone(), most: MAX_LINE });
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(ClientError::of_body(&self.server, &error)),
            }
        }
    }
}
