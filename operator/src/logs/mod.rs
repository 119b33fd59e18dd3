//! Output between the agents, the archive and its readers.
//!
//! ```text
//!   log socket ─publish─▶ hub: the tail of each Attempt ──▶ archiver ──▶ History
//!        ▲                    │  (what is not archived, and a little more)    │
//!        └──────credit────────┘                                               │
//!                             └────────▶ reader (a cursor) ◀──────────────────┘
//! ```
//!
//! A reader is only a position: it reads the hub, and History for what is older. Readers never slow anything down and
//! miss nothing: whatever the hub drops is in History. All memory here is counted in one pool; when it is used up, agents
//! get no more credit and keep the output on their disks.

pub mod attempts;
pub mod hub;
mod index;
pub mod lines;
pub mod merged;
mod missing;
mod read_ahead;
pub mod reader;
pub mod search;
pub mod start;

pub use self::attempts::ReportedAttempts;
pub use self::hub::{Hub, HubRules};
pub use self::lines::{KnownLines, LinesFrom, LinesParams, LinesUpdate, LogLines};
pub use self::reader::{LogReader, ReadError};
pub use self::search::{Hit, SearchUpdate};
pub use self::start::LogParams;
pub use sentinel_core::stream::tail::{End, Follow};
