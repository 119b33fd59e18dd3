//! The promises, by breaking the system on purpose. Each test owns its servers, and kills them too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use sentinel_tests::chaos::harness::{Options, run};

/// The seed of the short form; another one with `CHAOS_SEED`.
fn seed() -> u64 {
    std::env::var("CHAOS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_run_twice_whatever_is_killed() {
    let report = run(Options::short(seed())).await;
    println!("{report}");
    assert!(report.is_clean(), "seed {}:\n{report}", report.options.seed);
}
