//! The operator's WebSocket side for agents.
//!
//! Each agent has two sockets: the **control** socket, whose life is a Session (`session`), and the **log** socket
//! (`log_socket`), open while there is output. What a connection may do follows from its token alone ([`auth`]).
//!
//! Other modules see the agents through the [`Registry`]: which are connected, what they own, when they were last seen; it
//! also queues messages for them. Reports go to the controller's ledgers ([`LedgerSink`]) and results to the archive; once a
//! result is durable, the agent receives an Ack (`results`). No decision is made here.
//!
//! In reading order: [`routes`] (the only file that names warp) → [`auth`], `token_review` → `socket` → `session` and
//! `log_socket` → `messages`, [`registry`] and [`outbox`] → `results` and `history_lookups` → `fleet` → [`orphans`],
//! [`departed`].

mod attempt_index;
mod clock_offset;
pub mod auth;
mod late_messages;
mod ledger_sink;
mod claims;
pub mod departed;
mod fleet;
mod gate;
mod history_lookups;
mod log_attempts;
mod log_socket;
mod messages;
mod meter;
mod metrics;
pub mod orphans;
pub mod outbox;
pub mod registry;
mod results;
pub mod routes;
mod sealing;
mod session;
mod session_table;
mod session_terms;
mod settings;
mod socket;
pub mod socket_slots;
mod token_review;
mod token_rules;

pub use self::auth::{AgentIdentity, Authenticate, StaticTokens};
pub use self::gate::{Gateway, GatewayParts};
pub use self::history_lookups::{OUTPUT_WITHIN, ResultsParts, ResultsWork};
pub use self::ledger_sink::{AttemptFacts, LedgerSink, Standing};
pub use self::metrics::{
    GatewayMetrics, OutputMetrics, ResultMetrics, SecurityEvent, SecurityMetrics, SessionMetrics,
    publish_node_gauges,
};
pub use self::registry::{AgentView, InventoryState, Registry, Sample, SessionView};
pub use self::results::Results;
pub use self::settings::Settings;
pub use self::token_review::TokenReviews;
pub use self::token_rules::TokenRules;
