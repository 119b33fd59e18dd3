//! History in one SQLite file, for dev mode and small clusters: WAL, synced at every commit.
//!
//! One thread writes (`writer`): it takes all queued jobs, commits them in one transaction and only then answers.
//! Readers have connections of their own (`reader`) and never block on the writer. The tables: `schema`.
//!
//! Expired rows are removed in small steps between writes. The output of an Attempt expires when nothing was added to it
//! for the whole retention, and not before its Attempt.

mod reader;
mod schema;
mod store;
mod writer;

pub use self::store::{EmbeddedHistory, EmbeddedOptions};
