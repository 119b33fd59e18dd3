//! The HTTP API under `/api/v1`, as the operator that serves it and the programs that call it share it.
//!
//! In reading order:
//!
//! * [`view`]: nodes, Runs and Executions as the API shows them; [`task`]: a Task as a client reads it;
//! * [`reason`]: the closed reasons of errors, and the body of an error; [`records`]: a log with its bytes as they are;
//! * [`aggregated`]: the same operations as an aggregated API of a Kubernetes API server, and who may use them;
//! * [`path`]: paths and queries, with what people typed escaped;
//! * [`decode`]: JSON into these types; a field of the wrong type is an error that names it;
//! * [`command_line`]: an argv as one line; [`fold`]: names that differ in a number as one;
//! * `client` (feature `client`): a typed client of one server.
//!
//! A client ignores fields that it does not know, so that a newer server may add some. It never guesses at one that it
//! does know. This crate depends on no database driver and on no Kubernetes client.

#[cfg(feature = "client")]
pub mod client;
pub mod aggregated;
pub mod command_line;
pub mod decode;
pub mod fold;
pub mod path;
pub mod reason;
pub mod records;
pub mod task;
pub mod view;

/// The header by which a program marks a request as its own: a form of a web page cannot send it.
pub const OWN_HEADER: &str = "sentinel-request";
