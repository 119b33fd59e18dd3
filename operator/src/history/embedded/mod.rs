//! History in one SQLite file, for dev mode and small clusters: WAL, synced at every commit.
//!
//! One thread writes (`writer`): it takes what has queued up, commits it in one go and only then answers. Readers have
//! connections of their own (`reader`) and wait for nobody. What the file looks like: `schema`.
//!
//! Retention removes in small steps between writes, so that it holds nobody up. The output of an Attempt goes when
//! nothing was added to it for the whole retention, and not before its Attempt.

mod reader;
mod schema;
mod store;
mod writer;

pub use self::store::{EmbeddedHistory, EmbeddedOptions};
