//! The operator's audit chain: what it decided, sent and was reported, who read output, and who was denied.
//!
//! Records are made where things happen and queued ([`Audit::record`]); a thread of its own writes them ([`writer`]) to a directory
//! or a stream ([`stream`]). Nothing waits for it: what finds the queue full is counted, and recorded as lost. The heads of all chains
//! are kept in History too ([`unsaved`]), whether or not there are records. [`accesses`], [`bounds`] and [`heads`] bound what people
//! and agents can cause.

mod accesses;
mod bounds;
mod handle;
mod heads;
mod queue;
mod stream;
mod unsaved;
mod writer;

pub use self::handle::{Audit, AuditError, AuditOptions};
pub use self::stream::Destination;
