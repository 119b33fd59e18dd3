//! The tail of each Attempt's log, held until History has it.
//!
//! [`Hub`] hands out a [`LogPublisher`] for each Attempt whose output arrives over a log socket, and a subscriber for each
//! reader. Both work on a channel per Attempt (`inner`), which is removed when nothing needs it any more.

mod handle;
mod inner;
mod publisher;
mod subscriber;

pub use self::handle::{Hub, HubRules};
pub use self::publisher::{LogPublisher, PublishResult};
pub(super) use self::subscriber::{Available, LogSubscriber};
