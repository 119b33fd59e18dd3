//! Audit: a record of each request, decision and result, in chains that show when something was changed or removed.
//!
//! A chain is a sequence of JSON lines. Each has the hash of the previous one, and ends with its own: whatever is changed,
//! removed, inserted or reordered no longer fits. What is cut from the end is found by the heads that other chains keep
//! ([`Record::HeadSeen`]). `docs/audit.md` has the format for people, and what a chain does not prove.
//!
//! Everything but [`directory`] and [`export`], which have the feature `directory`, is pure. In reading order:

pub mod request;
pub mod record;
pub mod allowance;
pub mod line;
pub mod chain;
pub mod verify;
pub mod anchors;
pub mod report;
#[cfg(feature = "directory")]
pub mod directory;
#[cfg(feature = "directory")]
pub mod export;

pub use chain::Chain;
pub use record::Record;
pub use sentinel_protocol::audit::AuditHead;
