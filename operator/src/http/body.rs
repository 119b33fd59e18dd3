//! The body of a request: read only where the route takes one and after every check of the head, within a budget of
//! bytes and above a minimum rate.

use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::error::{ApiError, Reason};
use super::request::MAX_BODY;
use crate::server::{Client, Share, Shares};

/// Bytes of bodies that are received or handled at once, in all and for each client.
const AT_ONCE: (usize, usize) = (8 << 20, 4 << 20);

/// Time that a body has in addition to that of its bytes at the minimum rate.
const GRACE: Duration = Duration::from_secs(5);

/// Minimum rate of a body, bytes per second.
const MIN_RATE: usize = 64 << 10;

/// Bytes that are read of the body of a refused request, so that its sender reads the answer.
const MAX_DISCARDED: usize = 2 * MAX_BODY;

/// How long that may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// The budget for bodies of one listener.
#[derive(Debug, Clone)]
pub(super) struct Bodies(Shares);

impl Default for Bodies {
    fn default() -> Self {
        Self(Shares::new(AT_ONCE.0, AT_ONCE.1))
    }
}

/// Whether the head announces a body.
pub(super) fn is_announced(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING) || length(headers).is_some_and(|length| length > 0)
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The answer of a path that takes no body.
pub(super) fn not_taken() -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Reason::BodyTooLarge, "this path takes no body")
        .at("body", "", "no body")
}

impl Bodies {
    /// The whole body, at most [`MAX_BODY`] bytes. Its share of the budget is held until the body is handled.
    ///
    /// # Errors
    /// 413 when it is larger, 503 when the budget is used up, 408 when it is too slow, 400 when it ends early.
    pub(super) async fn read(
        &self,
        client: Client,
        headers: &HeaderMap,
        body: impl Stream<Item = Result<impl Buf, warp::Error>>,
    ) -> Result<(Bytes, Share), ApiError> {
        let announced = match length(headers) {
            Some(length) => usize::try_from(length).unwrap_or(usize::MAX),
            None => MAX_BODY,
        };
        if announced > MAX_BODY {
            return Err(too_large());
        }
        let Some(share) = self.0.take(client, announced) else {
            return Err(ApiError::unavailable("too many requests with bodies are being received"));
        };
        let begun = Instant::now();
        let mut body = pin!(body);
        let mut whole = BytesMut::new();
        loop {
            let due = begun + GRACE + Duration::from_secs_f64(whole.len() as f64 / MIN_RATE as f64);
            let Ok(piece) = timeout_at(due, body.next()).await else { return Err(too_slow(whole.len())) };
            let Some(piece) = piece else { break };
            let mut piece = piece.map_err(|error| broken(whole.len(), &error))?;
            if whole.len() + piece.remaining() > MAX_BODY {
                return Err(too_large());
            }
            if whole.is_empty() {
                whole.reserve(announced.max(piece.remaining()));
            }
            whole.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
        }
        Ok((whole.freeze(), share))
    }
}

/// Reads and drops the body of a refused request, for a moment: closing a connection with unread bytes resets it, and the
/// answer is lost.
pub(super) async fn discard(headers: &HeaderMap, body: impl Stream<Item = Result<impl Buf, warp::Error>>) {
    // Its sender waits for `100 Continue` and reads the answer first.
    if headers.contains_key(EXPECT) || !is_announced(headers) {
        return;
    }
    let mut body = pin!(body);
    let all = async {
        let mut read = 0;
        while let Some(Ok(piece)) = body.next().await {
            read += piece.remaining();
            if read > MAX_DISCARDED {
                return;
            }
        }
    };
    // A timeout ends it as well as the end of the body does.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, all).await;
}

fn too_large() -> ApiError {
    let message = format!("the body is larger than {MAX_BODY} bytes");
    let allowed = format!("at most {MAX_BODY} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Reason::BodyTooLarge, message).at("body", "", allowed)
}

fn too_slow(read: usize) -> ApiError {
    let message = format!("the body was too slow: {read} bytes were received in time");
    let allowed = format!("at least {MIN_RATE} bytes per second, after {} s", GRACE.as_secs());
    ApiError::new(StatusCode::REQUEST_TIMEOUT, Reason::BodyIncomplete, message).at("body", "", allowed)
}

fn broken(read: usize, error: &warp::Error) -> ApiError {
    let message = format!("the body ended after {read} bytes: {error}");
    ApiError::new(StatusCode::BAD_REQUEST, Reason::BodyIncomplete, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(length: usize) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_LENGTH, length.into())])
    }

    /// A stream of these chunks that stays open.
    fn pieces(pieces: Vec<&'static [u8]>) -> impl Stream<Item = Result<Bytes, warp::Error>> {
        futures_util::stream::iter(pieces.into_iter().map(|piece| Ok(Bytes::from_static(piece))))
            .chain(futures_util::stream::pending())
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_body_is_refused_in_time_and_its_budget_is_returned() {
        let bodies = Bodies::default();
        let begun = Instant::now();
        let refused = bodies.read(Client::Local, &headers(100), pieces(vec![b"abc"])).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::REQUEST_TIMEOUT);
        assert!(begun.elapsed() < GRACE + Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!(bodies.0.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn trickling_body_is_refused() {
        let trickle = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Some((Ok::<_, warp::Error>(Bytes::from_static(b"x")), ()))
        });
        let begun = Instant::now();
        let refused = Bodies::default().read(Client::Local, &headers(MAX_BODY), trickle).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::REQUEST_TIMEOUT);
        assert!(begun.elapsed() < GRACE * 2, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_cannot_use_the_whole_budget() {
        let bodies = Bodies::default();
        let most = AT_ONCE.1 / MAX_BODY;
        let held: Vec<Share> = (0..most).map(|_| bodies.0.take(Client::Local, MAX_BODY).unwrap()).collect();
        let never = || futures_util::stream::pending::<Result<Bytes, warp::Error>>();
        let refused = bodies.read(Client::Local, &headers(1), never()).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        let other = Client::User(1);
        let whole = futures_util::stream::iter([Ok(Bytes::from_static(b"a"))]);
        assert_eq!(bodies.read(other, &headers(1), whole).await.unwrap().0, "a");
        drop(held);
        let refused = bodies.read(Client::Local, &headers(MAX_BODY + 1), never()).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    }
}
