//! The Journal: the agent's durable record of the Attempts it owns.
//!
//! ```text
//! <state directory>/            0700
//!   lock                        kernel lock of the agent that uses this directory
//!   state_id                    random id, generated once; for the operator's log, no decision reads it
//!   highest_epoch               the highest epoch seen
//!   wal                         write-ahead log: what is durable before its directory is, see [`wal`]
//!   bell                        named pipe by which supervisors wake the agent, see [`wakeup`]
//!   attempts/.ready.<pid>/      prepared by a supervisor that waits for an Attempt
//!   audit/                      the audit chain of the node, see `sentinel_audit::directory`
//!   tombstones/<millis>.log     forgotten Attempts: id, spec hash, outcome; one checksummed line each
//!   attempts/<uid>.<run>.<n>/   one Attempt; the directory itself carries its supervisor's kernel lock
//!     request                   the accepted Start and the clocks of its acceptance; written once
//!     state                     how far the supervisor has come; absent means accepted
//!     cancel                    the agent's request to the supervisor to end the command
//!     exit                      how it ended; written once, into room reserved as `exit.reserve`
//!     delivery                  what the operator has acknowledged; the agent's own
//!     supervisor.log            the supervisor's own log
//!     bell                      named pipe by which the agent wakes the supervisor
//!     log/                      the Spool, see [`crate::spool`]
//! ```
//!
//! Invariants:
//!
//! * Every small file is readable JSON with a checksum in its last line, and is replaced as a whole. One that must be durable
//!   is synced with its directory, or is in the write-ahead log and the log is synced; never neither.
//! * No command is started, and nothing about an Attempt is sent, before its request is durable; and no exit record is seen
//!   before it is.
//! * A failed fsync is [`JournalError::Unsafe`] and is never retried on the same file.
//! * A record that cannot be read makes its own Attempt [`Loaded::Corrupt`] and no other. A damaged `delivery` counts as
//!   empty, since it is neither synced nor in the log.
//! * States after *accepted* are written only under the kernel lock on the Attempt's directory, after the state
//!   was read again under it. So "lock obtained, still accepted" proves that no command was started.
//! * An Attempt's directory appears by a rename of a complete one: there is no incomplete Attempt.

mod attempt_dir;
mod attempt_record;
mod error;
mod file_lock;
mod listing;
mod ready_dir;
mod record_file;
mod redo;
mod signed_uses;
mod state_dir;
mod tombstones;
mod wakeup;
mod wal;
mod wal_slot;

pub(crate) use attempt_dir::SUPERVISOR_LOG;
pub use attempt_dir::{AbandonResult, Announced, AttemptDir, AttemptLock};
pub use attempt_record::{Abandonment, Accepted, AttemptRecord, AttemptState, Delivery, Loaded, Tombstone};
pub use error::JournalError;
pub use listing::Listing;
pub(crate) use ready_dir::{ReadyDir, ready_name};
pub use signed_uses::SignedUses;
pub use state_dir::{AUDIT, StateDir};
pub(crate) use wakeup::{AgentWaker, SupervisorWakeups};
pub use wakeup::{AgentWakeups, Change, ReceivedWakeups, Wakeup};
pub use wal_slot::SlotId;
