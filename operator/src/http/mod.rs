//! The HTTP API for people and programs, under `/api/v1`.
//!
//! A request passes: [`routes`] (the only file that names warp) → [`table`] (which operation is it) → one handler,
//! by noun → [`answer::Answer`] → [`routes`] again. Handlers see values: a [`request::Request`] in, an answer or an
//! [`error::ApiError`] out.
//!
//! Invariants:
//!
//! * nobody is authenticated here yet, so it answers on loopback only, and only to requests that name this host
//!   ([`guard`]): a page of a foreign site in somebody's browser gets nothing;
//! * an unknown query parameter, a repeated one, or one out of range is an error that lists what is allowed, never
//!   ignored;
//! * every body has a bound; every stream is read at its reader's pace and can slow nobody else down;
//! * each route is in [`table::ROUTES`] and in the OpenAPI document ([`openapi`]); a test holds them together.
//!
//! To add a route: a line in [`table::ROUTES`], an arm in [`Api::dispatch`](api::Api), an entry in [`openapi`], and
//! `just generate`.

pub mod answer;
pub mod api;
pub mod error;
mod events;
mod executions;
pub mod feed;
mod guard;
mod log_text;
mod logs;
mod nodes;
pub mod openapi;
pub mod request;
pub mod routes;
pub mod table;
mod tasks;
pub mod view;

pub use api::Api;
