//! Fault injection: a whole system of real processes under load. Every part is killed, stopped, restarted and cut off
//! at random; then what the commands recorded outside of the system is compared with what the system reports.
//!
//! `harness` does that; `outage` stops one store for long, and `failover` measures how soon the next of several
//! operators leads many `simulated_agents`.

pub mod recording;
pub mod proxy;
pub mod check;
pub mod simulated_agents;
pub mod rng;
pub mod failover;
pub mod faults;
pub mod fleet;
pub mod harness;
pub mod load_generator;
pub mod outage;
pub mod behavior;
pub mod process;
pub mod servers;
