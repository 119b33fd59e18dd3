//! The answer of a handler.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt as _};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use super::error::ApiError;

/// Why a streamed body ends early. The connection is then closed without an end of the body, so that its reader can
/// distinguish it from the end.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The media type of the body.
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Body,
}

/// The body of an answer.
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// A part of this program, which takes no memory however many readers it has.
    Static(&'static [u8]),
    /// In chunks, at the pace of its reader.
    Stream(Chunks),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
            Self::Static(bytes) => write!(f, "Static({} bytes)", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// A body in chunks.
///
/// The mutex is never locked: it makes a stream that is only `Send` also `Sync`, which warp requires of a body.
pub struct Chunks(Mutex<ChunkStream>);

type ChunkStream = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

impl Chunks {
    /// Wraps a stream.
    pub fn new(stream: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Self {
        Self(Mutex::new(Box::pin(stream)))
    }
}

impl Stream for Chunks {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.0.get_mut() {
            Ok(stream) => stream.as_mut().poll_next(cx),
            Err(poisoned) => poisoned.into_inner().as_mut().poll_next(cx),
        }
    }
}

impl Answer {
    /// An error as the API server's clients read it: with the fields of a `Status` beside our own
    /// (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/>).
    #[must_use]
    pub fn as_status(mut self) -> Self {
        if self.status.as_u16() < 400 {
            return self;
        }
        if let Body::Whole(bytes) = &self.body
            && let Ok(serde_json::Value::Object(mut body)) = serde_json::from_slice(bytes)
        {
            body.insert("kind".to_owned(), "Status".into());
            body.insert("apiVersion".to_owned(), "v1".into());
            body.insert("status".to_owned(), "Failure".into());
            body.insert("code".to_owned(), self.status.as_u16().into());
            self.body = Body::Whole(serde_json::Value::Object(body).to_string().into());
        }
        self
    }

    /// 200 with a JSON value.
    ///
    /// # Errors
    /// 500 when the value has no JSON form.
    pub fn json<T: Serialize>(value: &T) -> Result<Self, ApiError> {
        Self::json_as(StatusCode::OK, value)
    }

    /// A JSON value with another status.
    ///
    /// # Errors
    /// 500 when the value has no JSON form.
    pub fn json_as<T: Serialize>(status: StatusCode, value: &T) -> Result<Self, ApiError> {
        let mut text = serde_json::to_vec(value)
            .map_err(|error| ApiError::internal(format!("failed to write the answer as JSON: {error}")))?;
        text.push(b'\n');
        Ok(Self::whole(status, "application/json", text))
    }

    /// A complete body.
    pub fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: Body::Whole(body.into()) }
    }

    /// 200 with a body in chunks.
    pub fn stream(
        content_type: &'static str,
        stream: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
    ) -> Self {
        Self {
            status: StatusCode::OK,
            content_type,
            headers: Vec::new(),
            body: Body::Stream(Chunks::new(stream)),
        }
    }

    /// The same, keeping a value alive until the body is sent.
    #[must_use]
    pub fn holding(mut self, held: impl Send + 'static) -> Self {
        self.body = match self.body {
            whole @ (Body::Whole(_) | Body::Static(_)) => whole,
            Body::Stream(chunks) => {
                let state = (chunks, held);
                Body::Stream(Chunks::new(unfold(state, |(mut chunks, held)| async move {
                    chunks.next().await.map(|chunk| (chunk, (chunks, held)))
                })))
            }
        };
        self
    }

    /// The same with the name of the file that a browser saves; it has no quotation marks.
    #[must_use]
    pub fn saved_as(self, name: &str) -> Self {
        self.with("content-disposition", format_args!("attachment; filename=\"{name}\""))
    }

    /// The same with one more header, unless the value cannot stand in a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl std::fmt::Display) -> Self {
        if let Ok(value) = HeaderValue::from_str(&value.to_string()) {
            self.headers.push((HeaderName::from_static(name), value));
        }
        self
    }
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Self {
        let body = serde_json::to_vec(&*error.body).unwrap_or_default();
        let mut answer = Self::whole(error.status, "application/json", [body, b"\n".to_vec()].concat());
        if let Some(allow) = error.allow {
            answer = answer.with("allow", allow);
        }
        if error.status == StatusCode::SERVICE_UNAVAILABLE {
            answer = answer.with("retry-after", 2);
        }
        answer
    }
}
