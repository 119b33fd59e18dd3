//! Traces of Runs, for an OpenTelemetry collector.
//!
//! A Run is a span, each of its Attempts a child of it, and *queued*, *dispatched* and *running* are children of the
//! Attempt. An annotation of the Task names the trace that the Run joins; the command's environment names the span that its
//! own spans belong to.
//!
//! Ids are derived from those of the Run and the Attempt, so that a repeated `Start` and another leader name the same span.
//! A span is made when what it is about has ended, and is never waited for.

mod context;
mod export;
mod ids;
mod span;
#[cfg(feature = "otlp")]
mod otlp;

pub use self::context::{InvalidTrace, RunTrace, read};
pub use self::export::{Export, Traces};
#[cfg(feature = "otlp")]
pub use self::otlp::{Otlp, TraceError};
pub(crate) use self::span::{OfRun, Progress};
pub use self::span::{Span, Value};
