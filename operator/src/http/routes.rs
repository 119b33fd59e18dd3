//! Between warp and the handlers: the only file of the API that names warp.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, Method, StatusCode};
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::{Reply, Response};
use warp::{Filter, Rejection};

use super::answer::{Answer, Body};
use super::api::{Api, Surface};
use super::error::{ApiError, Reason};
use super::request::{MAX_BODY, Request};
use crate::metrics::sources::Answers;

/// The API as a listener serves it.
pub fn service(
    api: Arc<Api>,
    surface: Surface,
) -> impl tower_service::Service<
    http::Request<hyper::body::Incoming>,
    Response = Response,
    Error = Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ 'static {
    warp::service(routes(api, surface))
}

/// Everything this API answers, a path that it does not have too.
fn routes(api: Arc<Api>, surface: Surface) -> BoxedFilter<(Response,)> {
    let listener = match surface {
        Surface::Everything => "api",
        Surface::ProbesAndMetrics => "metrics",
    };
    let answers = Answers::new(&api.metrics, listener);
    let query = warp::query::raw().or_else(|_: Rejection| async { Ok::<_, Infallible>((String::new(),)) });
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(move |method, path, query, headers, body| {
            let (api, answers) = (Arc::clone(&api), answers.clone());
            async move {
                let answer = answer(&api, surface, method, path, query, headers, body).await;
                answers.count(answer.status);
                respond(answer)
            }
        })
        .boxed()
}

async fn answer(
    api: &Api,
    surface: Surface,
    method: Method,
    path: FullPath,
    query: String,
    headers: HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Answer {
    match read(body).await {
        Ok(body) => {
            let request = Request { method, path: path.as_str().to_owned(), query, headers, body };
            api.answer(surface, &request).await
        }
        Err(error) => error.into(),
    }
}

/// The whole body, and never more than [`MAX_BODY`] bytes of it.
async fn read(body: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Result<Bytes, ApiError> {
    let mut body = std::pin::pin!(body);
    let mut whole = BytesMut::new();
    while let Some(piece) = body.next().await {
        let mut piece = piece.map_err(|error| {
            let message = format!("the body ended after {} bytes: {error}", whole.len());
            ApiError::new(StatusCode::BAD_REQUEST, Reason::BodyIncomplete, message)
        })?;
        if whole.len() + piece.remaining() > MAX_BODY {
            let message = format!("the body is larger than {MAX_BODY} bytes");
            let allowed = format!("at most {MAX_BODY} bytes");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Reason::BodyTooLarge, message)
                .at("body", "", allowed));
        }
        whole.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
    }
    Ok(whole.freeze())
}

fn respond(answer: Answer) -> Response {
    let mut response = match answer.body {
        Body::Whole(bytes) => Response::new(bytes.into()),
        Body::Stream(chunks) => warp::reply::stream(chunks).into_response(),
    };
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    for (name, value) in answer.headers {
        headers.insert(name, value);
    }
    response
}
