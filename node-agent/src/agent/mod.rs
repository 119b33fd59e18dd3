//! The agent's body: carries out what [`sentinel_core::agent`] decides.
//!
//! It lives in a plain thread of its own and waits in one `poll(2)` for a word from the link, a change on disk, or
//! the next second. The link lives elsewhere, so a slow disk can delay an Attempt but never a heartbeat; and between
//! the socket and the supervisor a `Start` crosses just one thread.
//!
//! * [`mailbox`]: how others reach the body; bounded, with a bell that `poll` can hear.
//! * [`body`]: select → step → perform.
//! * [`perform`]: one function per effect.
//! * [`look`]: files and locks to evidence.

mod body;
mod look;
mod mailbox;
mod perform;

pub(crate) use body::{Body, Parts};
pub(crate) use mailbox::{Input, Mailbox, Slot, mailbox};
pub(crate) use perform::chain;
