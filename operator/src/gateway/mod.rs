//! The operator's WebSocket side for agents.
//!
//! Two sockets per agent: the **control** socket, whose life is a Session (`session`), and the **log** socket
//! (`output`), open while there is output. What a connection may do follows from its token alone ([`auth`]).
//!
//! What others see of the agents is the [`Registry`]: which are connected, what they own, when they were last heard of;
//! through it messages go out. What agents say goes to the controller's [`Books`], and results on to the archive
//! and, once they are durable, back as Acks (`results`). No decision is made here.
//!
//! In reading order: [`routes`] (the only file that names warp) → [`auth`] → `session` and `output` →
//! [`registry`] and [`outbox`] → `results` and `chores` → `fleet` → [`strays`].

pub mod auth;
mod books;
mod chores;
mod claims;
mod counts;
mod fleet;
mod gate;
pub mod outbox;
mod meter;
mod output;
pub mod rates;
pub mod registry;
mod results;
pub mod seats;
pub mod routes;
mod session;
pub mod strays;

pub use self::auth::{AgentIdentity, AuthError, Authenticate, StaticTokens, TokenReviews, TokenRules};
pub use self::books::{AttemptFacts, Books, Standing};
pub use self::chores::{OUTPUT_WITHIN, ResultsParts, ResultsWork};
pub use self::counts::GatewayMetrics;
pub use self::gate::{Gateway, GatewayParts, Settings};
pub use self::registry::{AgentView, Inventory, Registry, Sample, SessionFacts};
pub use self::results::Results;
