//! The operator's metrics and their Prometheus text.
//!
//! Names begin with `sentinel_`, unless controller-runtime, client-go or every client library has one; counters end in `_total`. Labels come from closed sets written in the code: a metric
//! is requested with its labels, so no value from outside can become one.
//!
//! Code that does something counts it in a [`Counter`], [`Gauge`] or [`Histogram`] of the [`Registry`]; a part that
//! keeps its own numbers is read at each scrape ([`Registry::computed`]).

mod format;
mod process;
mod registry;
mod responses;

pub use self::format::Format;
pub use self::process::publish_process;
pub use self::registry::{Counter, Gauge, Held, Histogram, Kind, Labels, Registry, TIMES};
pub use self::responses::HttpResponses;
