//! The operator's side: what should happen next for one Task.
//!
//! [`decide`] is the entry point. In reading order: [`decision`] and [`action`] (its input and output), [`run`] (a Run
//! and its counts), [`trigger`] (is a Run due, does the current one stop), [`recreation`] (has an earlier Task of this
//! name run the same), [`targets`] (which nodes), [`ceiling`] (may it reach them), [`rollout`] (which targets start, retry or are given up), [`retry`],
//! [`execution`] and [`ledger`] (what is known of each node), [`settle`] (archive, then forget), [`archived`] (whether
//! History has a Run), [`status`] and [`conditions`] (what the Task shows), [`orphan`] (Attempts that no ledger has).

pub mod action;
mod archived;
pub mod ceiling;
pub mod conditions;
mod decide;
pub mod decision;
pub mod execution;
pub mod ledger;
mod notices;
pub mod orphan;
pub mod recreation;
pub mod retry;
pub mod rollout;
pub mod run;
pub mod settle;
pub mod status;
pub mod targets;
pub mod trigger;
mod words;

pub use action::{Action, Level, Notice};
pub use decide::decide;
pub use decision::{Decision, Earlier, Finalizer, Lifecycle, Observed, Status, Write};
