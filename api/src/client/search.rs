//! Lines of the output of an Execution that match an expression.

use http::Method;
use sentinel_protocol::log::Stream;

use super::Client;
use super::error::ClientError;
use super::lines::Lines;
use crate::decode;
use crate::path::Query;
use crate::view::SearchLineView;

/// What is searched for.
#[derive(Debug, Clone, Copy)]
pub struct SearchQuery<'a> {
    /// A regular expression.
    pub pattern: &'a str,
    /// First position.
    pub from: u64,
    /// Only this stream.
    pub stream: Option<Stream>,
    /// Number of the Attempt; the latest by default.
    pub attempt: Option<u32>,
}

/// A search that is being answered.
#[derive(Debug)]
pub struct Search {
    lines: Lines,
}

impl Client {
    /// Searches the output of the Execution at a path.
    ///
    /// # Errors
    /// [`ClientError`] when the search is refused, also for an invalid expression.
    pub async fn search(&self, path: &str, wanted: SearchQuery<'_>) -> Result<Search, ClientError> {
        let mut query = Query::default();
        query.add("pattern", wanted.pattern);
        query.add("from", wanted.from);
        query.add("limit", 10_000);
        query.maybe("stream", wanted.stream.map(Stream::as_str));
        query.maybe("attempt", wanted.attempt);
        let response = self.send(Method::GET, &query.of(&format!("{path}/search")), None).await?;
        Ok(Search { lines: Lines::new(self.server().clone(), response.into_body()) })
    }
}

impl Search {
    /// The next line of the answer; `None` when it broke off. Cancel safe.
    ///
    /// # Errors
    /// [`ClientError`] when the stream breaks, or a line is not of the expected shape.
    pub async fn next(&mut self) -> Result<Option<SearchLineView>, ClientError> {
        let Some(text) = self.lines.next().await? else { return Ok(None) };
        let line = decode::slice(text.as_bytes()).map_err(|shape| ClientError::Shape {
            server: self.lines.server().clone(),
            what: "a line of a search".to_owned(),
            shape: Box::new(shape),
        })?;
        Ok(Some(line))
    }
}
