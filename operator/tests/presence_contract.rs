//! What every Presence guarantees, tested on the one in memory, on Redis and on the fake that fails; and the mirror.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "it is a test"
)]

mod stores;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use sentinel_operator::clock::Clock;
use sentinel_operator::presence::memory::MemoryPresence;
use sentinel_operator::presence::redis::{RedisOptions, RedisPresence};
use sentinel_operator::presence::{Presence, PresenceError, PresenceFuture, PresenceRecord};
use sentinel_protocol::metrics::{DiskMetrics, NodeMetrics};
use sentinel_protocol::time::UnixMillis;
use stores::fixtures::node;
use stores::parts::{parts, unique};
use stores::{ManualClock, eventually};

const LONG: Duration = Duration::from_mins(1);

fn record(on: &str, seen_at: i64) -> PresenceRecord {
    PresenceRecord {
        node: node(on),
        session: "s-1".parse().unwrap(),
        last_seen: UnixMillis(seen_at),
        agent_version: "0.1.0".to_owned(),
        boot_id: "b00t".to_owned(),
        metrics: NodeMetrics {
            cpu_percent: 12.5,
            memory_total: 1 << 40,
            load: [0.25, 1.5, 3.0],
            disks: vec![DiskMetrics {
                mount: "/var/lib \"x\"".into(),
                total: sentinel_protocol::limits::MAX_COUNT,
                available: 1,
            }],
            ..NodeMetrics::default()
        },
    }
}

/// A Presence of its own for one test.
struct Site {
    presence: Arc<dyn Presence>,
    /// The clock that expiry is measured by, unless it is real.
    clock: Option<ManualClock>,
}

macro_rules! contract {
    ($($test:ident),+ $(,)?) => {
        mod memory {
            $(
                #[tokio::test]
                async fn $test() {
                    let clock = super::ManualClock::new();
                    let presence = super::Arc::new(super::MemoryPresence::new(clock.clock()));
                    super::$test(&super::Site { presence, clock: Some(clock) }).await;
                }
            )+
        }

        mod redis {
            $(
                #[tokio::test]
                async fn $test() {
                    let Some(parts) = super::parts(stringify!($test)) else { return };
                    // Characters that are special in a pattern.
                    let options = super::RedisOptions { prefix: super::unique("t[*]?") + ":", ..Default::default() };
                    let presence = super::Arc::new(super::RedisPresence::new(&parts.redis_url, options).unwrap());
                    // Its keys expire.
                    super::$test(&super::Site { presence, clock: None }).await;
                }
            )+
        }

        mod failing {
            $(
                #[tokio::test]
                async fn $test() {
                    let clock = super::ManualClock::new();
                    let presence = super::FailingPresence::new(clock.clock());
                    super::$test(&super::Site { presence, clock: Some(clock) }).await;
                }
            )+
        }
    };
}

contract! {
    check_succeeds,
    the_latest_record_of_a_node_is_listed,
    records_expire_unless_renewed,
    two_thousand_nodes_are_renewed_in_one_call,
    an_empty_renewal_succeeds,
}

async fn check_succeeds(site: &Site) {
    site.presence.check().await.unwrap();
}

async fn the_latest_record_of_a_node_is_listed(site: &Site) {
    site.presence.renew(vec![record("b", 1), record("a", 1)], LONG).await.unwrap();
    site.presence.renew(vec![record("b", 2)], LONG).await.unwrap();
    assert_eq!(site.presence.list().await.unwrap(), [record("a", 1), record("b", 2)]);
}

