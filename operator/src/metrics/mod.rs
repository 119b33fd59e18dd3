//! What the operator counts, and its Prometheus text.
//!
//! A registry of our own: the whole of it is smaller than the glue a crate would need. Names begin with `sentinel_`,
//! counters end in `_total`, and labels come from closed sets that are written in the code: whoever asks for a metric
//! names its labels then and there, so no value that came from outside can become one.
//!
//! Whoever does something counts it himself, in a [`Counter`], [`Gauge`] or [`Histogram`] out of the [`Registry`]; what
//! keeps its own numbers is asked for them at each scrape ([`Registry::computed`]).

mod registry;
pub mod sources;

pub use self::registry::{Counter, Gauge, Held, Histogram, Kind, Labels, Registry, TIMES};
