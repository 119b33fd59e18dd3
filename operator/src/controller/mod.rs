//! The loop that carries Tasks out: *validate → observe → decide → act*.
//!
//! Nothing here decides: [`sentinel_core::reconcile::decide`] does, from what `observe` gathers, and `act` does what
//! it says, in a fixed order: durable intent first, then the deed. In reading order:
//!
//! * [`fleet`]: the seam to the gateway, which reaches the agents;
//! * [`ledgers`]: what is known of every Run, fed by the gateway and the archive;
//! * [`moments`]: the two clocks; [`wake`]: who must be looked at.

pub mod fleet;
pub mod ledgers;
pub mod moments;
pub mod wake;

pub use self::fleet::Fleet;
pub use self::ledgers::{Ledgers, RunFacts};
pub use self::moments::Moments;
pub use self::wake::Wake;
