//! The controller of Tasks: *validate → observe → decide → act*.
//!
//! It decides nothing itself: [`sentinel_core::reconcile::decide`] does, from what `observe` gathers; `act` performs
//! the result in a fixed order, durable intent before any effect. In reading order:
//!
//! * [`run`](fn@run): what enqueues a Task; `change_filter`: which changes of a Task do; `cache_progress`: which Tasks changed, for
//!   readers of the cache; [`requests`]: reconcile requests from elsewhere; `worker`: the worker loop; `work_queue`: what is due;
//! * `reconcile`: one Task; `observe` and `tracking`: what is known; `act` and its parts `status_writer`, `dispatcher`,
//!   `archive_handover`, `events`, `requesters`: what is done, and `departure` for a Task that is gone; `history_lookup`: what History knows of a Run taken over;
//!   `earlier_lookup`: what it knows of an earlier Task of the same name;
//! * [`fleet`]: the seam to the gateway; `ledger_sink`: the gateway's seam to us;
//! * [`run_store`] and [`task_runs`]: the state of every Run, fed by the gateway and the archive; `run_store_reader`: the
//!   same for the API; `history_records`: the same as records of History;
//! * [`leadership`]: whether this operator leads, and with which epoch;
//! * `task_cache`: what is kept of a Task between reconciles; [`context`]: what every reconcile needs; [`counters`] and
//!   `metrics`: what is counted and measured of reconciles, `endings` of Runs and Attempts as they end; `background`: tasks
//!   that no reconcile waits for; [`error`]: why a reconcile failed.

mod act;
#[cfg(test)]
mod against_kube;
mod archive_handover;
mod background;
mod cache_progress;
mod ceiling_file;
mod ceilings;
mod change_filter;
pub mod context;
pub mod counters;
mod departure;
mod dispatcher;
mod earlier_lookup;
mod endings;
pub mod error;
mod events;
pub mod fleet;
mod history_lookup;
mod history_records;
pub mod leadership;
mod ledger_sink;
mod metrics;
mod observe;
mod reconcile;
mod requesters;
pub mod requests;
mod run;
pub mod run_store;
mod run_store_reader;
mod secrets;
mod status_writer;
mod task_cache;
pub mod task_runs;
mod tracking;
mod work_queue;
mod worker;

pub use self::cache_progress::CacheProgress;
#[cfg(test)]
pub(crate) use self::cache_progress::ProgressWriter;
pub use self::ceiling_file::CurrentCeilings;
pub use self::context::Parts;
pub use self::counters::Counters;
pub use self::endings::Endings;
pub use self::error::ReconcileError;
pub use self::fleet::Fleet;
pub use self::leadership::{Leadership, LeadershipSetter, Term};
pub use self::requests::ReconcileRequests;
pub use self::run::{Caches, run};
pub use self::run_store::RunStore;
pub use self::run_store_reader::RunStoreReader;
pub use self::task_runs::{RunFacts, TrackedRun};
