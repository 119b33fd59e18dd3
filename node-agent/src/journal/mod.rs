//! The Journal: the agent's durable record of the Attempts it owns.
//!
//! ```text
//! <state directory>/            0700
//!   lock                        kernel lock of the one agent that works here
//!   state_id                    random id, made once; another one means that this memory is gone
//!   highest_epoch               the highest epoch seen
//!   bell                        named pipe by which supervisors wake the agent, see [`bell`]
//!   tombstones/<millis>.log     what was forgotten: id, spec hash, outcome; one checksummed line each
//!   attempts/<uid>.<run>.<n>/   one Attempt; the directory itself carries its supervisor's kernel lock
//!     request                   the accepted Start and the clocks of its acceptance; written once
//!     state                     how far the supervisor came; absent means accepted
//!     cancel                    the agent's word to the supervisor: end it
//!     exit                      how it ended; written once, into room reserved as `exit.reserve`
//!     delivery                  what the operator has acknowledged; the agent's own
//!     supervisor.log            what the supervisor had to say
//!     bell                      named pipe by which the agent wakes the supervisor
//!     log/                      the Spool, see [`crate::spool`]
//! ```
//!
//! Invariants:
//!
//! * Every small file is JSON for people, with a checksum in its last line, and is replaced as a whole:
//!   temporary file → write → fsync → rename → fsync of the directory.
//! * A failed fsync is [`JournalError::Unsafe`] and is never tried again on the same file.
//! * A record that cannot be read makes its own Attempt [`Loaded::Corrupt`] and no other; of a damaged `delivery`
//!   only the note is lost, since it is the one that is not always synced.
//! * States after *accepted* are written only under the kernel lock on the Attempt's directory, after the state
//!   was read again under it. So "lock obtained, still accepted" proves that no command was started.
//! * An Attempt directory appears by a rename of a complete one: there is no half-made Attempt.

mod attempt_dir;
mod bell;
mod entry;
mod error;
mod record;
mod state_dir;
mod tombstones;

pub(crate) use attempt_dir::SUPERVISOR_LOG;
pub use attempt_dir::{AttemptDir, AttemptLock, Verdict};
pub use bell::{Bell, Changed, Heard, Ring};
pub(crate) use bell::{Hand, SupervisorBell, ring_supervisor};
pub use entry::{Abandonment, Accepted, AttemptState, Delivery, Entry, Loaded, Tombstone};
pub use error::JournalError;
pub use state_dir::StateDir;
