//! How far the Tasks of a namespace may reach: the ceilings that an administrator of the cluster has set, and whether a Run
//! that is due is within them.
//!
//! [`judge`] is asked each time before a target list is frozen, and never about a Run that has begun: a change of the ceilings
//! touches nothing that runs. What it cannot prove to be allowed, it does not allow: a node that is not known may be a
//! protected one, and ceilings that cannot be read allow nothing. `rules` has what an administrator
//! has written, [`approval`] what lets a Run pass a threshold.

pub mod approval;
mod judge;
mod message;
mod rules;
mod wanted;

pub use approval::Awaiting;
pub use judge::{Judgement, judge, targets_digest};
pub use rules::{ApprovalRule, Ceiling, Ceilings, ProtectedNodes, Rules, Share, is_like};
pub use wanted::Wanted;
