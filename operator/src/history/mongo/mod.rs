//! History in MongoDB 4.4 or later (tests run it on FerretDB 2, or on a server of yours).
//!
//! | collection | `_id` | what else |
//! |---|---|---|
//! | `attempts` | `<task uid>/<run>/<node>/<attempt>`, numbers padded | the record, `rank`, `expireAt` |
//! | `executions` | `<task uid>/<run>/<node>` | the record, `rank`, `order`, `expireAt` |
//! | `runs` | `<task uid>/<run>` | the record, `rank`, `order`, `expireAt` |
//! | `output` | `<attempt's id>/<end>/<first>` | the packed segment, `expireAt` |
//!
//! Only `_id` is unique. A write of records reads the stored ranks, inserts what is missing, replaces what knows less
//! (conditional on `rank`, so that two writers cannot undo each other), and repeats until nothing is left to do. Every
//! write asks for a majority and its journal; there are no transactions.
//!
//! MongoDB removes expired documents within about a minute; reads filter them at once. Segments of output expire one by
//! one: an Attempt that runs for longer than the retention loses its oldest output.

mod connection;
mod document;
mod output;
mod query;
mod record;
mod store;

pub use self::connection::MongoOptions;
pub use self::store::MongoHistory;
