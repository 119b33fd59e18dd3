//! Output between the agents, the archive and those who read it.
//!
//! ```text
//!   log socket ──accept──▶ hub: the tail of each Attempt ──▶ archiver ──▶ History
//!        ▲                    │  (what is not archived, and a little more)    │
//!        └──────credit────────┘                                               │
//!                             └────────▶ reader (a cursor) ◀──────────────────┘
//! ```
//!
//! A reader is nothing but a position: it looks in the hub, and in History for what is older. Nobody waits for a
//! reader, and a reader misses nothing: whatever the hub lets go of is in History. All memory here is counted in one
//! pool; when it is used up the agents get no more credit and keep the output on their disks.

pub mod hub;
pub mod reader;
pub mod start;

pub use self::hub::{Hub, HubRules};
pub use self::reader::{LogReader, ReadError};
pub use self::start::Part;
pub use sentinel_core::stream::tail::{End, Follow};
