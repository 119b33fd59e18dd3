//! The short form of every attack: `just attacks` runs the full one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sentinel_tests::attacks::{self, Size};

/// One test, so that no attack disturbs the memory measurement of another.
#[tokio::test(flavor = "multi_thread")]
async fn every_attack_stays_within_its_bound() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let report = attacks::run(&[], Size::Short).await.unwrap();
    println!("{report}");
    assert!(report.is_held(), "\n{report}");
}
