//! The Spool: the on-disk log of one Attempt, written by its supervisor and read by the agent.

mod error;
mod reader;
mod recovery;

pub use error::SpoolError;
pub use reader::Reader;
pub use recovery::recover;
