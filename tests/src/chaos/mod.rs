//! The kill harness: a whole system of real processes under load, whose every part is killed, stopped, restarted and
//! cut off at random, and then checked from outside: what a witness wrote down against what the system says.
//!
//! `harness` does that; `outage` takes one store away for long, and `failover` measures how soon the next of several
//! operators leads a `crowd` of simulated agents.

pub mod book;
pub mod cable;
pub mod check;
pub mod crowd;
pub mod dice;
pub mod failover;
pub mod faults;
pub mod fleet;
pub mod harness;
pub mod load;
pub mod outage;
pub mod plot;
pub mod process;
pub mod servers;
