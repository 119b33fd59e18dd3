//! The way into History that never makes its callers wait.
//!
//! Callers hand over records and output and are told later, by [`Archived`], what is durable. [`Archiver`] keeps the
//! latest record of each thing and the output of each Attempt in memory, both bounded, writes them in batches, and
//! tries again for as long as History is away. At a bound it refuses and counts: whoever was refused still has what it
//! wanted stored (the agent keeps its Reports until they are acknowledged and its output until it is archived).
//!
//! Records and output travel apart (`entries`, `output`), so that a flood of output delays no result.
//!
//! Nothing is reported [`Archived`] before the store has said so.

mod archiver;
mod entries;
mod output;
mod retry;
mod status;

pub use self::archiver::{Archived, Archiver, ArchiverOptions, ArchiverWork};
pub use self::entries::EntriesFull;
pub use self::output::OutputRefusal;
pub use self::status::ArchiverStatus;
