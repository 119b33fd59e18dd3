//! Between warp and the handlers: with [`super::body`], the only file of the API that names warp.
//!
//! The head of a request decides route, method and guard. Only then is a body read, where the route takes one, so that an
//! unauthenticated client can cause as little work as possible.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::{Stream, stream};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::uri::Authority;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::{Reply, Response};
use warp::{Filter, Rejection};

use super::answer::{Answer, Body, BodyError, Chunks};
use super::api::Api;
use super::body::{self, Bodies};
use super::callers::{self, Permit};
use super::dispatch::{Admitted, admit};
use super::error::ApiError;
use super::guard::{Access, Door, Surface};
use super::request::Request;
use super::table::Found;
use crate::metrics::HttpResponses;
use crate::server::{Client, Peer, Share, Shares};

/// Bytes of whole answers that are not sent yet, in all and for each client.
const ANSWERS_AT_ONCE: (usize, usize) = (64 << 20, 32 << 20);

/// Answers up to this size are not counted: a connection has buffers of that size anyway.
const SMALL: usize = 16 << 10;

/// The API as a service for a listener.
pub fn service(
    api: Arc<Api>,
    door: Door,
) -> impl tower_service::Service<
    http::Request<hyper::body::Incoming>,
    Response = Response,
    Error = Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ 'static {
    warp::service(routes(api, door))
}

/// The state that requests of a listener share.
struct Listening {
    api: Arc<Api>,
    door: Door,
    bodies: Bodies,
    waiting: Shares,
    answers: HttpResponses,
}

/// Answers every request, unknown paths included.
fn routes(api: Arc<Api>, door: Door) -> BoxedFilter<(Response,)> {
    let listener = match door.surface {
        Surface::Everything => "api",
        Surface::Aggregated => "aggregated",
        Surface::ProbesAndMetrics => "metrics",
    };
    let answers = HttpResponses::new(&api.metrics, listener);
    let waiting = Shares::new(ANSWERS_AT_ONCE.0, ANSWERS_AT_ONCE.1);
    let listening = Arc::new(Listening { api, door, bodies: Bodies::default(), waiting, answers });
    let query = warp::query::raw().or_else(|_: Rejection| async { Ok::<_, Infallible>((String::new(),)) });
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::ext::optional::<Authority>())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Peer>())
        .and(warp::body::stream())
        .then(
            move |method,
                  path: FullPath,
                  query,
                  authority: Option<Authority>,
                  headers,
                  peer: Option<Peer>,
                  body| {
                let listening = Arc::clone(&listening);
                async move {
                    let client = peer.as_ref().map_or(Client::Local, |peer| peer.client);
                    let base = &listening.api.base_path;
                    let below = if base.is_root() { None } else { base.strip(path.as_str()) };
                    let is_below_base = below.is_some();
                    let path = below.unwrap_or(path.as_str()).to_owned();
                    let mut head =
                        Request { method, path, is_below_base, query, headers, client, ..Request::default() };
                    let arrived = Arrived { authority: authority.as_ref(), peer: peer.as_ref() };
                    let mut answer = answer(&listening, &mut head, arrived, body).await;
                    if listening.door.surface == Surface::Aggregated {
                        answer = answer.as_status();
                    }
                    listening.answers.count(answer.status);
                    respond(answer, &listening.waiting, head.client)
                }
            },
        )
        .boxed()
}

/// How a request arrived, beside its head.
#[derive(Clone, Copy)]
struct Arrived<'a> {
    authority: Option<&'a Authority>,
    peer: Option<&'a Peer>,
}

async fn answer(
    listening: &Listening,
    request: &mut Request,
    arrived: Arrived<'_>,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Answer {
    let Listening { api, door, bodies, .. } = listening;
    let (found, permit) = match admitted(listening, request, arrived).await {
        Ok(admitted) => admitted,
        Err(error) => {
            if door.surface != Surface::ProbesAndMetrics {
                body::discard(&request.headers, body).await;
            }
            return error.into();
        }
    };
    // Held until the body is handled.
    let _share: Share;
    if found.route.takes_body() {
        match bodies.read(request.client, &request.headers, body).await {
            Ok((whole, share)) => {
                request.body = whole;
                _share = share;
            }
            Err(error) => return error.into(),
        }
    }
    let answer = api.answer(&found, request).await;
    match permit {
        Some(permit) => callers::while_permitted(answer, permit),
        None => answer,
    }
}

/// The route of a request that may be answered, by its head alone.
async fn admitted(
    listening: &Listening,
    request: &mut Request,
    arrived: Arrived<'_>,
) -> Result<(Found, Option<Permit>), ApiError> {
    let Listening { api, door, .. } = listening;
    let is_announced = body::is_announced(&request.headers);
    let Admitted { found, authorized } = admit(door, request, arrived.authority)
        .inspect_err(|error| callers::record_denial(api, error, request, None, arrived.peer))?;
    // kubectl sends a body with every POST; what a verb of ours is about, is in its path.
    if is_announced && !found.route.takes_body() && door.surface != Surface::Aggregated {
        return Err(body::not_taken());
    }
    if let Access::People(people) = &door.access {
        let permit = callers::admit(api, people, &found, request, authorized, arrived.peer).await?;
        if let Some(permit) = &permit {
            request.client = callers::client(&permit.caller);
            request.caller = Some(permit.caller.clone());
        }
        return Ok((found, permit));
    }
    callers::record_reading(api, &found, request, None, arrived.peer);
    Ok((found, None))
}

fn respond(answer: Answer, waiting: &Shares, client: Client) -> Response {
    let Answer { status, content_type, headers, body } = answer;
    let mut length = None;
    let mut response = match body {
        Body::Static(bytes) => Response::new(Bytes::from_static(bytes).into()),
        Body::Whole(bytes) if bytes.len() <= SMALL => Response::new(bytes.into()),
        Body::Whole(bytes) => {
            let Some(share) = waiting.take(client, bytes.len()) else {
                let full = ApiError::unavailable("too many answers are not read yet");
                return respond(full.into(), waiting, client);
            };
            length = Some(bytes.len());
            warp::reply::stream(chunked(bytes, share)).into_response()
        }
        Body::Stream(chunks) => warp::reply::stream(chunks).into_response(),
    };
    *response.status_mut() = status;
    let all = response.headers_mut();
    if let Some(length) = length {
        all.insert(CONTENT_LENGTH, length.into());
    }
    all.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    all.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    all.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    for (name, value) in headers {
        all.insert(name, value);
    }
    response
}

/// A large answer in chunks; it stays counted until the last one is sent.
fn chunked(bytes: Bytes, share: Share) -> Chunks {
    Chunks::new(stream::unfold((bytes, share), |(mut rest, share)| async move {
        if rest.is_empty() {
            return None;
        }
        let piece = rest.split_to(rest.len().min(SMALL));
        Some((Ok::<_, BodyError>(piece), (rest, share)))
    }))
}
