//! Queries to History and pages of rows.
//!
//! A page continues after the last row of the previous one, by a key that never changes for a row. So rows that arrive
//! in between are neither returned twice nor displace others.

use std::fmt;
use std::str::FromStr;

use sentinel_protocol::ids::{NodeName, RunNumber, SpecHash, TaskUid};
use sentinel_protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::error::HistoryError;
use super::outcome::OutcomeName;
use super::record::{ExecutionRecord, RunRecord};

/// The largest page.
pub const MAX_PAGE: u32 = 500;

/// Which Executions to list; all given conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecutionQuery {
    /// Only of Tasks in this namespace.
    pub namespace: Option<String>,
    /// Only of Tasks with this name.
    pub task: Option<String>,
    /// Only of the Task with this uid.
    pub task_uid: Option<TaskUid>,
    /// Only of the Run with this number.
    pub run: Option<RunNumber>,
    /// Only on this node.
    pub node: Option<NodeName>,
    /// Only with this Outcome.
    pub outcome: Option<OutcomeName>,
    /// Only of Runs that began in this span of time.
    pub began: Span,
    /// Only of Runs that began for this reason. Records of earlier releases do not have it, and do not match.
    pub trigger: Option<String>,
    /// Page size: 1 to [`MAX_PAGE`]; 0 means [`MAX_PAGE`].
    pub limit: u32,
    /// Only rows after this one.
    pub after: Option<PageToken>,
}

/// Which Runs to list; all given conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunQuery {
    /// Only of Tasks in this namespace.
    pub namespace: Option<String>,
    /// Only of Tasks with this name.
    pub task: Option<String>,
    /// Only of the Task with this uid.
    pub task_uid: Option<TaskUid>,
    /// Only the Run with this number.
    pub run: Option<RunNumber>,
    /// Only Runs that began in this span of time.
    pub began: Span,
    /// Only Runs that began for this reason.
    pub trigger: Option<String>,
    /// Only Runs that ran this. The controller alone asks it, of History alone.
    pub ran: Option<Ran>,
    /// Page size: 1 to [`MAX_PAGE`]; 0 means [`MAX_PAGE`].
    pub limit: u32,
    /// Only rows after this one.
    pub after: Option<PageToken>,
}

/// Runs of other Tasks that ran the same, on at least one node. To be asked with a namespace and a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Digest of the spec.
    pub spec_hash: SpecHash,
    /// The `rerunToken`.
    pub rerun_token: String,
    /// The Task that asks; its own Runs are not meant.
    pub not_by: TaskUid,
}

/// A span of time. It is a range of keys, because these begin with the time at which a Run began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Its begin, by the operator's clock.
    pub since: Option<UnixMillis>,
    /// Its end, which is not in it.
    pub until: Option<UnixMillis>,
}

impl Span {
    /// Whether a time is in it.
    pub fn has(&self, at: UnixMillis) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }

    /// What comes before all rows in it: its newest.
    pub(super) fn start(&self) -> Option<String> {
        self.until.map(|until| newest_first(until.0.saturating_sub(1)))
    }

    /// What comes behind all rows in it: its oldest.
    pub(super) fn end(&self) -> Option<String> {
        self.since.map(|since| newest_first(since.0.saturating_sub(1)))
    }

    /// The later of this position and the start of the span.
    pub fn after(&self, position: Option<&PageToken>) -> Option<PageToken> {
        self.start().map(PageToken).into_iter().chain(position.cloned()).max()
    }

    /// Whether no row behind this position is in it.
    pub fn is_over_at(&self, position: &PageToken) -> bool {
        self.end().is_some_and(|end| position.0 >= end)
    }
}

/// Some rows, and where the next page begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The rows, in order.
    pub items: Vec<T>,
    /// The `after` of the next page; `None` when this is the last.
    pub next: Option<PageToken>,
}

impl<T> Page<T> {
    /// A page of `limit` rows with their keys: an extra row shows that another page follows.
    pub(super) fn cut(mut rows: Vec<(String, T)>, limit: usize) -> Self {
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = if more { rows.last().map(|(key, _)| PageToken(key.clone())) } else { None };
        Self { items: rows.into_iter().map(|(_, row)| row).collect(), next }
    }
}

/// The position after a row. Opaque to callers; safe in a URL once percent-encoded.
///
/// Its order is that of the rows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PageToken(String);

impl PageToken {
    /// The position after an Execution in a list of Executions.
    pub fn of_execution(record: &ExecutionRecord) -> Self {
        Self(execution_order(record.run_started_at, &record.task_uid, record.run, &record.node))
    }

    /// The position after a Run in a list of Runs.
    pub fn of_run(record: &RunRecord) -> Self {
        Self::of_run_start(record.started_at, &record.task_uid, record.run)
    }

    /// The position before the Executions of a Run and after those of the next newer Run.
    pub fn of_run_start(started_at: UnixMillis, task: &TaskUid, run: RunNumber) -> Self {
        Self(run_order(started_at, task, run))
    }

