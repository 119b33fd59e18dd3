//! The Spool: the on-disk log of one Attempt, written by its supervisor and read by the agent while it is written.
//!
//! ```text
//! log/<position, 20 digits>.seg    records from this position on, up to a quarter of the window or 4 MiB
//! log/<position, 20 digits>.drop   what stood in segments that were dropped: lengths only, see [`drops`]
//! log/reserve                      room for the last holes of a log on a full disk
//! ```
//!
//! The exact bytes are in `docs/spool-format.md`.
//!
//! Invariants:
//!
//! * Every byte of either stream takes one position, kept or dropped; entries follow each other without overlap.
//!   Where one ends before the next begins, the reader reports a hole.
//! * Only the writer appends and only it drops; only the reader releases. Both delete whole entries, oldest first,
//!   and never the one that is being written.
//! * What a dropped segment held is written down before the segment is deleted.
//! * A torn record at the very end is *not yet*; anywhere else it is a hole ([`DropReason::Unreadable`]).
//! * Trouble with the disk never ends the command: it becomes a hole with a reason and a length.
//!
//! [`DropReason::Unreadable`]: sentinel_protocol::log::DropReason::Unreadable

pub(crate) mod drops;
mod entries;
mod error;
mod place;
mod reader;
mod recovery;
mod segment;
mod writer;

pub use error::SpoolError;
pub use reader::Reader;
pub use recovery::recover;
pub use writer::{Room, Writer, Written};
