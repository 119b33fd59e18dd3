//! Runs, Executions and Attempts as this operator knows them: History, overlaid with what is not archived yet.
//!
//! ```text
//!   Runs in memory ([`LiveRuns`]) ──┐
//!   records queued in the archiver ─┼─▶ overlay ─┐
//!   status of the Tasks ────────────┘            ├─▶ one page, in the order of History's pages
//!   History ─────────────────────────────────────┘
//! ```
//!
//! History lags behind by design: nothing waits for it. Readers must not notice, so every question about a Run goes to
//! [`Records`] and not to History. What always holds:
//!
//! * An answer knows at least what any earlier answer of this operator showed, the status of the Task included.
//! * The overlay is read before History: a record that moves from one to the other in between is in one of them.
//! * A row has one key, in memory and in History. So pages have no gap and no repeat where the two meet, and a page may
//!   end on either side.
//! * A History that is unavailable makes a list [`Listed::partial`]: neither an error nor a list that seems complete.

mod live;
mod overlay;
mod reader;
mod status;

pub use self::live::{
    ExecutionStatus, Extent, LiveRuns, Retries, RunProgress, Scope, WaitingFor, WaitingState,
};
pub use self::reader::{Listed, Records};