    /// The position in a list of audit heads.
    ///
    /// # Errors
    /// [`HistoryError::InvalidQuery`] when it is not one.
    pub fn of_audit_heads(text: &str) -> Result<Self, HistoryError> {
        let is_known = text.split('/').count() == 3
            && text.split('/').all(|part| !part.is_empty())
            && text.len() < 1024
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_known { Ok(Self(text.to_owned())) } else { Err(invalid_token(text)) }
    }

    /// Whether every Execution of this Run comes before this position.
    pub fn is_behind_run(&self, started_at: UnixMillis, task: &TaskUid, run: RunNumber) -> bool {
        let key = run_order(started_at, task, run);
        self.0 > key && !self.0.starts_with(&key)
    }

    /// The key of the row.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PageToken {
    type Err = HistoryError;

    fn from_str(text: &str) -> Result<Self, HistoryError> {
        let time = text.split('/').next().unwrap_or_default();
        let known = time.len() == 16
            && time.bytes().all(|b| b.is_ascii_hexdigit())
            && (3..=4).contains(&text.split('/').count())
            && text.len() < 1024
            && text.bytes().all(|b| b.is_ascii_graphic());
        if known { Ok(Self(text.to_owned())) } else { Err(invalid_token(text)) }
    }
}

fn invalid_token(text: &str) -> HistoryError {
    let shown: String = text.chars().take(64).collect();
    HistoryError::InvalidQuery {
        message: format!("invalid page token {shown:?}: use the token of an earlier page"),
    }
}

impl TryFrom<String> for PageToken {
    type Error = HistoryError;
    fn try_from(text: String) -> Result<Self, HistoryError> {
        text.parse()
    }
}

impl From<PageToken> for String {
    fn from(token: PageToken) -> Self {
        token.0
    }
}

/// The rows to fetch for a page of `limit`.
pub(crate) fn page_size(limit: u32) -> Result<usize, HistoryError> {
    match limit {
        0 => Ok(MAX_PAGE as usize),
        1..=MAX_PAGE => Ok(limit as usize),
        _ => Err(HistoryError::InvalidQuery {
            message: format!("limit {limit} is not within 1 to {MAX_PAGE}"),
        }),
    }
}

/// The key of a Run among Runs: text order is newest first.
pub(super) fn run_order(started_at: UnixMillis, task: &TaskUid, run: RunNumber) -> String {
    format!("{}/{task}/{:010}", newest_first(started_at.0), u32::MAX - run.0)
}

/// A time as text whose order is newest first. It comes before every key that begins with it.
fn newest_first(millis: i64) -> String {
    format!("{:016x}", i64::MAX.wrapping_sub(millis) as u64)
}

/// The key of an Execution among Executions: text order is newest Run first, then by node.
pub(super) fn execution_order(
    run_started_at: UnixMillis,
    task: &TaskUid,
    run: RunNumber,
    node: &NodeName,
) -> String {
    format!("{}/{node}", run_order(run_started_at, task, run))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_newest_first_then_by_node() {
        let key = |at: i64, run: u32, node: &str| {
            execution_order(UnixMillis(at), &"u".parse().unwrap(), RunNumber(run), &node.parse().unwrap())
        };
        let ordered =
            [key(2000, 1, "a"), key(1000, 2, "a"), key(1000, 2, "b"), key(1000, 1, "a"), key(-5, 1, "a")];
        assert!(ordered.is_sorted(), "{ordered:?}");
    }

    #[test]
    fn a_span_is_a_range_of_keys() {
        let span = Span { since: Some(UnixMillis(-3)), until: Some(UnixMillis(5)) };
        for at in -6..8_i64 {
            let token = PageToken::of_run_start(UnixMillis(at), &"u".parse().unwrap(), RunNumber(1));
            let is_in_range = token.0 > span.start().unwrap() && token.0 < span.end().unwrap();
            assert_eq!(
                (is_in_range, span.has(UnixMillis(at))),
                ((-3..5).contains(&at), (-3..5).contains(&at)),
                "{at}"
            );
            assert_eq!(span.is_over_at(&token), at < -3, "{at}");
            assert_eq!(span.after(Some(&token)).unwrap() == token, at < 5, "{at}");
        }
        let all = Span::default();
        assert_eq!((all.start(), all.end(), all.after(None)), (None, None, None));
    }

    #[test]
    fn rejects_invalid_page_tokens() {
        let key = run_order(UnixMillis(1), &"u".parse().unwrap(), RunNumber(1));
        assert!(key.parse::<PageToken>().is_ok());
        for bad in ["", "1", "x/y/z", "{}", "0123456789abcdef/a\nb/c"] {
            let error = bad.parse::<PageToken>().unwrap_err().to_string();
            assert!(error.contains("page token"), "{bad:?}: {error}");
        }
        assert!(PageToken::of_audit_heads("n-1/c/last").is_ok());
        for bad in ["", "n-1", "n-1/c", "n-1//last", "a/b/c/d", "a/b/c\n"] {
            assert!(
                PageToken::of_audit_heads(bad).unwrap_err().to_string().contains("page token"),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn rejects_a_limit_out_of_bounds() {
        assert_eq!(page_size(0).unwrap(), 500);
        assert_eq!(page_size(7).unwrap(), 7);
        assert!(page_size(501).unwrap_err().to_string().contains("limit 501 is not within 1 to 500"));
    }
}
