//! The loop that carries Tasks out: *validate → observe → decide → act*.
//!
//! Nothing here decides: [`sentinel_core::reconcile::decide`] does, from what `observe` gathers, and `act` does what
//! it says, in a fixed order: durable intent first, then the deed. In reading order:
//!
//! * [`run`](fn@run): what causes a look; `trigger`: which changes of a Task do; `looks`: the loop that makes them;
//!   `queue`: whose turn it is;
//! * `reconcile`: one look; `observe`, `act`: its two ends; `recall`: what History knows of a Run taken over;
//! * [`fleet`]: the seam to the gateway, which reaches the agents;
//! * [`ledgers`]: what is known of every Run, fed by the gateway and the archive; `live`: the same for readers;
//! * [`lead`]: whether this operator leads, and with which epoch;
//! * `slots`: what is remembered of a Task from look to look; [`context`]: what every look needs;
//! * [`moments`]: the two clocks; [`wake`]: who must be looked at; [`error`]: why a look failed.

mod act;
pub mod context;
pub mod error;
pub mod fleet;
pub mod lead;
pub mod ledgers;
mod live;
mod looks;
pub mod moments;
mod observe;
mod queue;
mod recall;
mod records;
mod reconcile;
mod run;
mod slots;
mod trigger;
pub mod wake;

pub use self::context::{Counters, Parts};
pub use self::fleet::Fleet;
pub use self::lead::{Lead, LeadSetter, Led};
pub use self::ledgers::{Ledgers, RunFacts};
pub use self::live::LiveLedgers;
pub use self::moments::Moments;
pub use self::run::{Caches, Seen, run};
pub use self::wake::Wake;
