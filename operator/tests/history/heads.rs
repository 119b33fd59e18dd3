//! The contract of every History: the heads of audit chains.

use std::time::Duration;

use sentinel_operator::history::head::{DAILY_KEPT, HOURLY_KEPT};
use sentinel_operator::history::{AuditHeadQuery, AuditHeadRecord, PageToken};
use sentinel_protocol::audit::AuditHead;
use sentinel_protocol::ids::{ChainId, Sha256Hex};
use sentinel_protocol::time::UnixMillis;

use crate::output::RETENTION;
use crate::suite::Site;

const MINUTE: Duration = Duration::from_mins(1);

fn head(site: &Site, of: &str, chain: &str, seq: u64, digit: &str) -> AuditHeadRecord {
    let hash = Sha256Hex::new(digit.repeat(64)).unwrap();
    let head = AuditHead { chain: ChainId::new(chain).unwrap(), seq, hash };
    AuditHeadRecord { of: of.to_owned(), head, recorded_at: site.clock.clock().now() }
}

async fn record(site: &Site, heads: &[AuditHeadRecord]) {
    site.history.record_audit_heads(heads.to_vec()).await.unwrap();
}

async fn all(site: &Site) -> Vec<AuditHeadRecord> {
    site.history.audit_heads(AuditHeadQuery::default()).await.unwrap().items
}

fn numbers(heads: &[AuditHeadRecord]) -> Vec<u64> {
    heads.iter().map(|record| record.head.seq).collect()
}

pub(crate) async fn heads_are_thinned_and_what_shows_a_change_is_never_replaced(site: &Site) {
    for seq in 1..=60 {
        record(site, &[head(site, "n-1", "c", seq, "a")]).await;
        site.clock.advance(MINUTE);
    }
    let heads = all(site).await;
    assert_eq!(numbers(&heads), [1, 1, 60], "the first of the day, that of the hour, and the last");
    // The chain was written anew: its heads do not take the place of those from before.
    record(site, &[head(site, "n-1", "c", 40, "b")]).await;
    assert_eq!(all(site).await.last().unwrap().head.seq, 60, "a lower head is not the highest");
    record(site, &[head(site, "n-1", "c", 70, "b")]).await;
    let now = all(site).await;
    assert_eq!((now[0].clone(), now.last().unwrap().head.seq), (heads[0].clone(), 70));
    assert!(now[0].head.hash.as_str().starts_with('a'));
    // What another node states about the same chain has rows of its own.
    record(site, &[head(site, "n-2", "c", 900, "c")]).await;
    assert!(all(site).await.starts_with(&now));
}

pub(crate) async fn the_first_head_of_each_hour_and_day_is_kept_at_any_time_of_day(site: &Site) {
    site.clock.advance(Duration::from_hours(22));
    // At 22:00, 23:00, 23:59:59.999 and 00:59:59.999.
    for (seq, next) in [(1, 3_600_000), (2, 3_599_999), (3, 3_600_000), (4, 0)] {
        record(site, &[head(site, "n-1", "c", seq, "a")]).await;
        site.clock.advance(Duration::from_millis(next));
    }
    assert_eq!(numbers(&all(site).await), [1, 4, 1, 2, 4, 4]);
}

pub(crate) async fn heads_outlive_what_they_are_about(site: &Site) {
    assert!(RETENTION < HOURLY_KEPT);
    record(site, &[head(site, "n-1", "c", 1, "a")]).await;
    site.clock.advance(Duration::from_hours(25));
    record(site, &[head(site, "n-1", "c", 2, "a")]).await;
    site.clock.advance(Duration::from_hours(1));
    record(site, &[head(site, "n-1", "c", 3, "a")]).await;
    assert_eq!(numbers(&all(site).await), [1, 2, 1, 2, 3, 3]);
    site.clock.advance(HOURLY_KEPT);
    assert_eq!(numbers(&all(site).await), [1, 2, 3], "of each day, and the last");
    site.clock.advance(DAILY_KEPT);
    assert_eq!(all(site).await, []);
}

pub(crate) async fn heads_are_listed_in_pages(site: &Site) {
    let stored: Vec<AuditHeadRecord> =
        (0..25).map(|n| head(site, &format!("n-{n:02}"), "c", 7, "a")).collect();
    record(site, &stored).await;
    let (mut listed, mut after): (Vec<_>, Option<PageToken>) = (Vec::new(), None);
    loop {
        let page = site.history.audit_heads(AuditHeadQuery { limit: 10, after, of: None }).await.unwrap();
        assert!(page.items.len() <= 10);
        listed.extend(page.items);
        let Some(next) = page.next else { break };
        after = Some(PageToken::of_audit_heads(&next.to_string()).unwrap());
    }
    let expected: Vec<AuditHeadRecord> =
        stored.iter().flat_map(|record| std::iter::repeat_n(record.clone(), 3)).collect();
    assert_eq!(listed, expected);
    // Neither n-10 nor n-1.
    let of = Some("n-0".to_owned());
    assert_eq!(
        site.history.audit_heads(AuditHeadQuery { of, ..Default::default() }).await.unwrap().items,
        []
    );
    let of = Some("n-07".to_owned());
    let page =
        site.history.audit_heads(AuditHeadQuery { of: of.clone(), limit: 2, after: None }).await.unwrap();
    assert_eq!(page.items, expected[21..23]);
    let rest = site.history.audit_heads(AuditHeadQuery { of, limit: 2, after: page.next }).await.unwrap();
    assert_eq!((rest.items.as_slice(), rest.next), (&expected[23..24], None));
    let refused = site.history.audit_heads(AuditHeadQuery { limit: 501, ..AuditHeadQuery::default() }).await;
    assert!(refused.unwrap_err().to_string().contains("limit 501"));
    assert_eq!(stored[0].recorded_at, UnixMillis(site.clock.clock().now().0));
}
