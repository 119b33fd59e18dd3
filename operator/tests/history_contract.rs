//! What every History guarantees, tested on the embedded one, on MongoDB, and on the fake that injects faults.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "it is a test")]

#[macro_use]
#[path = "history/suite.rs"]
mod suite;
#[path = "history/heads.rs"]
mod heads;
#[path = "history/embedded_only.rs"]
mod embedded_only;
#[path = "history/mongo_only.rs"]
mod mongo_only;
#[path = "history/output.rs"]
mod output;
mod stores;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use sentinel_operator::history::History as _;
use sentinel_operator::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use sentinel_operator::history::mongo::{MongoHistory, MongoOptions};

use self::output::RETENTION;
use self::stores::ManualClock;
use self::stores::faulty::FaultyHistory;
use self::stores::parts::{parts, unique};
use self::suite::Site;

/// The contract of order, output, retention and audit heads.
macro_rules! output_contract {
    ($run:path) => {
        contract_tests! { $run, output: [
            order_of_writes_does_not_matter,
            concurrent_writers_converge,
            output_is_read_back_from_every_position,
            overlapping_output_is_read_once,
            lines_of_output_are_read_without_it,
            output_end_stops_at_the_first_hole,
            expired_records_and_output_are_not_returned,
        ], heads: [
            heads_are_thinned_and_what_shows_a_change_is_never_replaced,
            the_first_head_of_each_hour_and_day_is_kept_at_any_time_of_day,
            heads_outlive_what_they_are_about,
            heads_are_listed_in_pages,
        ] }
    };
}

async fn on_embedded(_: &str, test: impl AsyncFnOnce(&Site)) {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new();
    let options = EmbeddedOptions { retention: RETENTION, clock: clock.clock() };
    let history = EmbeddedHistory::open(folder.path().join("history.db"), options).unwrap();
    history.prepare().await.unwrap();
    test(&Site { history: Arc::new(history), clock, cases: 64 }).await;
}

async fn on_mongo(name: &str, test: impl AsyncFnOnce(&Site)) {
    let Some(parts) = parts(name) else { return };
    let clock = ManualClock::new();
    let options = MongoOptions {
        retention: RETENTION,
        clock: clock.clock(),
        database: Some(unique("history")),
        operation_timeout: Duration::from_mins(1),
        ..MongoOptions::default()
    };
    let history = Arc::new(MongoHistory::new(&parts.mongodb_uri, options).await.unwrap());
    history.prepare().await.unwrap();
    let site = Site { history: history.clone(), clock, cases: 8 };
    let result = AssertUnwindSafe(test(&site)).catch_unwind().await;
    history.drop_database().await.unwrap();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Without faults, it must be like the store behind it.
async fn on_faulty(_: &str, test: impl AsyncFnOnce(&Site)) {
    let clock = ManualClock::new();
    let options = EmbeddedOptions { retention: RETENTION, clock: clock.clock() };
    let history = FaultyHistory::with_options(options);
    history.prepare().await.unwrap();
    test(&Site { history, clock, cases: 4 }).await;
}

mod embedded {
    record_contract!(super::on_embedded);
    output_contract!(super::on_embedded);
}

mod mongo {
    record_contract!(super::on_mongo);
    output_contract!(super::on_mongo);
}

mod faulty {
    record_contract!(super::on_faulty);
    output_contract!(super::on_faulty);
}