async fn records_expire_unless_renewed(site: &Site) {
    let short = Duration::from_secs(1);
    site.presence.renew(vec![record("a", 1), record("b", 1)], short).await.unwrap();
    site.presence.renew(vec![record("b", 2)], LONG).await.unwrap();
    assert_eq!(site.presence.list().await.unwrap().len(), 2);
    if let Some(clock) = &site.clock {
        clock.advance(short);
        assert_eq!(site.presence.list().await.unwrap(), [record("b", 2)]);
        return;
    }
    // Redis expires in real time.
    let deadline = Instant::now() + Duration::from_secs(10);
    while site.presence.list().await.unwrap() != [record("b", 2)] {
        assert!(Instant::now() < deadline, "timed out: it has not expired");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn two_thousand_nodes_are_renewed_in_one_call(site: &Site) {
    let records: Vec<_> = (0..2000).map(|n| record(&format!("node-{n:04}"), n)).collect();
    site.presence.renew(records.clone(), LONG).await.unwrap();
    assert_eq!(site.presence.list().await.unwrap(), records);
}

async fn an_empty_renewal_succeeds(site: &Site) {
    site.presence.renew(vec![], LONG).await.unwrap();
    assert_eq!(site.presence.list().await.unwrap(), []);
}

/// Redis alone.
mod server {
    use tokio::net::TcpListener;

    use super::*;

    fn quick() -> RedisOptions {
        RedisOptions {
            response_timeout: Duration::from_millis(300),
            connection_timeout: Duration::from_millis(300),
            pause: Duration::from_millis(500),
            ..RedisOptions::default()
        }
    }

    #[test]
    fn rejects_invalid_urls_without_echoing_the_password() {
        for url in [
            "",
            "localhost:6379",
            "http://x/",
            "redis://user:secret@host:99999/",
            "redis://:secret@h/notanumber",
        ] {
            let error =
                RedisPresence::new(url, quick()).err().unwrap_or_else(|| panic!("{url:?} was accepted"));
            let text = error.to_string();
            assert!(text.starts_with("invalid Redis URL"), "{url:?}: {text}");
            assert!(!text.contains("secret"), "{url:?}: {text}");
        }
    }

    #[tokio::test]
    async fn an_unreachable_server_opens_the_circuit() {
        let options = RedisOptions { pause: LONG, ..quick() };
        let presence = RedisPresence::new("redis://:secret@127.0.0.1:9/", options).unwrap();
        let error = presence.renew(vec![record("a", 1)], LONG).await.unwrap_err();
        assert!(error.to_string().starts_with("unable to renew presence: Redis at 127.0.0.1:9: "), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
        for _ in 0..100 {
            let error = presence.check().await.unwrap_err();
            assert_eq!((error.category(), error.is_retryable()), ("CircuitOpen", true));
        }
    }

    #[tokio::test]
    async fn a_silent_server_fails_within_the_timeout() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}/", silent.local_addr().unwrap());
        let presence = RedisPresence::new(&url, quick()).unwrap();
        let failed = tokio::time::timeout(Duration::from_secs(10), presence.check()).await;
        assert_eq!(failed.expect("it did not time out").unwrap_err().category(), "Redis");
    }

    /// A Redis server that a test can kill.
    struct Redis {
        program: String,
        port: u16,
        folder: tempfile::TempDir,
        process: Option<std::process::Child>,
    }

    impl Redis {
        fn start(&mut self) {
            let mut command = std::process::Command::new(&self.program);
            command.args(["--bind", "127.0.0.1", "--save", "", "--port", &self.port.to_string(), "--dir"]);
            command.arg(self.folder.path()).stdout(std::process::Stdio::null());
            self.process = Some(command.spawn().unwrap());
        }

        fn kill(&mut self) {
            if let Some(mut process) = self.process.take() {
                process.kill().unwrap();
                process.wait().unwrap();
            }
        }
    }

    impl Drop for Redis {
        fn drop(&mut self) {
            self.kill();
        }
    }

    #[tokio::test]
    async fn the_mirror_recovers_after_redis_was_killed() {
        use sentinel_operator::presence::mirror::{MirrorOptions, PresenceMirror};

        let test = "the_mirror_recovers_after_redis_was_killed";
        let Some(parts) = parts(test) else { return };
        let Some(program) = parts.bin.get("redis-server").cloned() else {
            eprintln!("NOT TESTED, because the Redis in use was not started by the tests: {test}");
            return;
        };
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let mut redis = Redis { program, port, folder: tempfile::tempdir().unwrap(), process: None };
        let presence = Arc::new(RedisPresence::new(&format!("redis://127.0.0.1:{port}/"), quick()).unwrap());
        let options = MirrorOptions { flush_interval: Duration::from_millis(20), ..MirrorOptions::default() };
        let (mirror, work) = PresenceMirror::new(presence.clone(), options);
        let work = tokio::spawn(work.run());
        // Not running at first, then killed twice.
        for round in 0..3 {
            redis.kill();
            let failed = mirror.status().total_failures();
            for n in 0..50 {
                mirror.renew(record(&format!("n{n:02}"), round));
            }
            eventually("a flush fails", || mirror.status().total_failures() > failed).await;
            redis.start();
            eventually("all is written", || mirror.status().is_up && mirror.status().queued == 0).await;
            let expected: Vec<_> = (0..50).map(|n| record(&format!("n{n:02}"), round)).collect();
            assert_eq!(presence.list().await.unwrap(), expected, "round {round}");
        }
        work.abort();
    }

    #[tokio::test]
    async fn keys_are_readable_by_hand_and_expire() {
        let Some(parts) = parts("keys_are_readable_by_hand_and_expire") else { return };
        let prefix = unique("keys") + ":";
        let options = RedisOptions { prefix: prefix.clone(), ..RedisOptions::default() };
        let presence = RedisPresence::new(&parts.redis_url, options).unwrap();
        presence.renew(vec![record("web-1", 7)], Duration::from_secs(15)).await.unwrap();
        let client = ::redis::Client::open(parts.redis_url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let key = format!("{prefix}presence:web-1");
        let ttl: i64 = ::redis::cmd("TTL").arg(&key).query_async(&mut connection).await.unwrap();
        assert!((14..=15).contains(&ttl), "{ttl} s to live");
        let text: String = ::redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((value["node"].as_str(), value["lastHeard"].as_i64()), (Some("web-1"), Some(7)));
    }
}

/// The Presence in memory, which fails on request.
struct FailingPresence {
    inner: MemoryPresence,
    is_failing: AtomicBool,
}

impl FailingPresence {
    fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { inner: MemoryPresence::new(clock), is_failing: AtomicBool::new(false) })
    }

    fn set_failing(&self, is_failing: bool) {
        self.is_failing.store(is_failing, Ordering::SeqCst);
    }
}

