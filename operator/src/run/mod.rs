//! Wiring, top to bottom: adapters, tasks, the end. The only place that knows every part; there is no logic here.
//!
//! ```text
//!   cluster ──watch──▶ controller ──Start, Cancel, Forget──▶ registry ──▶ Sessions ──▶ agents
//!      ▲                   ▲   └──records──▶ archiver ──▶ History         │   │
//!      └──status───────────┘                 ▲    └─words─▶ results ──Ack─┘   │ output
//!        ledgers ◀──Reports──────────────────┼────────────── gateway ◀────────┘
//!                                            └── hub ◀── log sockets ── readers ◀── API
//! ```
//!
//! Every task is in one set; the first that ends by itself ends the process. On request everything stops in this
//! order: the controller (nothing new is started), the agents are told, what is on its way to History gets a while,
//! the listeners close. Commands on the nodes go on through all of it.

//!
//! In reading order: [`process`] (a process for a Kubernetes cluster), [`operator`] (an operator, wherever its Tasks
//! live), `tasks` (what ends when one part does), `gauges` (what the parts say about themselves).

pub mod election;
pub mod error;
mod gauges;
pub mod operator;
pub mod process;
mod tasks;

pub use self::election::{Election, LeaseElection};
pub use self::error::RunError;
pub use self::operator::{ApiAt, Operator, Options, Seams};
pub use self::process::run;
