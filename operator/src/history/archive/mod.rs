//! Writing to History without blocking the callers.
//!
//! Callers hand over records and output and are notified later, by [`Archived`], of what is durable. [`Archiver`] keeps
//! the latest record of each id and the output of each Attempt in memory, both bounded, writes them in batches, and
//! retries for as long as History is unavailable. At a bound it refuses and counts: the caller still has what it wanted
//! stored (the agent keeps its Reports until they are acknowledged and its output until it is archived).
//!
//! Records and output have queues and writers of their own (`records`, `output`), so that a flood of output delays no
//! result.
//!
//! Nothing is reported as [`Archived`] before the store has confirmed it.

mod archiver;
mod options;
mod output;
mod output_writer;
mod records;
mod retry;
mod status;

pub use self::archiver::{Archiver, ArchiverWork};
pub use self::options::{Archived, ArchiverOptions};
pub use self::output::OutputRefusal;
pub use self::records::RecordsFull;
pub use self::status::ArchiverStatus;