impl Presence for FailingPresence {
    fn renew(&self, records: Vec<PresenceRecord>, ttl: Duration) -> PresenceFuture<'_, ()> {
        if self.is_failing.load(Ordering::SeqCst) {
            let error = PresenceError::CircuitOpen {
                action: "renew presence",
                host: "failing store".to_owned(),
                retry_in: Duration::ZERO,
            };
            return std::future::ready(Err(error)).boxed();
        }
        self.inner.renew(records, ttl)
    }

    fn list(&self) -> PresenceFuture<'_, Vec<PresenceRecord>> {
        self.inner.list()
    }

    fn check(&self) -> PresenceFuture<'_, ()> {
        self.inner.check()
    }
}

/// The way from the gateway to the store, on a paused clock.
mod mirror {
    use sentinel_operator::presence::mirror::{MirrorOptions, PresenceMirror};

    use super::*;

    fn options() -> MirrorOptions {
        MirrorOptions { ttl: LONG, flush_interval: Duration::from_millis(10), max_nodes: 5 }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_keeps_the_latest_record_of_each_node() {
        let presence = FailingPresence::new(Clock::system());
        let (mirror, work) = PresenceMirror::new(presence.clone(), options());
        let work = tokio::spawn(work.run());
        mirror.renew(record("a", 1));
        eventually("the first flush", || mirror.status().renewed == 1).await;
        presence.set_failing(true);
        for seen_at in 2..5 {
            mirror.renew(record("a", seen_at));
            mirror.renew(record("b", seen_at));
        }
        eventually("some flushes have failed", || mirror.status().total_failures() > 1).await;
        let status = mirror.status();
        assert!(!status.is_up && status.last_error.unwrap().contains("failing store"));
        assert_eq!(status.failures.get("CircuitOpen"), Some(&status.failures.values().sum()));
        assert_eq!(presence.list().await.unwrap(), [record("a", 1)]);
        mirror.renew(record("c", 9));
        presence.set_failing(false);
        eventually("it is up again", || mirror.status().is_up && mirror.status().queued == 0).await;
        assert_eq!(presence.list().await.unwrap(), [record("a", 4), record("b", 4), record("c", 9)]);
        assert_eq!(mirror.status().renewed, 4);
        assert_eq!(mirror.status().dropped, 4, "two older records of each node");
        work.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_beyond_the_bound_are_dropped_and_counted() {
        let (mirror, work) = PresenceMirror::new(FailingPresence::new(Clock::system()), options());
        for n in 0..8 {
            mirror.renew(record(&format!("n{n}"), 1));
        }
        assert_eq!((mirror.status().queued, mirror.status().dropped), (5, 3));
        let work = tokio::spawn(work.run());
        eventually("they are written", || mirror.status().renewed == 5).await;
        work.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn records_that_expired_in_the_queue_are_not_written() {
        let (mirror, work) = PresenceMirror::new(FailingPresence::new(Clock::system()), options());
        mirror.renew(record("a", 1));
        tokio::time::advance(LONG).await;
        mirror.renew(record("b", 2));
        let work = tokio::spawn(work.run());
        eventually("it is flushed", || mirror.status().queued == 0 && mirror.status().renewed > 0).await;
        assert_eq!((mirror.status().renewed, mirror.status().dropped), (1, 1));
        work.abort();
    }
}
