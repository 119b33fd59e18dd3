//! The heads of audit chains, as History keeps them: what they were is to outlive the chains, and no later head replaces what shows that
//! a chain was changed.
//!
//! Of each chain there is a row for the highest head, one for the first head of each hour and one for that of each day. The latter are
//! never replaced. So a chain has a bounded number of rows, however often its head changes.

use std::time::Duration;

use sentinel_protocol::audit::AuditHead;
use sentinel_protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::query::PageToken;
use super::record::Identified;

/// How long the head of an hour is kept.
pub const HOURLY_KEPT: Duration = Duration::from_hours(30 * 24);

/// How long the head of a day, and the highest, are kept after they were recorded: longer than what the chain is about.
pub const DAILY_KEPT: Duration = Duration::from_hours(400 * 24);

const HOUR_MS: i64 = 3_600_000;

/// The head of an audit chain as it was at some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditHeadRecord {
    /// Who keeps the chain: the name of a node, or `operator`.
    pub of: String,
    /// The head.
    #[serde(flatten)]
    pub head: AuditHead,
    /// When it was recorded, by the operator's clock.
    pub recorded_at: UnixMillis,
}

/// Which heads to list: all, by who keeps the chain and by chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditHeadQuery {
    /// Only those of this node, or of `operator`.
    pub of: Option<String>,
    /// Page size: 1 to [`super::query::MAX_PAGE`]; 0 means that.
    pub limit: u32,
    /// Only rows after this one.
    pub after: Option<PageToken>,
}

impl AuditHeadQuery {
    /// What comes before all rows that are wanted, and what comes behind them.
    pub(super) fn between(&self) -> (Option<String>, Option<String>) {
        let after = self.after.as_ref().map(|after| after.as_str().to_owned());
        match &self.of {
            // `0` is the character after `/`.
            Some(of) => (after.max(Some(format!("{of}/"))), Some(format!("{of}0"))),
            None => (after, None),
        }
    }
}

/// A row that a head may become.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Its key, which is its place in a list too.
    pub(super) id: String,
    /// A row is replaced by one of a higher rank.
    pub(super) rank: u64,
    /// How long it is kept.
    pub(super) kept: Duration,
}

impl AuditHeadRecord {
    /// The rows that it becomes, unless they exist.
    pub(super) fn rows(&self) -> [Row; 3] {
        let Self { of, head: AuditHead { chain, seq, .. }, recorded_at } = self;
        let hour = recorded_at.0.max(0) / HOUR_MS;
        let row = |place: String, rank, kept| Row { id: format!("{of}/{chain}/{place}"), rank, kept };
        [
            row(format!("d{:06}", hour / 24), 0, DAILY_KEPT),
            row(format!("h{hour:08}"), 0, HOURLY_KEPT),
            row("last".to_owned(), *seq, DAILY_KEPT),
        ]
    }
}

impl Identified for AuditHeadRecord {
    fn what(&self) -> String {
        format!("the head of audit chain {} of {}", self.head.chain, self.of)
    }
}
