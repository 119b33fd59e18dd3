//! The Spool: the on-disk log of one Attempt, written by its supervisor and read by the agent while it is written.
//!
//! ```text
//! log/<position, 20 digits>.seg    records from this position on, up to a quarter of the window or 4 MiB
//! log/<position, 20 digits>.drop   lengths of the output in dropped segments, see [`drops`]
//! log/reserve                      room for the last holes on a full disk
//! ```
//!
//! The exact bytes are in `docs/spool-format.md`.
//!
//! Invariants:
//!
//! * Every byte of either stream has one position, kept or dropped; files do not overlap. Where one ends before the next
//!   begins, the reader reports a hole.
//! * Only the writer appends and drops; only the reader releases. Both delete whole files, oldest first, and never the
//!   one that is being written.
//! * The lengths of a dropped segment are recorded before the segment is deleted.
//! * A torn record at the very end is not complete yet; anywhere else it is a hole ([`DropReason::Unreadable`]).
//! * A disk error never ends the command: it becomes a hole with a reason and a length.
//!
//! [`DropReason::Unreadable`]: sentinel_protocol::log::DropReason::Unreadable

pub(crate) mod drops;
mod error;
mod files;
mod log_position;
mod reader;
mod recovery;
mod segment;
mod writer;

pub use error::SpoolError;
pub use reader::Reader;
pub use recovery::recover;
pub(crate) use writer::reserve;
pub use writer::{Room, Writer, Written};
