//! The heads of audit chains, as History has them.

use sentinel_api::view::{AuditHeadView, List};

use super::answer::Answer;
use super::api::Api;
use super::error::ApiError;
use super::executions::unable;
use super::log_text::rfc3339;
use super::request::Query;
use crate::history::{AuditHeadQuery, AuditHeadRecord, PageToken};

pub(super) async fn list(api: &Api, query: &Query) -> Result<Answer, ApiError> {
    let after =
        query.text("page").map(PageToken::of_audit_heads).transpose().map_err(|error| unable(&error))?;
    let of = query.text("of").map(str::to_owned);
    let wanted = AuditHeadQuery { of, limit: query.limit()? as u32, after };
    let page = api.records.audit_heads(wanted).await.map_err(|error| unable(&error))?;
    let items = page.items.into_iter().map(view).collect();
    Answer::json(&List { next: page.next.map(|next| next.to_string()), ..List::whole(items) })
}

fn view(record: AuditHeadRecord) -> AuditHeadView {
    let AuditHeadRecord { of, head, recorded_at } = record;
    AuditHeadView {
        of,
        chain: head.chain.to_string(),
        seq: head.seq,
        hash: head.hash.to_string(),
        recorded_at: rfc3339(recorded_at),
    }
}
