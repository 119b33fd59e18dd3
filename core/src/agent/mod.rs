//! The node's side: what to do about a message, a change on disk, or time passing.
//!
//! [`Agent::step`] takes one [`Event`] and answers with the [`Effect`]s to carry out, in order. It does nothing
//! itself and never waits: the result of an effect comes back as another event. The process may die between any two
//! effects; the next process decides with the same code from what is on disk (see [`recovery`]).
//!
//! The life of an Attempt:
//!
//! ```text
//!            Start             Recorded            Observed             Observed
//!   (nothing) ──▶ Recording ─────────▶ Accepted ─────────▶ Running ─────────────▶ Ended ──(Forget)──▶ tombstone
//!                    │                  ▲    │                │                     ▲
//!                    │ NotRecorded      │    └─(Concluded)────┴──(TreeEnded, then ──┘
//!                    ▼                  │                          Concluded)
//!                 Refused         Unconfirmed: accepted before a reboot, waits for another Start
//! ```
//!
//! Invariants, each held by `core/tests/agent_model/` over random histories with crashes:
//!
//! * a command is launched only after its request is durable, and a second time only with proof that the first launch
//!   did not start it;
//! * a result is kept until *Forget*, acknowledged or not;
//! * nothing is recorded, confirmed or launched that the node's policy did not allow ([`PolicyVerdict`], whose default refuses);
//! * nothing is launched without the values of the Secrets that it needs, which no Journal has;
//! * every `Start` is answered, either by a Refusal or eventually by one Outcome that never changes.

mod admission;
mod attempt;
mod commands;
mod effect;
mod event;
mod permit;
pub mod recovery;
mod results;
mod step;
mod transition;

pub use admission::{EMERGENCY_FREE, Rules, SMALL_OUTPUT};
pub use effect::{Admitted, Effect, Ignored};
pub use event::{AttemptSnapshot, Event, Facts, Journaled, SecretsSent, Tombstone};
pub use permit::{DirectoryIdentity, FileIdentity, Permit, PolicyVerdict, SignedPermit};
pub use step::{Agent, RESEND_AFTER_MS};
pub use transition::RELAUNCH_AFTER_MS;
