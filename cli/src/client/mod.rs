//! The HTTP API, as a client sees it.

mod connector;
mod events;
pub(crate) mod local;
mod log;
mod server;
mod stream;

pub(crate) use events::{Event, Events};
pub(crate) use log::{LogItem, LogQuery, Since};
pub(crate) use server::Server;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use sentinel_protocol::product::user_agent;
use serde_json::Value;

use self::connector::{Bears, Connector};
use crate::exit::{FAILED, Failure, USAGE};
use crate::output::format::note;
use crate::output::text::Text;
use sentinel_operator::files;
use sentinel_operator::http::guard::OWN_HEADER;

/// Largest answer that is read whole, bytes.
const MAX_ANSWER: usize = 64 << 20;

/// Longest file with a token, bytes.
const MAX_TOKEN_FILE: u64 = 64 << 10;

/// How long an answer may take to begin.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Most items that the server gives at once.
const MAX_PAGE: usize = 500;

/// Items of a list, and whether they are all.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// The items.
    pub(crate) items: Vec<Value>,
    /// Where the list goes on; `None` when nothing follows.
    pub(crate) next: Option<String>,
    /// Why the server may have left out items that exist.
    pub(crate) partial: Option<String>,
}

/// A client of one server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    server: Server,
    bearer: Option<HeaderValue>,
    pool: Pool<Connector, Full<Bytes>>,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: StatusCode,
    /// What the server says it did with an applied Task.
    pub(crate) result: Option<String>,
    /// Its body.
    pub(crate) value: Value,
}

impl Client {
    pub(crate) fn new(server: Server) -> Self {
        Self::bearing(server, None)
    }

    /// The same with the token of a file, if one is given.
    pub(crate) fn with_token(server: Server, file: Option<&Path>) -> Result<Self, Failure> {
        Ok(Self::bearing(server, file.map(read_token).transpose()?))
    }

    fn bearing(server: Server, bearer: Option<HeaderValue>) -> Self {
        let bears = if bearer.is_some() { Bears::Token } else { Bears::Nothing };
        let connector = Connector { server: server.clone(), bears };
        let pool = Pool::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self { server, bearer, pool }
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// A value from a path.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.call(Method::GET, path, None).await?.value)
    }

    /// The first `most` items of a list, page after page, beginning behind an earlier `next`.
    pub(crate) async fn list(
        &self,
        path: &str,
        query: Query,
        most: usize,
        behind: Option<&str>,
    ) -> Result<Listed, Failure> {
        let mut listed = Listed { next: behind.map(str::to_owned), ..Listed::default() };
        loop {
            let mut query = query.clone();
            // No more than is still wanted, so that the last `next` goes on behind the last item.
            query.add("limit", most.saturating_sub(listed.items.len()).clamp(1, MAX_PAGE));
            query.maybe("page", listed.next.as_deref());
            let mut value = self.get(&query.of(path)).await?;
            if let Value::Array(more) = value["items"].take() {
                listed.items.extend(more);
            }
            listed.next = value["next"].as_str().map(str::to_owned);
            if let Some(why) = value["partial"]["message"].as_str() {
                listed.partial.get_or_insert_with(|| why.to_owned());
            }
            if listed.next.is_none() || listed.items.len() >= most {
                return Ok(listed);
            }
        }
    }

    /// Whether the server answers at all.
    ///
    /// # Errors
    /// Why not.
    pub(crate) async fn ping(&self) -> Result<(), Failure> {
        match self.send(Method::GET, "/healthz", None).await {
            Err(failure) if failure.status.is_none() => Err(failure),
            _ => Ok(()),
        }
    }

    /// Every item of a list, page after page. When some may be missing, standard error reports it.
    pub(crate) async fn list_all(&self, path: &str, query: Query) -> Result<Vec<Value>, Failure> {
        let listed = self.list(path, query, usize::MAX, None).await?;
        if let Some(why) = &listed.partial {
            note(Text::sentinel().then(why));
        }
        Ok(listed.items)
    }

