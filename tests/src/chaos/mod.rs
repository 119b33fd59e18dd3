//! The kill harness: a whole system of real processes under load, whose every part is killed, stopped, restarted and
//! cut off at random, and then checked from outside: what a witness wrote down against what the system says.

pub mod book;
pub mod cable;
pub mod check;
pub mod dice;
pub mod faults;
pub mod fleet;
pub mod harness;
pub mod load;
pub mod plot;
pub mod process;
pub mod servers;
