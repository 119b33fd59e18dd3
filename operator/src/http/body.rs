//! The body of a request: read only where a route takes one, after everything that the head can be refused for, within
//! a budget of bytes, and no slower than a least rate.

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

/// Bytes of bodies that are received or worked on at once, in all and for each client.
const AT_ONCE: (usize, usize) = (8 << 20, 4 << 20);

/// Time that a body has beyond what its bytes take at the least rate.
const GRACE: Duration = Duration::from_secs(5);

/// The least rate at which a body may come, bytes a second.
const LEAST_RATE: usize = 64 << 10;

/// Most that is read of a body that is refused, so that its sender gets to read why.
const DISCARDED: usize = 2 * MAX_BODY;

/// How long that may take.
const DISCARDED_WITHIN: Duration = Duration::from_secs(1);

/// Bodies of one listener.
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

/// What a path that takes no body answers to one.
pub(super) fn not_taken() -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Reason::BodyTooLarge, "this path takes no body")
        .at("body", "", "no body")
}

impl Bodies {
    /// The whole body, at most [`MAX_BODY`] bytes; its share of the budget is to be held until it is worked on.
    ///
    /// # Errors
    /// 413 when it is larger, 503 when others are being received, 408 when it comes too slowly, 400 when it breaks off.
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
            return Err(ApiError::unavailable(
                "as many bodies as this server takes at once are being received",
            ));
        };
        let begun = Instant::now();
        let mut body = pin!(body);
        let mut whole = BytesMut::new();
        loop {
            let due = begun + GRACE + Duration::from_secs_f64(whole.len() as f64 / LEAST_RATE as f64);
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

/// Reads what there is of a body that is refused, for a moment and without keeping it: a connection that is closed with
/// bytes unread is reset, and the answer is lost with it.
pub(super) async fn discard(headers: &HeaderMap, body: impl Stream<Item = Result<impl Buf, warp::Error>>) {
    // Its sender waits to be asked, and will read the answer first.
    if headers.contains_key(EXPECT) || !is_announced(headers) {
        return;
    }
    let mut body = pin!(body);
    let all = async {
        let mut read = 0;
        while let Some(Ok(piece)) = body.next().await {
            read += piece.remaining();
            if read > DISCARDED {
                return;
            }
        }
    };
    // The end of its time is as good as the end of the body.
    let _ = tokio::time::timeout(DISCARDED_WITHIN, all).await;
}

fn too_large() -> ApiError {
    let message = format!("the body is larger than {MAX_BODY} bytes");
    let allowed = format!("at most {MAX_BODY} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Reason::BodyTooLarge, message).at("body", "", allowed)
}

fn too_slow(read: usize) -> ApiError {
    let message = format!("the body came too slowly: {read} bytes were read before its time was over");
    let allowed = format!("at least {LEAST_RATE} bytes a second, after {} s", GRACE.as_secs());
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

    /// These pieces; the stream then stays open without more.
    fn pieces(pieces: Vec<&'static [u8]>) -> impl Stream<Item = Result<Bytes, warp::Error>> {
        futures_util::stream::iter(pieces.into_iter().map(|piece| Ok(Bytes::from_static(piece))))
            .chain(futures_util::stream::pending())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_is_given_up_in_time_and_its_bytes_are_given_back() {
        let bodies = Bodies::default();
        let begun = Instant::now();
        let refused = bodies.read(Client::Local, &headers(100), pieces(vec![b"abc"])).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::REQUEST_TIMEOUT);
        assert!(begun.elapsed() < GRACE + Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!(bodies.0.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up_however_often_a_byte_comes() {
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
    async fn one_client_cannot_have_all_the_bytes_and_a_large_body_is_refused_unread() {
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
