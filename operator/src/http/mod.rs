//! The HTTP API for people and programs, under `/api/v1`.
//!
//! A request passes: [`routes`] (the only file that names warp) → [`table`] (which operation is it) → one handler,
//! by noun → [`answer::Answer`] → [`routes`] again. Handlers see values: a [`request::Request`] in, an answer or an
//! [`error::ApiError`] out.
//!
//! Invariants:
//!
//! * each listener has a [`guard::Door`]: in dev mode the API is its owner's alone (a Unix socket, or a bearer token); in
//!   a cluster people are not authenticated yet, so it answers on loopback only. It answers only requests that name this
//!   host: a page of another site, or of another port, gets nothing;
//! * the head of a request decides whether it is answered at all; its body is read after that, where the route takes one;
//! * a name that a request gives is parsed before anything else sees it;
//! * an unknown query parameter, a repeated one, or one out of range is an error that lists what is allowed, never
//!   ignored;
//! * every body has a bound; every stream is read at its reader's pace and cannot slow others down; what waits for
//!   slow readers is shared between them or counted;
//! * each route is in [`table::ROUTES`] and in the OpenAPI document ([`openapi`]); a test holds them together.
//!
//! To add a route: a line in [`table::ROUTES`], an arm in [`Api::dispatch`](api::Api), an entry in [`openapi`], and
//! `just generate`.

pub mod answer;
pub mod api;
pub mod error;
mod body;
mod events;
mod executions;
pub mod feed;
pub mod guard;
mod log_text;
mod logs;
mod nodes;
pub mod openapi;
mod rendering;
pub mod request;
pub mod routes;
pub mod table;
mod tasks;
pub mod view;

pub use api::Api;
