//! How the link and the agent's thread reach each other. Neither knows the other; both know this module.
//!
//! * [`mailbox`]: inputs to the agent's thread; bounded, with an eventfd that `poll(2)` can wait for.
//! * [`output_notices`]: what the agent's thread publishes for the log link; merged per Attempt, so it never blocks.

mod mailbox;
mod output_notices;

pub(crate) use mailbox::{Inbox, Input, InputPermit, Mailbox, mailbox};
pub(crate) use output_notices::{OutputNotice, OutputNotices, OutputOrigin};
