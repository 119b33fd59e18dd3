//! The HTTP API for people and programs, under `/api/v1`, and the web page (`page`).
//!
//! A request passes [`routes`] (only it and `body` name warp), [`guard`], [`table`] (its operation), `dispatch`, and a
//! handler: one file per noun, `tasks`, `events`, `executions`, `logs`, `nodes`, `audit_heads`, `page`. A handler gets a [`request::Request`]
//! and returns an [`answer::Answer`] or an [`error::ApiError`]. What it answers from is [`api::Api`]. Shapes and
//! reasons are those of the crate `sentinel-api`; `view` fills them.
//!
//! Invariants:
//!
//! * each listener has a [`guard::Door`]: in dev mode the API is for its owner only (a Unix socket, or a bearer token); in
//!   a cluster for whom the API server knows and allows it ([`requirement`], `callers`); else on loopback only, for requests
//!   that name this host. Requests of a page of another site or port are refused;
//! * a Task is created, changed and deleted with the caller's own credentials: the operator's account can create none;
//! * handlers change Tasks by `TaskStore` only, so that they cannot write a status (`operator/tests/http_imports.rs`);
//! * the head of a request decides whether it is answered; only then is its body read, where the route takes one;
//! * names in a request are parsed before they are used;
//! * an unknown, repeated or out-of-range query parameter is an error that lists what is allowed;
//! * every body has a bound; every stream is read at the pace of its reader and cannot slow others down; what waits for
//!   slow readers is shared between them or counted;
//! * each route is in [`table::ROUTES`] and in the OpenAPI document ([`openapi`]); a test holds them together.
//!
//! To add a route: a line in [`table::ROUTES`], an arm in `Api::dispatch`, an entry in [`openapi`], and `just generate`.

mod accept;
mod approvals;
mod audit_heads;
pub mod answer;
pub mod api;
pub mod error;
mod body;
mod callers;
mod discovery;
mod dispatch;
mod encoding;
mod events;
mod executions;
pub mod feed;
mod file_name;
pub mod guard;
mod log_text;
mod line_view;
mod held_lines;
mod lines;
mod log_lines;
mod logs;
pub mod listings;
mod merged;
mod merged_log;
mod merged_search;
mod run_logs;
mod nodes;
pub mod openapi;
mod outputs;
pub mod owners;
mod page;
mod rendering;
mod sent_tasks;
mod snapshot;
pub mod request;
pub mod requirement;
pub mod routes;
mod search;
mod settled;
pub mod table;
mod task_log;
mod tasks;
mod view;

pub use api::Api;
pub use sentinel_viewer::BasePath;