    /// A request with or without a JSON body.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Reply, Failure> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let result =
            response.headers().get("sentinel-result").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let bytes = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| Failure::new(format!("the answer of {} broke off: {error}", self.server)))?
            .to_bytes();
        let value = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).map_err(|error| {
                Failure::new(format!("{} did not answer with JSON: {error}", self.server))
                    .hint("Is it a Sentinel Node API? Say which with --server.")
            })?
        };
        Ok(Reply { status, result, value })
    }

    /// Sends, and gives the answer once it has begun; an error answer is a [`Failure`] with the server's sentence.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server.base()))
            .header("accept", "application/json, text/event-stream, */*")
            .header("user-agent", user_agent("sentinel"))
            // No form of a web page can send it.
            .header(OWN_HEADER, "1");
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        let bytes = match body {
            Some(value) => {
                request = request.header("content-type", "application/json");
                Bytes::from(value.to_string())
            }
            None => Bytes::new(),
        };
        let request = request
            .body(Full::new(bytes))
            .map_err(|error| Failure::usage(format!("cannot ask for {path:?}: {error}")))?;
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.pool.request(request)).await;
        let response = answer
            .map_err(|_| {
                let seconds = ANSWER_WITHIN.as_secs();
                Failure::new(format!("{} did not answer within {seconds} s", self.server))
            })?
            .map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(&self.server, response).await) }
    }

    fn unreachable(&self, error: &hyper_util::client::legacy::Error) -> Failure {
        if is_refused(error) {
            Failure::new(format!("refused to use {}: {}", self.server, root_cause(error))).hint(
                "Run it as the user of that server, or name another one: --server URL (or SENTINEL_SERVER)",
            )
        } else if error.is_connect() {
            Failure::new(format!("no server answers at {}: {}", self.server, root_cause(error)))
                .hint("Start one with: sentinel dev\nOr say where it is: --server URL (or SENTINEL_SERVER)")
        } else {
            Failure::new(format!("the connection to {} broke off: {}", self.server, root_cause(error)))
        }
    }
}

fn read_token(path: &Path) -> Result<HeaderValue, Failure> {
    let wrong = |why: &str| {
        Failure::usage(format!("--token-file {}: failed to read the token: {why}", path.display()))
    };
    // Read once, so that it may come from a pipe.
    let bytes = std::fs::File::open(path).and_then(|file| files::read_from(file, MAX_TOKEN_FILE));
    let text = bytes.map_err(|error| wrong(&error.to_string()))?;
    let text = String::from_utf8(text).map_err(|_| wrong("it is not text"))?;
    if text.trim().is_empty() {
        return Err(wrong("the file is empty"));
    }
    let mut value = HeaderValue::try_from(format!("Bearer {}", text.trim()))
        .map_err(|_| wrong("it holds characters that no token has"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether it was us who refused the server.
fn is_refused(error: &hyper_util::client::legacy::Error) -> bool {
    let first = std::error::Error::source(error);
    std::iter::successors(first, |error| error.source()).any(|error| {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<local::Refused>)
    })
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// The server's own words for why it did not.
async fn refusal(server: &Server, response: Response<Incoming>) -> Failure {
    let status = response.status();
    let body =
        Limited::new(response.into_body(), 1 << 20).collect().await.map(http_body_util::Collected::to_bytes);
    let value: Value = body.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let Some(message) = value["message"].as_str() else {
        let mut failure = Failure::new(format!("{server} answered {status}"))
            .hint("Is it a Sentinel Node API? Name another with --server.");
        failure.status = Some(status.as_u16());
        return failure;
    };
    let code = match status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            USAGE
        }
        _ => FAILED,
    };
    let mut message = message.to_owned();
    if let Some(problems) = value["problems"].as_array() {
        let lines = problems.iter().map(|problem| {
            let text = |key: &str| problem[key].as_str().unwrap_or("").to_owned();
            let (field, value, allowed) = (text("field"), text("value"), text("allowed"));
            if value.is_empty() {
                format!("\n  {field} {allowed}")
            } else {
                format!("\n  {field} is {value}; it {allowed}")
            }
        });
        let before = message.split_once(" is not valid: ").map_or(message.as_str(), |(what, _)| what);
        message = format!("{before} has {} problems:{}", problems.len(), lines.collect::<String>());
    }
    let hint = (status == StatusCode::UNAUTHORIZED).then(|| {
        "A dev mode answers `sentinel` of its own user without a token. From elsewhere: --token-file FILE, with the token of the file that it names at its start".to_owned()
    });
    Failure { code, message, hint, status: Some(status.as_u16()) }
}

/// The query of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(String);

impl Query {
    pub(crate) fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        self.0.push_str(&escape(&value.to_string()));
    }

    pub(crate) fn maybe(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// The path with this query.
    pub(crate) fn of(&self, path: &str) -> String {
        format!("{path}{}", self.0)
    }
}

/// A text as it may stand in a part of a path or in a query.
pub(crate) fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(byte as char);
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// The path of a Task.
pub(crate) fn task_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/tasks/{}/{}", escape(namespace), escape(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_cannot_change_the_path_or_the_query() {
        assert_eq!(task_path("a", "b/../c?x"), "/api/v1/tasks/a/b%2F..%2Fc%3Fx");
        let mut query = Query::default();
        query.add("node", "a&b=c d");
        query.maybe("run", Some(3));
        query.maybe("task", None::<&str>);
        assert_eq!(query.of("/x"), "/x?node=a%26b%3Dc%20d&run=3");
    }
}
