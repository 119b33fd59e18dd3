//! Wiring: adapters, components, the end. The only place that knows every component; no logic here.
//!
//! ```text
//!   cluster ──watch──▶ controller ──Start, Cancel, Forget──▶ registry ──▶ Sessions ──▶ agents
//!      ▲                   ▲   └──records──▶ archiver ──▶ History         │   │
//!      └──status───────────┘                 ▲    └─stored─▶ results ─Ack─┘   │ output
//!        run store ◀──Reports────────────────┼────────────── gateway ◀────────┘
//!                                            └── hub ◀── log sockets ── readers ◀── API
//! ```
//!
//! Every component is in one set; when one exits, the process does. On request they are stopped in this order: the
//! controller (nothing new is started), the election, the Sessions, then, after a while for what is on its way to History,
//! everything else. Commands on the nodes keep running through all of it.
//!
//! In reading order: [`process`] (a process for a Kubernetes cluster), `transport` (its certificate), `admission` (its webhook), `people` (who may use its
//! API), [`operator`] (an operator over any [`Seams`]),
//! `listeners` (its ports), `election` (its leadership), `archive` (its way to History), `audit_heads` (heads of audit chains in History), `caches` (its readiness), `gauges`
//! and `overview` (its metrics), `traces` (where spans go), `heap` (what the allocator keeps), `tasks` (its components).

#[cfg(feature = "drivers")]
mod admission;
mod archive;
mod audit_heads;
mod caches;
pub mod election;
pub mod error;
mod gauges;
mod heap;
mod listeners;
pub mod operator;
mod overview;
#[cfg(feature = "drivers")]
mod people;
#[cfg(feature = "drivers")]
pub mod process;
#[cfg(feature = "drivers")]
mod stores;
mod tasks;
#[cfg(feature = "drivers")]
mod traces;
#[cfg(feature = "drivers")]
mod transport;

pub use self::election::{Election, LeaseElection};
pub use self::error::RunError;
pub use self::listeners::ApiAt;
pub use self::operator::{Background, Operator, Options, Seams};
#[cfg(feature = "drivers")]
pub use self::process::run;
