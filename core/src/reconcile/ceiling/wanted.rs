//! [`Wanted`]: what a ceiling judges.

use std::collections::BTreeMap;

use sentinel_protocol::ids::{NodeName, RunNumber};
use sentinel_protocol::time::UnixMillis;

use super::super::targets::NodeFacts;
use super::super::trigger::AskedBy;
use super::approval::Consent;
use crate::plan::TaskPlan;

/// What a Run would be that is due.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Its Task.
    pub plan: &'a TaskPlan,
    /// Its number.
    pub run: RunNumber,
    /// Its targets, in name order.
    pub targets: &'a [NodeName],
    /// All known nodes.
    pub nodes: &'a BTreeMap<NodeName, NodeFacts>,
    /// Who is behind it, and what was approved.
    pub consent: &'a Consent,
    /// Who is behind it, beside the author.
    pub asked_by: AskedBy,
    /// Now.
    pub at: UnixMillis,
}
