//! The agent's brain: what to do about a message, a change on disk, or time passing.
//!
//! [`Agent::step`] takes one [`Event`] and answers with the [`Effect`]s to carry out, in order. It does nothing
//! itself and waits for nothing: what an effect led to comes back as another event. So every gap between two effects
//! is a place where the process may die, and what the next life does is decided by the same code from what is on
//! disk (see [`super::recovery`]).
//!
//! An Attempt's life, as the brain sees it:
//!
//! ```text
//!            Start             Recorded            Observed             Observed
//!   (nothing) ──▶ Recording ─────────▶ Accepted ─────────▶ Running ─────────────▶ Ended ──(Forget)──▶ tombstone
//!                    │                  ▲    │                │                     ▲
//!                    │ NotRecorded      │    └─(Concluded)────┴──(TreeEnded, then ──┘
//!                    ▼                  │                          Concluded)
//!                 Refused         Unconfirmed: accepted before a reboot, waits for one more Start
//! ```
//!
//! Invariants, each held by `core/tests/agent_model.rs` over random histories with crashes:
//!
//! * a command is launched only for an Attempt whose request is durable, and never twice without a proof in between
//!   that it had not started;
//! * a result stays until *Forget*, acknowledged or not;
//! * every `Start` is answered: by a Refusal, or in the end by one outcome that never changes.

mod admission;
mod attempt;
mod effect;
mod event;
pub mod recovery;
mod step;

pub use admission::{EMERGENCY_FREE, Rules, SMALL_OUTPUT};
pub use effect::{Effect, Ignored};
pub use event::{AttemptSnapshot, Event, Facts, Tombstone};
pub use step::{Agent, RELAUNCH_AFTER_MS, RESEND_AFTER_MS};
