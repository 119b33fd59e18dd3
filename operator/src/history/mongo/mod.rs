//! History in MongoDB 4.4 or later (tests run it on FerretDB 2, or on a server of yours).
//!
//! | collection | `_id` | what else |
//! |---|---|---|
//! | `attempts` | `<task uid>/<run>/<node>/<attempt>`, numbers padded | the record, `rank`, `expireAt` |
//! | `executions` | `<task uid>/<run>/<node>` | the record, `rank`, `order`, `expireAt` |
//! | `runs` | `<task uid>/<run>` | the record, `rank`, `order`, `expireAt` |
//! | `output` | `<attempt's id>/<end>/<first>` | the packed segment, `expireAt` |
//!
//! Uniqueness is that of `_id` alone. A write of records is: read the ranks that are stored, insert what is missing,
//! replace what knows less (by a condition on `rank`, so that two writers cannot undo each other), and read again until
//! nothing is left to do. Every write asks for a majority and its journal, and there are no transactions.
//!
//! MongoDB removes what has expired by itself within a minute or so; reads do not see it from that moment on. The parts
//! of an output expire each for itself: an Attempt that runs for longer than the retention loses its oldest output.

mod connection;
mod document;
mod output;
mod query;
mod record;
mod store;

pub use self::connection::MongoOptions;
pub use self::store::MongoHistory;
